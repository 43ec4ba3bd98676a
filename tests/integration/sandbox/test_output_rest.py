"""The end of a large output that the engine kept back: found among its last lines, else by going through all of it."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from cd.sandbox import output
from cd.sandbox.base import ContainerSpec, Limits
from cd.sandbox.docker_engine import DockerSandbox
from cd.sandbox.output import Memory

LIMITS = Limits(memory=64 << 20, cpus=1, pids=32, disk=8 << 20, timeout=60)
LINES = 50_000
SCRIPT = f"i=0; while [ $i -lt {LINES} ]; do echo this is the line of number $i; i=$((i+1)); done"


@dataclass
class Ended:
    sandbox: DockerSandbox
    name: str
    seen: Memory


@pytest.fixture
def ended(busybox_image: str) -> Iterator[Ended]:
    sandbox, name, seen = DockerSandbox(), f"towpath-test-{uuid.uuid4().hex[:8]}", Memory()
    try:
        sandbox.start(ContainerSpec(name, busybox_image, ("/bin/sh", "-c", SCRIPT), LIMITS))
        sandbox.follow(name, into=seen, timeout=60, canceled=lambda: False, limit=1 << 30)
        yield Ended(sandbox, name, seen)
    finally:
        sandbox.remove(name)
        sandbox.api.close()


@pytest.mark.parametrize("back", [1, 300, 5_000, 1 << 18])
def test_what_is_left_comes_once(ended: Ended, monkeypatch: pytest.MonkeyPatch, back: int) -> None:
    whole = bytes(ended.seen.data)
    assert whole == b"".join(b"this is the line of number %d\n" % number for number in range(LINES))
    position = len(whole) - back
    since_at, since = max(one for one in ended.seen.times if one[0] <= position)
    asked: list[int] = []
    read = output._read

    def watched(*arguments: object, **named: int) -> bool | None:
        asked.append(named.get("tail", 0))
        return read(*arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(output, "_read", watched)
    late = Memory(position, since, since_at)
    assert not output.rest(ended.sandbox.api, ended.name, late, 1 << 30)
    assert bytes(late.data) == whole[position:]
    # Some hundred lines come in a millisecond, and only then a time is noted.
    assert asked == ([output.LAST_LINES] if back < 20_000 else [output.LAST_LINES, 0])
