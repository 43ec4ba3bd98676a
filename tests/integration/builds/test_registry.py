"""A build pushes to a real registry; another engine fetches by digest what it is to run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import docker
import pytest
from buildshop import Shop
from engines import Engine, engine, registry

from cd.errors import ServiceError
from cd.pipeline.registry import Registry
from cd.sandbox.base import ContainerSpec, Limits
from cd.sandbox.docker_engine import DockerSandbox
from cd.sandbox.output import Memory

LIMITS = Limits(memory=64 << 20, cpus=1, pids=32, disk=8 << 20, timeout=60)


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    with registry(tmp_path) as found:
        yield found


@pytest.fixture
def other() -> Iterator[Engine]:
    with engine() as made:
        yield made


def test_what_was_built_here_runs_there(
    shop: Shop, address: str, other: Engine, docker_client: docker.DockerClient
) -> None:
    known = Registry(f"{address}/towpath")
    shop.runner = replace(shop.runner, registry=known)
    files = {
        "Dockerfile": f"FROM {shop.base}\nRUN echo built >/made\n",
        ".towpath.yml": "stages:\n  look: {run: cat /made}\n",
    }
    claim = shop.begin(shop.push(files))
    shop.runner.execute(claim)
    run, (build, look) = shop.look(claim)
    assert build.state == "passed", build.reason
    assert run.image == look.image
    assert run.image is not None
    assert run.image.startswith(f"{address}/towpath/{shop.project.slug}@sha256:")

    sandbox, kept = DockerSandbox(other.host), Memory()
    spec = ContainerSpec("towpath-test-there", run.image, ("cat", "/made"), LIMITS)
    try:
        sandbox.start(spec)
        result = sandbox.follow(spec.name, into=kept, timeout=60, canceled=lambda: False, limit=1 << 20)
    finally:
        sandbox.remove(spec.name)
    assert (result.exit_code, bytes(kept.data)) == (0, b"built\n")
    assert sandbox.api.inspect_image(run.image)["RepoDigests"] == [run.image]
    sandbox.api.close()

    again = shop.begin(shop.push({"README": "more\n", **files}))
    shop.runner.execute(again)
    assert shop.look(again)[1][0].state == "passed", "the tree is another one"
    known.close()
    docker_client.images.remove(f"{address}/towpath/{shop.project.slug}:run-1", force=True)


def test_what_the_registry_lost_is_not_known_any_more(address: str) -> None:
    known = Registry(f"{address}/towpath")
    assert not known.has(f"{address}/towpath/shop@sha256:{'0' * 64}")
    known.close()
    nowhere = Registry("127.0.0.1:9/x")
    with pytest.raises(ServiceError):
        nowhere.has(f"127.0.0.1:9/x/shop@sha256:{'0' * 64}")
    nowhere.close()
