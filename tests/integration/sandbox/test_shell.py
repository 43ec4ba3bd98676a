"""A shell on what a failed stage left, on a real engine."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import docker
import pytest

from cd.errors import NotFound, ServiceError
from cd.sandbox.base import ContainerSpec, Limits
from cd.sandbox.docker_engine import DockerSandbox
from cd.sandbox.output import Memory
from cd.sandbox.shell import Shells, is_over, shell_spec
from cd.store.base import now

LIMITS = Limits(memory=64 << 20, cpus=1, pids=32, disk=8 << 20, timeout=60)
SECRET = "hunter2-and-more"


@pytest.fixture
def sandbox() -> Iterator[DockerSandbox]:
    made = DockerSandbox()
    yield made
    made.api.close()


@pytest.fixture
def image(sandbox: DockerSandbox, busybox_image: str) -> Iterator[str]:
    """What a failed stage left: files in /work and /tmp, one of them with its secret."""
    name = f"towpath-test-failed-{uuid.uuid4().hex[:8]}"
    script = (
        "echo clue >/work/clue; mkdir -m 700 /work/own; echo $TOKEN >/work/own/told; ln -s clue /work/link; "
        "echo more >/tmp/more; echo named >/work/$TOKEN.txt; ln -s $TOKEN.txt /work/named; "
        "head -c 3000000 /dev/zero >/work/large; exit 1"
    )
    spec = ContainerSpec(
        name,
        busybox_image,
        ("/bin/sh", "-c", script),
        LIMITS,
        labels={"towpath.test": name},
        secrets={"TOKEN": SECRET},
        keep_files=True,
    )
    try:
        sandbox.start(spec)
        result = sandbox.follow(name, into=Memory(), timeout=60, canceled=lambda: False, limit=1 << 20)
        assert result.exit_code == 1
        kept = sandbox.snapshot(name, f"towpath-test/kept:{name}", 8 << 20)
    finally:
        sandbox.remove(name)
    yield kept.image
    sandbox.api.remove_image(kept.image, force=True, noprune=True)


def ask(sandbox: DockerSandbox, image: str, typed: str) -> str:
    """What a shell shows when this is typed into it, line by line, until it ends."""
    shells = Shells(sandbox)
    name = shells.open(shell_spec(image, LIMITS, {}, {"towpath.instance": "test"}, "ada"))
    reader = shells.read(name)
    next(reader)
    shells.resize(name, 33, 101)
    for line in typed.splitlines():
        shells.write(name, line.encode() + b"\n")
    shown = b"".join(reader).decode()
    assert sandbox.find({"towpath.shell": name}) == []
    assert sandbox.api.volumes({"name": name})["Volumes"] in ([], None)
    return shown.replace("\r\n", "\n")


def test_the_files_are_there_as_the_stage_left_them(sandbox: DockerSandbox, image: str) -> None:
    shown = ask(
        sandbox,
        image,
        "cat /work/clue /work/link /tmp/more\nid -u\nstat -c 'mode:%a:%u' /work /tmp /work/own\nstty size\n"
        "cat /work/own/told; env | grep -c TOKEN\nls /work; "
        "cat /work/named; wc -c </work/large\ntouch /work/mine && echo written\nexit",
    )
    assert "clue\nclue\nmore\n" in shown
    assert "\n65532\n" in shown
    assert "mode:1777:" in shown
    assert "mode:700:65532\n" in shown
    assert "\n33 101\n" in shown
    assert SECRET not in shown
    assert "*" * len(SECRET) in shown
    assert "\n0\n" in shown
    assert "*" * len(SECRET) + ".txt" in shown
    assert "\nnamed\n3000000\n" in shown
    assert "\nwritten\n" in shown


def test_it_is_as_closed_as_a_stage(sandbox: DockerSandbox, image: str) -> None:
    shown = ask(
        sandbox,
        image,
        "touch /bin/x || echo root-is-read-only\ngrep -E 'CapEff|CapBnd|NoNewPrivs|^Seccomp:' /proc/self/status\n"
        "ip -o link | wc -l\nhead -c 9m /dev/zero >/work/big || echo full\nrm /work/big\n"
        "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null\n"
        "cat /sys/fs/cgroup/pids/pids.max /sys/fs/cgroup/pids.max 2>/dev/null\nexit",
    )
    assert "root-is-read-only" in shown.split("\n", 1)[1]
    # What is typed ahead is echoed wherever the terminal is just then, so each line for itself.
    for line in ("CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"):
        assert line in shown
    assert "\n1\n" in shown  # the loopback
    assert "\nfull\n" in shown
    assert f"\n{64 << 20}\n" in shown
    assert "\n32\n" in shown


def test_what_is_typed_comes_in_its_order(sandbox: DockerSandbox, image: str) -> None:
    lines = "\n".join(f"echo {number} >>/work/order" for number in range(60))
    shown = ask(sandbox, image, f"stty -echo\n{lines}\ntr '\\n' , </work/order\nexit")
    assert ",".join(str(number) for number in range(60)) in shown


def test_whoever_stops_reading_ends_it(sandbox: DockerSandbox, image: str) -> None:
    shells = Shells(sandbox)
    spec = shell_spec(image, LIMITS, {}, {"towpath.instance": "test"}, "ada")
    reader = shells.read(shells.open(spec))
    next(reader)
    assert shells.find(spec.name)["towpath.user"] == "ada"
    reader.close()
    assert sandbox.find({"towpath.shell": spec.name}) == []
    with pytest.raises(NotFound):
        shells.find(spec.name)


def test_one_that_nobody_reads_is_over_after_a_minute(sandbox: DockerSandbox, image: str) -> None:
    from datetime import timedelta

    shells = Shells(sandbox)
    name = shells.open(shell_spec(image, LIMITS, {}, {"towpath.instance": "test"}, "ada"))
    (found,) = sandbox.find({"towpath.shell": name})
    assert not is_over(found, now())
    assert is_over(found, now() + timedelta(seconds=61))
    shells.remove(name)


def test_an_absent_snapshot_and_an_image_without_a_shell_are_told(
    sandbox: DockerSandbox, docker_client: docker.DockerClient
) -> None:
    import io
    import tarfile

    from servers import make_image

    shells = Shells(sandbox)
    with pytest.raises(ServiceError, match="--local"):
        shells.open(shell_spec(f"sha256:{'0' * 64}", LIMITS, {}, {}, "ada"))
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("nothing"))
    bare = make_image(docker_client, packed.getvalue())
    try:
        shown = b"".join(shells.read(shells.open(shell_spec(bare, LIMITS, {}, {}, "ada"))))
        assert b"the image has no shell" in shown
    finally:
        docker_client.api.remove_image(bare, force=True)
