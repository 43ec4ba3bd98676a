"""One stage: a command in a fresh container of the run's image, followed to its end by whoever holds the claim."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import structlog
from sqlalchemy import select
from sqlalchemy.orm import Session

from cd.errors import ServiceError
from cd.pipeline import runs, verdicts
from cd.pipeline.definition import StageSpec
from cd.pipeline.logs import LogStore
from cd.pipeline.records import Project, Run, Step
from cd.pipeline.states import STEP
from cd.sandbox.base import ContainerSpec, Found, Limits, Sandbox, StageResult
from cd.store.database import Database
from cd.store.tasks import Claim
from cd.units import format_seconds

log = structlog.get_logger()

#: Set in every stage, whatever the commit: a verdict must not depend on which run earned it.
STANDARD_ENV = {"CI": "true", "TOWPATH": "true"}


@dataclass(frozen=True)
class Outcome:
    """What a container's end means for its step."""

    state: str
    reason: str = ""
    cause: str | None = None


@dataclass(frozen=True)
class Attempt:
    """One attempt at a stage, as it was when it began."""

    step_id: int
    number: int
    fence: int
    container: ContainerSpec
    spec: StageSpec


@dataclass(frozen=True)
class StageRunner:
    """Executes stages. `instance` tells the containers of this installation from those of another one."""

    database: Database
    sandbox: Sandbox
    logs: LogStore
    ended: runs.Ended
    instance: str

    def execute(self, claim: Claim) -> None:
        """The "stage" task. Raises ServiceError, with the step left running, for the engine's faults."""
        while (attempt := self._begin(claim)) is not None:
            result = self._run(attempt)
            again = self._end(claim, attempt, result)
            self.sandbox.remove(attempt.container.name)
            if not again:
                return

    def _begin(self, claim: Claim) -> Attempt | None:
        with self.database.write() as session:
            started = runs.start_step(session, claim.subject, claim.fence)
            if started is None:
                return None
            run, step = started
            if step.image is None:
                raise ServiceError(f"stage {step.name} has no image", retryable=False)
            spec = StageSpec.model_validate(step.spec)
            project = session.get_one(Project, run.project_id)
            container = container_spec(self.instance, project, run, step, spec)
            return Attempt(step.id, step.attempt, step.fence, container, spec)

    def _run(self, attempt: Attempt) -> StageResult:
        self.sandbox.start(attempt.container)
        with self.logs.writer(attempt.step_id, attempt.number, attempt.fence) as writer:
            return self.sandbox.follow(
                attempt.container.name,
                skip=writer.position,
                write=writer.write,
                timeout=attempt.spec.limits.timeout,
                canceled=lambda: self._canceled(attempt.step_id),
            )

    def _canceled(self, step_id: int) -> bool:
        with self.database.read() as session:
            return session.scalar(select(Step.state).where(Step.id == step_id)) in STEP.terminal

    def _end(self, claim: Claim, attempt: Attempt, result: StageResult) -> bool:
        """Write what it came to; True when the stage is to be tried once more."""
        outcome = judge(result, attempt.spec)
        if outcome is None:
            return False
        with self.database.write() as session:
            run = runs.lock(session, session.get_one(Step, attempt.step_id).run_id)
            step = session.get_one(Step, attempt.step_id, populate_existing=True)
            if step.state in STEP.terminal:
                return False
            # Attempts that the engine spoiled are counted by the task, the others are the stage's own.
            if outcome.state == "failed" and step.attempt - claim.attempts <= attempt.spec.retries:
                runs.try_again(session, step, f"{outcome.reason}; tried again")
                return True
            if outcome.state == "passed":
                verdicts.keep(session, run, step, verdicts.stage_key(attempt.spec))
            runs.end_step(
                session,
                step,
                outcome.state,
                self.ended,
                reason=outcome.reason,
                cause=outcome.cause,
                exit_code=result.exit_code,
            )
        return False


def judge(result: StageResult, spec: StageSpec) -> Outcome | None:
    """What a container's end means; None when it was stopped because the step has ended already."""
    if result.canceled:
        return None
    if result.timed_out:
        return Outcome("failed", f"timed out after {format_seconds(spec.limits.timeout)}", "timeout")
    if result.exit_code == 0:
        return Outcome("passed")
    if result.oom:
        return Outcome("failed", f"out of memory: used more than {spec.limits.memory >> 20} MiB", "out_of_memory")
    if result.error:
        return Outcome("failed", result.error)
    return Outcome("failed", f"exit code {result.exit_code}")


def container_spec(instance: str, project: Project, run: Run, step: Step, spec: StageSpec) -> ContainerSpec:
    """The container of this attempt: its name makes starting it twice impossible, its labels make it found."""
    limits = spec.limits
    return ContainerSpec(
        name=f"towpath-{instance}-step{step.id}-{step.attempt}",
        image=step.image or "",
        argv=spec.argv,
        env={**STANDARD_ENV, **spec.env},
        limits=Limits(limits.memory, limits.cpus, limits.pids, limits.disk, limits.timeout),
        labels={
            "towpath.instance": instance,
            "towpath.kind": "stage",
            "towpath.project": project.slug,
            "towpath.run": str(run.number),
            "towpath.stage": step.name,
            "towpath.step": str(step.id),
            "towpath.attempt": str(step.attempt),
        },
    )


def clean(database: Database, sandbox: Sandbox, instance: str) -> int:
    """Remove containers whose attempt has ended: a worker died between the end and the removal. How many."""
    found = sandbox.find({"towpath.instance": instance, "towpath.kind": "stage"})
    if not found:
        return 0
    with database.read() as session:
        names = leftovers(session, found)
    for name in names:
        sandbox.remove(name)
    return len(names)


def leftovers(session: Session, found: Sequence[Found]) -> list[str]:
    """Names of the containers that nobody follows any more."""
    ids = [int(one.labels["towpath.step"]) for one in found]
    steps = {step.id: step for step in session.scalars(select(Step).where(Step.id.in_(ids)))}
    names = []
    for one in found:
        step = steps.get(int(one.labels["towpath.step"]))
        if step is None or step.state in STEP.terminal or step.attempt > int(one.labels["towpath.attempt"]):
            names.append(one.name)
    return names
