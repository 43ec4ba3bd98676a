"""A run without a server: the same decisions, the same containers, states in memory instead of a database."""

from __future__ import annotations

import queue
import secrets
import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from time import monotonic

from cd.errors import ServiceError
from cd.pipeline.decide import StepView, decide
from cd.pipeline.definition import Pipeline, StageSpec
from cd.pipeline.records import Project, Run, Step
from cd.pipeline.stages import Outcome, container_spec, judge
from cd.sandbox.base import Sandbox

#: Name that takes the place of a project's.
PROJECT = "exec"

#: Gets the name of a step, and what it says.
Write = Callable[[str, bytes], None]


@dataclass(frozen=True)
class StepResult:
    """How one stage came out. `seconds` of all its attempts."""

    name: str
    state: str
    reason: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class Result:
    """How the run came out: passed, failed, errored or canceled."""

    state: str
    stages: tuple[StepResult, ...]


def chosen(pipeline: Pipeline, names: Iterable[str]) -> Mapping[str, StageSpec]:
    """The named stages with all that they need, in the order of the file; every stage when none is named."""
    wanted, left = set[str](), list(names)
    if not left:
        return pipeline.stages
    while left:
        name = left.pop()
        if name not in wanted:
            wanted.add(name)
            left.extend(pipeline.stages[name].needs)
    return {name: spec for name, spec in pipeline.stages.items() if name in wanted}


@dataclass
class LocalRun:
    """Runs stages, each in a container of its image, as many as `jobs` at a time."""

    stages: Mapping[str, StageSpec]
    #: Image id for each stage.
    images: Mapping[str, str]
    sandbox: Sandbox
    write: Write
    jobs: int
    canceled: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self._instance = f"exec-{secrets.token_hex(6)}"
        self._results: dict[str, StepResult] = {}
        self._started: set[str] = set()
        self._ended: queue.SimpleQueue[StepResult] = queue.SimpleQueue()

    def run(self) -> Result:
        """Run to the end. A KeyboardInterrupt stops the containers, removes them, and goes on to the caller."""
        with ThreadPoolExecutor(self.jobs) as pool:
            try:
                state = self._run(pool)
            except BaseException:
                self.canceled.set()
                raise
        ordered = tuple(self._results[name] for name in self.stages)
        return Result(state, ordered)

    def _run(self, pool: ThreadPoolExecutor) -> str:
        while True:
            decision = decide(self._views())
            for name, reason in decision.skip:
                self._results[name] = StepResult(name, "skipped", reason)
            for name in decision.start:
                self._started.add(name)
                pool.submit(self._stage, name, self.stages[name])
            if decision.run is not None:
                return decision.run
            ended = self._ended.get()
            self._results[ended.name] = ended

    def _views(self) -> list[StepView]:
        build = StepView("build", "passed", queued=True)
        return [build, *(self._view(name, spec) for name, spec in self.stages.items())]

    def _view(self, name: str, spec: StageSpec) -> StepView:
        begun = "running" if name in self._started else "waiting"
        state = self._results[name].state if name in self._results else begun
        return StepView(name, state, ("build", *spec.needs), spec.allow_failure, name in self._started)

    def _stage(self, name: str, spec: StageSpec) -> None:
        """In a thread: whatever happens, there is a result."""
        began = monotonic()
        try:
            outcome = self._attempts(name, spec)
        except ServiceError as error:
            outcome = Outcome("errored", str(error))
        except BaseException as error:
            self._ended.put(StepResult(name, "errored", repr(error), monotonic() - began))
            raise
        self._ended.put(StepResult(name, outcome.state, outcome.reason, monotonic() - began))

    def _attempts(self, name: str, spec: StageSpec) -> Outcome:
        for attempt in range(1, spec.retries + 2):
            if self.canceled.is_set():
                break
            outcome = self._attempt(name, spec, attempt)
            if outcome is None:
                break
            if outcome.state != "failed" or attempt > spec.retries:
                return outcome
            self.write(name, f"{outcome.reason}; tried again\n".encode())
        return Outcome("canceled", "interrupted")

    def _attempt(self, name: str, spec: StageSpec, attempt: int) -> Outcome | None:
        # Rows that are in no database: the container is made by the same code as a server's.
        position = list(self.stages).index(name) + 1
        step = Step(id=position, name=name, attempt=attempt, image=self.images[name])
        container = container_spec(self._instance, Project(slug=PROJECT), Run(number=0), step, spec)
        try:
            self.sandbox.start(container)
            result = self.sandbox.follow(
                container.name,
                skip=0,
                write=lambda data: self.write(name, data),
                timeout=spec.limits.timeout,
                canceled=self.canceled.is_set,
            )
        finally:
            self.sandbox.remove(container.name)
        return judge(result, spec)
