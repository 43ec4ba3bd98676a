"""What a sandbox is: one command in one fresh container that can reach nothing and keep nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from cd.errors import TowpathError


@dataclass(frozen=True)
class Limits:
    """What a container may use. `memory` and `disk` in bytes, `timeout` in seconds from its start."""

    memory: int
    cpus: float
    pids: int
    #: Size of /tmp and of /work, the only places that can be written.
    disk: int
    timeout: float


@dataclass(frozen=True)
class ContainerSpec:
    """One container to run. The name is unique for stage and attempt: it makes starting idempotent."""

    name: str
    #: Image id or digest, never a tag.
    image: str
    argv: tuple[str, ...]
    limits: Limits
    env: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class StageResult:
    """How a container ended. Times are the engine's, in UTC."""

    exit_code: int
    oom: bool
    timed_out: bool
    canceled: bool
    started_at: datetime
    finished_at: datetime
    #: The engine's words when the command could not be executed at all; empty otherwise.
    error: str = ""


@dataclass(frozen=True)
class Found:
    """A container that exists. `state` is the engine's word: created, running, exited, ..."""

    name: str
    labels: Mapping[str, str]
    state: str


class Sandbox(Protocol):
    """Runs containers on one engine.

    Order of calls: `start`, then `follow` until it returns, then `remove`. Each may be called again, by the same
    worker or by another one after a crash, with the same outcome: `start` adopts what exists, `follow` reads the
    output from its beginning and drops what the caller has, `remove` is content when nothing is there. Whoever
    fails in between leaves the container as it is; `find` finds it by its labels.

    Output comes live line by line; what is not UTF-8 may come as U+FFFD, the same each time.

    All raise ServiceError when the engine can't be reached or forgets a container.
    """

    def start(self, spec: ContainerSpec) -> None:
        """Create and start the container, or leave the one of that name as it is."""

    def follow(
        self,
        name: str,
        *,
        skip: int,
        write: Callable[[bytes], None],
        timeout: float,
        canceled: Callable[[], bool],
    ) -> StageResult:
        """Pass the output on until the container has ended.

        `skip` bytes at the beginning are dropped. `timeout` seconds count from the container's own start; when
        they are over, or `canceled()` (asked twice a second) is true, it is killed; a `canceled` that raises one of
        our errors says nothing. What `write` raises ends the following and leaves the container alone.
        """

    def remove(self, name: str) -> None:
        """Kill and remove the container, if it exists."""

    def find(self, labels: Mapping[str, str]) -> Sequence[Found]:
        """All containers that carry these labels, in any state."""

    def ping(self) -> None:
        """Raises ServiceError, with what to do, unless the engine answers."""


def is_canceled(asked: Callable[[], bool]) -> bool:
    """The answer; no when the question fails, since who is asked may be away for a while."""
    try:
        return asked()
    except TowpathError:
        return False
