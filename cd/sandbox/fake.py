"""A sandbox without an engine: what each container does is said beforehand, or step by step."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from cd.errors import ServiceError
from cd.sandbox.base import ContainerSpec, Found, StageResult, is_canceled

#: Exit code of what was killed, and seconds between two looks at deadline and cancellation.
KILLED = 137
LOOK = 0.01


@dataclass(frozen=True)
class Play:
    """What a container does: prints `output`, then ends, unless `ends` is False: then it waits to be told or killed."""

    output: bytes = b""
    exit_code: int = 0
    oom: bool = False
    ends: bool = True
    #: The engine's words when the command can't be executed; the exit code is then 126 or 127.
    error: str = ""


@dataclass
class _Container:
    spec: ContainerSpec
    play: Play
    started_at: datetime
    output: bytearray = field(default_factory=bytearray)
    exit_code: int | None = None
    oom: bool = False
    finished_at: datetime | None = None

    def end(self, exit_code: int, oom: bool = False) -> None:
        if self.exit_code is None:
            self.exit_code, self.oom, self.finished_at = exit_code, oom, datetime.now(UTC)

    @property
    def age(self) -> float:
        return ((self.finished_at or datetime.now(UTC)) - self.started_at).total_seconds()


class FakeSandbox:
    """See `cd.sandbox.base.Sandbox`. `play` says what a container does, asked when it is started.

    `started` lists the names of all containers ever started, in that order. `away` is the engine's fault: while it is
    set, every call raises it.
    """

    def __init__(self, play: Callable[[ContainerSpec], Play] = lambda spec: Play()) -> None:
        self.started: list[str] = []
        self.away: ServiceError | None = None
        self._play = play
        self._containers: dict[str, _Container] = {}
        self._changed = threading.Condition()

    def start(self, spec: ContainerSpec) -> None:
        """See Sandbox."""
        with self._changed:
            self.ping()
            if spec.name in self._containers:
                return
            play = self._play(spec)
            container = _Container(spec, play, datetime.now(UTC), bytearray(play.output))
            self._containers[spec.name] = container
            self.started.append(spec.name)
            if play.ends:
                container.end(play.exit_code, play.oom)

    def follow(
        self,
        name: str,
        *,
        skip: int,
        write: Callable[[bytes], None],
        timeout: float,
        canceled: Callable[[], bool],
    ) -> StageResult:
        """See Sandbox."""
        stopped = False
        while True:
            with self._changed:
                container = self._find(name)
                fresh, ended = bytes(container.output[skip:]), container.exit_code is not None
            if fresh:
                write(fresh)
                skip += len(fresh)
            elif ended:
                return _result(container, timeout, stopped)
            elif container.age >= timeout or (stopped := is_canceled(canceled)):
                self.end(name, KILLED)
            else:
                with self._changed:
                    self._changed.wait(LOOK)

    def remove(self, name: str) -> None:
        """See Sandbox."""
        with self._changed:
            self.ping()
            self._containers.pop(name, None)
            self._changed.notify_all()

    def find(self, labels: Mapping[str, str]) -> Sequence[Found]:
        """See Sandbox."""
        with self._changed:
            self.ping()
            return [
                Found(name, one.spec.labels, "running" if one.exit_code is None else "exited")
                for name, one in self._containers.items()
                if labels.items() <= one.spec.labels.items()
            ]

    def ping(self) -> None:
        """See Sandbox."""
        if self.away is not None:
            raise self.away

    def say(self, name: str, output: bytes) -> None:
        """Let a running container print."""
        with self._changed:
            self._find(name).output += output
            self._changed.notify_all()

    def end(self, name: str, exit_code: int = 0, oom: bool = False) -> None:
        """Let a running container end."""
        with self._changed:
            self._find(name).end(exit_code, oom)
            self._changed.notify_all()

    def _find(self, name: str) -> _Container:
        self.ping()
        if name not in self._containers:
            raise ServiceError(f"the engine no longer has it: {name}")
        return self._containers[name]


def _result(container: _Container, timeout: float, canceled: bool) -> StageResult:
    killed = container.exit_code == KILLED and not container.oom
    return StageResult(
        exit_code=container.exit_code or 0,
        oom=container.oom,
        timed_out=killed and container.age >= timeout,
        canceled=canceled,
        started_at=container.started_at,
        finished_at=container.finished_at or container.started_at,
        error=container.play.error,
    )
