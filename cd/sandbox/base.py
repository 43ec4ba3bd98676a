"""What a sandbox is: one command in one fresh container that can reach nothing and keep nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from cd.errors import TowpathError


class NotReady(TowpathError):
    """A service ended, or did not become ready in time, before the command was started: the user's fault.

    `reason` in words, `output` the end of what the service wrote.
    """

    def __init__(self, service: str, reason: str, output: bytes = b"") -> None:
        self.service, self.reason, self.output = service, reason, output
        super().__init__(f"service {service} {reason}")


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
class Service:
    """A container beside the command. It shares the command's network, where `name` is one of its host names."""

    name: str
    #: Image id or digest.
    image: str
    limits: Limits
    env: Mapping[str, str] = field(default_factory=dict)
    #: Run inside it until it exits 0; None: ready when it runs.
    ready: tuple[str, ...] | None = None


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
    #: Variables that no file kept from the container may hold.
    secrets: Mapping[str, str] = field(default_factory=dict)
    #: none, services (each other's only) or internet.
    network: str = "none"
    services: tuple[Service, ...] = ()
    #: Whether `files` and `snapshot` will be asked for once it has ended.
    keep_files: bool = False


class Sink(Protocol):
    """Where a container's output goes. It may have some of it already, from a worker that was lost."""

    #: Bytes of the output that it has.
    position: int
    #: The last engine's time that `write` told it, in nanoseconds since 1970, and the position that it was told for; 0
    #: when it has none. A resumed reading begins there.
    since: int
    since_at: int

    def write(self, data: bytes, times: Sequence[tuple[int, int]] = ()) -> None:
        """Add bytes that lie at `position`; `times` gives for offsets into them (rising) the engine's time in ns."""


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
    #: It was killed because it wrote more than it may.
    flooded: bool = False
    #: Services that ended before the command did, and how, in words.
    services: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Kept:
    """What `snapshot` made: an image on this engine. `size` in bytes without the image it stands on."""

    image: str
    size: int


@dataclass(frozen=True)
class Found:
    """A container that exists. `state` is the engine's word: created, running, exited, ..."""

    name: str
    labels: Mapping[str, str]
    state: str


class Sandbox(Protocol):
    """Runs containers on one engine.

    Order of calls: `start`, then `follow` until it returns, then `files` and `snapshot` as wanted, then `remove`. Each
    may be called again, by the same worker or by another one after a crash, with the same outcome: `start` adopts what
    exists, `follow` reads the output from where its sink ends. Whoever fails in between leaves the containers as they
    are; `find` finds them by their labels; `remove` is content when nothing is there.

    Output comes live line by line; what is not UTF-8 may come as U+FFFD, the same each time.

    All raise ServiceError when the engine can't be reached, was started anew while the container ran, or forgets it.
    """

    def start(self, spec: ContainerSpec, canceled: Callable[[], bool] = lambda: False) -> None:
        """Start the services, wait until they are ready, start the command; or leave what exists of it as it is.

        Returns early when `canceled()`; `follow` then says so. Raises NotReady.
        """

    def follow(
        self,
        name: str,
        *,
        into: Sink,
        timeout: float,
        canceled: Callable[[], bool],
        limit: int,
    ) -> StageResult:
        """Pass the output on until the container has ended.

        `timeout` seconds count from the container's own start; when they are over, or `canceled()` (asked twice a
        second) is true, or there are more than `limit` bytes of output, it is killed; a `canceled` that raises one of
        our errors says nothing. What the sink raises ends the following and leaves the container alone.
        """

    def files(self, name: str, path: str) -> Iterator[bytes]:
        """A tar of `path`, /work or /tmp or below, out of an ended container that was to keep its files.

        Raises NotFound when there is no such path.
        """

    def snapshot(self, name: str, tag: str, limit: int) -> Kept:
        """Keep /work and /tmp of an ended container as an image on top of its own, secrets blanked out.

        Raises TooLarge when they hold more than `limit` bytes.
        """

    def remove(self, name: str) -> None:
        """Kill and remove the container with its services and all else made for it."""

    def find(self, labels: Mapping[str, str]) -> Sequence[Found]:
        """All commands' containers that carry these labels, in any state; not what was made beside them."""

    def ping(self) -> None:
        """Raises ServiceError, with what to do, unless the engine answers."""


def is_canceled(asked: Callable[[], bool]) -> bool:
    """The answer; no when the question fails, since who is asked may be away for a while."""
    try:
        return asked()
    except TowpathError:
        return False
