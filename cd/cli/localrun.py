"""A run without a server: the same plan, decisions and containers; states in memory instead of a database."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from secrets import token_hex
from time import monotonic

from cd.errors import ServiceError
from cd.pipeline import stages
from cd.pipeline.decide import BUILD, PASSED, StepView, decide
from cd.pipeline.masking import Masker
from cd.pipeline.plan import Planned
from cd.pipeline.records import Project, Run, Step
from cd.pipeline.stages import Outcome
from cd.pipeline.verdicts import stage_key
from cd.sandbox.base import Sandbox

#: Name that takes the place of a project's.
PROJECT = "exec"
NONE: Mapping[str, str] = {}

#: Gets the name of a step, and what it says.
Write = Callable[[str, bytes], None]


@dataclass(frozen=True)
class StepResult:
    """How one step came out. `seconds` of all attempts; `key` and `image` as a server has them, empty when skipped."""

    name: str
    state: str
    reason: str = ""
    cause: str | None = None
    seconds: float = 0.0
    attempts: int = 0
    allow_failure: bool = False
    key: str = ""
    image: str = ""


@dataclass(frozen=True)
class Result:
    """How the run came out: passed, failed, errored or canceled."""

    state: str
    stages: tuple[StepResult, ...]


class Printed:
    """A sink that prints what comes, without the secrets in it. See cd.sandbox.base.Sandbox."""

    def __init__(self, write: Callable[[bytes], None], secrets: Iterable[str] = ()) -> None:
        self.position = self.since = self.since_at = 0
        self._write, self._masker = write, Masker(secrets)

    def write(self, data: bytes, times: Sequence[tuple[int, int]] = ()) -> None:
        """See Sink."""
        if times:
            self.since_at, self.since = self.position + times[-1][0], times[-1][1]
        self.position += len(data)
        self.say(data)

    def say(self, data: bytes) -> None:
        """Print what is no container's output."""
        if clear := self._masker.feed(data):
            self._write(clear)

    def close(self) -> None:
        """Print what might have become a secret and did not."""
        if clear := self._masker.flush():
            self._write(clear)


def chosen(planned: Sequence[Planned], names: Iterable[str]) -> list[Planned]:
    """The named stages, or cells of them, with all that they need, in the order of the file; all when none is named."""
    left = list(names)
    if not left:
        return list(planned)
    by_name = {one.name: one for one in planned}
    cells: dict[str, list[str]] = {}
    for one in planned:
        cells.setdefault(one.stage, []).append(one.name)
    wanted = set[str]()
    while left:
        for name in cells.get(given := left.pop(), [given]):
            if name not in wanted and name != BUILD:
                wanted.add(name)
                left.extend(by_name[name].needs)
    return [one for one in planned if one.name in wanted]


@dataclass
class LocalRun:
    """Runs steps, each in a container of its image, as many as `jobs` at a time."""

    planned: Sequence[Planned]
    #: By step, its image.
    images: Mapping[str, str]
    #: By step, the image of each of its services.
    services: Mapping[str, Mapping[str, str]]
    #: Secrets in clear, at least those that the steps ask for.
    secrets: Mapping[str, str]
    sandbox: Sandbox
    write: Write
    jobs: int
    #: Most output of one attempt, in bytes.
    limit: int = 4 << 30
    canceled: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self._instance = f"exec-{token_hex(6)}"
        self._results = {one.name: self._result(one, "skipped", one.skip, cause="when") for one in self.left_out}
        self._started: set[str] = set()
        self._ended: queue.SimpleQueue[StepResult] = queue.SimpleQueue()

    @property
    def left_out(self) -> list[Planned]:
        """Steps that the file's own conditions leave out."""
        return [one for one in self.planned if one.skip]

    def run(self) -> Result:
        """Run to the end. A KeyboardInterrupt stops the containers, removes them, and goes on to the caller."""
        with ThreadPoolExecutor(self.jobs) as pool:
            try:
                state = self._run(pool)
            except BaseException:
                self.canceled.set()
                raise
        return Result(state, tuple(self._results[one.name] for one in self.planned))

    def _run(self, pool: ThreadPoolExecutor) -> str:
        by_name = {one.name: (number, one) for number, one in enumerate(self.planned, 1)}
        while True:
            decision = decide(self._views())
            for name, reason in decision.skip:
                self._results[name] = self._result(by_name[name][1], "skipped", reason)
            for name in decision.start:
                self._started.add(name)
                pool.submit(self._step, *by_name[name])
            if decision.run is not None:
                return decision.run
            ended = self._ended.get()
            self._results[ended.name] = ended

    def _views(self) -> list[StepView]:
        return [StepView(BUILD, "passed", queued=True), *map(self._view, self.planned)]

    def _view(self, one: Planned) -> StepView:
        begun = one.name in self._started
        result = self._results.get(one.name) or StepResult(one.name, "running" if begun else "waiting")
        status = one.spec.when.status or PASSED
        return StepView(one.name, result.state, one.needs, one.spec.allow_failure, begun, status, result.cause)

    def _result(self, one: Planned, state: str, reason: str = "", cause: str | None = None) -> StepResult:
        return StepResult(one.name, state, reason, cause, allow_failure=one.spec.allow_failure)

    def _step(self, number: int, one: Planned) -> None:
        """In a thread: whatever happens, there is a result."""
        began, attempts = monotonic(), 0
        outcome = Outcome("canceled", "interrupted")
        try:
            while not self.canceled.is_set():
                attempts += 1
                ended = self._attempt(number, one, attempts)
                outcome = ended or Outcome("canceled", "interrupted")
                if outcome.state != "failed" or attempts > one.spec.retries:
                    break
                self.write(one.name, f"{outcome.reason}; tried again\n".encode())
        except ServiceError as error:
            outcome = Outcome("errored", str(error))
        except BaseException as error:
            outcome = Outcome("errored", repr(error))
            raise
        finally:
            result = self._result(one, outcome.state, outcome.reason, outcome.cause)
            key = stage_key(one.spec, self.services.get(one.name, NONE))
            image = self.images[one.name]
            self._ended.put(replace(result, seconds=monotonic() - began, attempts=attempts, key=key, image=image))

    def _attempt(self, number: int, one: Planned, attempt: int) -> Outcome | None:
        # Rows that are in no database: the container is made by the same code as a server's.
        step = Step(
            id=number,
            name=one.name,
            attempt=attempt,
            image=self.images[one.name],
            services=dict(self.services.get(one.name, NONE)),
        )
        hidden = {name: self.secrets[name] for name in one.spec.secrets}
        container = stages.container_spec(
            self._instance, Project(slug=PROJECT), Run(number=0), step, one.spec, hidden=hidden
        )
        printed = Printed(lambda data: self.write(one.name, data), hidden.values())
        try:
            ended = stages.execute(
                self.sandbox, container, one.spec, printed, canceled=self.canceled.is_set, limit=self.limit
            )
        finally:
            printed.close()
            self.sandbox.remove(container.name)
        return ended.outcome
