"""A service that writes without end into its own root, which no engine bounds: it is ended, and that is told."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import docker
import pytest

from cd.sandbox import docker_engine, pods
from cd.sandbox.base import ContainerSpec, Limits, NotReady, Service
from cd.sandbox.docker_engine import DockerSandbox
from cd.sandbox.output import Memory

LIMITS = Limits(memory=64 << 20, cpus=1, pids=32, disk=8 << 20, timeout=60)
#: Small files, so that no limit of one file helps; about 20 MB a second.
FILLS = "i=0; while :; do head -c 1000000 /dev/zero >/file$i; i=$((i+1)); sleep 0.05; done"


@pytest.fixture
def sandbox(monkeypatch: pytest.MonkeyPatch) -> Iterator[DockerSandbox]:
    for module in (pods, docker_engine):
        monkeypatch.setattr(module, "WEIGH", 0.5)
    made = DockerSandbox()
    yield made
    made.api.close()


@pytest.fixture
def filler(docker_client: docker.DockerClient, busybox_image: str) -> Iterator[str]:
    """Id of an image whose command fills its root."""
    container = docker_client.containers.create(
        busybox_image, ["/bin/sh", "-c", FILLS], labels={"towpath-test": "disk"}
    )
    image = container.commit("towpath-test-filler", uuid.uuid4().hex[:8])
    container.remove()
    yield str(image.id)
    docker_client.api.remove_image(image.id, force=True, noprune=True)


def spec(image: str, filler: str, ready: tuple[str, ...] | None) -> ContainerSpec:
    name = f"towpath-test-{uuid.uuid4().hex[:8]}"
    return ContainerSpec(
        name,
        image,
        ("/bin/sh", "-c", "sleep 5"),
        LIMITS,
        labels={"towpath.test": name},
        network="services",
        services=(Service("db", filler, LIMITS, {}, ready),),
    )


def test_while_the_command_runs(sandbox: DockerSandbox, busybox_image: str, filler: str) -> None:
    wanted = spec(busybox_image, filler, None)
    try:
        sandbox.start(wanted)
        result = sandbox.follow(wanted.name, into=Memory(), timeout=60, canceled=lambda: False, limit=1 << 20)
    finally:
        sandbox.remove(wanted.name)
    assert (result.exit_code, dict(result.services)) == (0, {"db": "wrote more than 8 MiB"})


def test_before_it_is_ready(sandbox: DockerSandbox, busybox_image: str, filler: str) -> None:
    wanted = spec(busybox_image, filler, ("false",))
    try:
        with pytest.raises(NotReady, match="service db wrote more than 8 MiB"):
            sandbox.start(wanted)
    finally:
        sandbox.remove(wanted.name)
