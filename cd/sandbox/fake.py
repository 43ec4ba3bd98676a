"""A sandbox without an engine: what each container does is said beforehand, or step by step."""

from __future__ import annotations

import hashlib
import io
import tarfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from time import time_ns

from cd.errors import NotFound, ServiceError, TooLarge
from cd.sandbox.base import ContainerSpec, Found, Kept, NotReady, Sink, StageResult, is_canceled
from cd.sandbox.options import SCRATCH

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
    #: Name of a service that ends before it is ready; the command is then never begun.
    not_ready: str = ""
    #: Services that ended before the command did, and how.
    services: Mapping[str, str] = field(default_factory=dict)
    #: By path what the command leaves in /work and /tmp.
    files: Mapping[str, bytes] = field(default_factory=dict)


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

    def start(self, spec: ContainerSpec, canceled: Callable[[], bool] = lambda: False) -> None:
        """See Sandbox."""
        with self._changed:
            self.ping()
            if spec.name in self._containers:
                return
            play = self._play(spec)
            if play.not_ready:
                raise NotReady(play.not_ready, "ended before it was ready: exit code 1", play.output)
            container = _Container(spec, play, datetime.now(UTC), bytearray(play.output))
            self._containers[spec.name] = container
            self.started.append(spec.name)
            if play.ends:
                container.end(play.exit_code, play.oom)

    def follow(
        self,
        name: str,
        *,
        into: Sink,
        timeout: float,
        canceled: Callable[[], bool],
        limit: int,
    ) -> StageResult:
        """See Sandbox."""
        stopped = flooded = False
        while True:
            with self._changed:
                container = self._find(name)
                fresh, ended = bytes(container.output[into.position : limit]), container.exit_code is not None
                flooded = len(container.output) > limit
            if fresh:
                into.write(fresh, [(0, time_ns())])
            elif flooded and not ended:
                self.end(name, KILLED)
            elif ended:
                return _result(container, timeout, stopped, flooded)
            elif container.age >= timeout or (stopped := is_canceled(canceled)):
                self.end(name, KILLED)
            else:
                with self._changed:
                    self._changed.wait(LOOK)

    def files(self, name: str, path: str) -> Iterator[bytes]:
        """See Sandbox."""
        container = self._find(name)
        found = {one: data for one, data in container.play.files.items() if one == path or one.startswith(f"{path}/")}
        if not found and path not in SCRATCH:
            raise NotFound("there is no such file", where=path)
        packed, parent = io.BytesIO(), path.rpartition("/")[0]
        with tarfile.open(fileobj=packed, mode="w") as tar:
            for one, data in found.items():
                entry = tarfile.TarInfo(one.removeprefix(f"{parent}/"))
                entry.size = len(data)
                tar.addfile(entry, io.BytesIO(data))
        yield packed.getvalue()

    def snapshot(self, name: str, tag: str, limit: int) -> Kept:
        """See Sandbox."""
        size = sum(map(len, self._find(name).play.files.values()))
        if size > limit:
            raise TooLarge(f"/work and /tmp hold more than {limit} bytes, and are not kept")
        return Kept(f"sha256:{hashlib.sha256(tag.encode()).hexdigest()}", size)

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


def _result(container: _Container, timeout: float, canceled: bool, flooded: bool) -> StageResult:
    killed = container.exit_code == KILLED and not container.oom
    return StageResult(
        exit_code=container.exit_code or 0,
        oom=container.oom,
        timed_out=killed and container.age >= timeout and not flooded,
        canceled=canceled,
        started_at=container.started_at,
        finished_at=container.finished_at or container.started_at,
        error=container.play.error,
        flooded=flooded,
        services=container.play.services,
    )
