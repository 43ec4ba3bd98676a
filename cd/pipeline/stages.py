"""One stage: a command in a fresh container of the run's image, followed to its end by whoever holds the claim."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta

import structlog
from sqlalchemy import select
from sqlalchemy.orm import Session

from cd.errors import ServiceError, TooLarge, UserError
from cd.pipeline import attempts, runs, secrets, verdicts
from cd.pipeline.collecting import Collected, Collector
from cd.pipeline.definition import Limits as LimitsSpec
from cd.pipeline.definition import StageSpec
from cd.pipeline.logs import LogStore
from cd.pipeline.projects import Vault
from cd.pipeline.records import Project, Run, Snapshot, Step
from cd.pipeline.states import STEP
from cd.sandbox.base import ContainerSpec, Found, Kept, Limits, NotReady, Sandbox, Service, Sink, StageResult
from cd.store.base import insert_new, now
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
class Keeping:
    """How much of what stages leave is kept: bytes of output, bytes and hours of the files of failed ones."""

    output: int = 4 << 30
    files: int = 512 << 20
    hours: float = 24


@dataclass(frozen=True)
class Attempt:
    """One attempt at a stage, as it was when it began."""

    step_id: int
    number: int
    fence: int
    container: ContainerSpec
    spec: StageSpec
    #: Whether its files are kept when it fails.
    keep_failed: bool = False


@dataclass(frozen=True)
class Ended:
    """What an attempt came to; `result` is None when its command was never begun."""

    outcome: Outcome | None
    result: StageResult | None = None
    collected: Collected = field(default_factory=Collected)
    kept: Kept | None = None


@dataclass(frozen=True)
class StageRunner:
    """Executes stages. `instance` tells the containers of this installation from those of another one."""

    database: Database
    sandbox: Sandbox
    logs: LogStore
    vault: Vault
    collector: Collector
    ended: runs.Ended
    instance: str
    keeping: Keeping = Keeping()

    def execute(self, claim: Claim) -> None:
        """The "stage" task. Raises ServiceError, with the step left running, for the engine's faults."""
        while (attempt := self._begin(claim)) is not None:
            again = self._end(claim, attempt, self.run(attempt, lambda: self._canceled(attempt.step_id)))
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
            try:
                return self.attempt(session, run, step)
            except UserError as error:
                runs.end_step(session, step, "failed", self.ended, reason=str(error))
                return None

    def attempt(self, session: Session, run: Run, step: Step, number: int | None = None) -> Attempt:
        """What is to be executed for a step; `number` is another one than the step's own. Raises UserError."""
        spec = StageSpec.model_validate(step.spec)
        project = session.get_one(Project, run.project_id)
        if spec.secrets and not run.trusted:
            raise UserError("code from outside gets no secrets", remedy="let the stage need none")
        hidden = secrets.values(session, self.vault, project.id, spec.secrets)
        container = container_spec(self.instance, project, run, step, spec, hidden=hidden, number=number)
        keep_failed = project.keep_failed and number is None
        container = replace(container, keep_files=keep_failed or Collector.wants(spec))
        return Attempt(step.id, number or step.attempt, step.fence, container, spec, keep_failed)

    def run(self, attempt: Attempt, canceled: Callable[[], bool]) -> Ended:
        """Execute an attempt, or follow what a lost worker began of it, and collect what it left."""
        hidden = tuple(attempt.container.secrets.values())
        with self.logs.writer(attempt.step_id, attempt.number, attempt.fence, hidden) as writer:
            ended = execute(
                self.sandbox,
                attempt.container,
                attempt.spec,
                writer,
                canceled=canceled,
                limit=self.keeping.output,
            )
        if ended.outcome is None or ended.result is None:
            return ended
        collected = self.collector.collect(
            attempt.container.name,
            attempt.spec,
            step_id=attempt.step_id,
            attempt=attempt.number,
            fence=attempt.fence,
            secrets=hidden,
        )
        outcome = ended.outcome
        if outcome.state == "passed" and collected.lost:
            outcome = Outcome("failed", collected.lost, "artifacts")
        kept = self._keep(attempt) if outcome.state == "failed" and attempt.keep_failed else None
        return Ended(outcome, ended.result, collected, kept)

    def _keep(self, attempt: Attempt) -> Kept | None:
        tag = f"towpath/kept:{self.instance}-step{attempt.step_id}-{attempt.number}"
        try:
            return self.sandbox.snapshot(attempt.container.name, tag, self.keeping.files)
        except (TooLarge, ServiceError) as error:
            log.warning("stage.not_kept", step=attempt.step_id, reason=str(error))
            return None

    def _canceled(self, step_id: int) -> bool:
        with self.database.read() as session:
            return session.scalar(select(Step.state).where(Step.id == step_id)) in STEP.terminal

    def _end(self, claim: Claim, attempt: Attempt, ended: Ended) -> bool:
        """Write what it came to; True when the stage is to be tried once more."""
        outcome = ended.outcome
        if outcome is None:
            return False
        with self.database.write() as session:
            run = runs.lock(session, session.get_one(Step, attempt.step_id).run_id)
            step = session.get_one(Step, attempt.step_id, populate_existing=True)
            if step.state in STEP.terminal:
                return False
            self.store(session, run, step, attempt.number, ended)
            # Attempts that the engine spoiled are counted by the task, the others are the stage's own.
            if outcome.state == "failed" and step.attempt - claim.attempts <= attempt.spec.retries:
                runs.try_again(session, step, f"{outcome.reason}; tried again")
                return True
            if outcome.state == "passed":
                verdicts.keep(session, run, step)
            runs.end_step(
                session,
                step,
                outcome.state,
                self.ended,
                reason="; ".join(filter(None, [outcome.reason, *ended.collected.said(outcome.cause)])),
                cause=outcome.cause,
                exit_code=ended.result.exit_code if ended.result is not None else None,
            )
        return False

    def store(self, session: Session, run: Run, step: Step, number: int, ended: Ended, *, shadow: bool = False) -> None:
        """Write what an attempt leaves besides its step's state."""
        if ended.outcome is None:
            return
        ended.collected.store(session, step, number)
        attempts.record(
            session,
            run,
            step,
            ended.outcome.state,
            ended.result,
            report=ended.collected.report,
            shadow=shadow,
            number=number,
            cause=ended.outcome.cause,
        )
        if ended.kept is not None:
            session.execute(
                insert_new(session.get_bind().dialect.name, Snapshot).values(
                    project_id=run.project_id,
                    run_id=run.id,
                    step_id=step.id,
                    attempt=number,
                    image=ended.kept.image,
                    size=ended.kept.size,
                    created_at=now(),
                    expires_at=now() + timedelta(hours=self.keeping.hours),
                )
            )


def execute(
    sandbox: Sandbox,
    container: ContainerSpec,
    spec: StageSpec,
    into: Sink,
    *,
    canceled: Callable[[], bool],
    limit: int,
) -> Ended:
    """Start a container, or adopt it, and follow it to its end; nothing is collected yet. Raises ServiceError."""
    try:
        sandbox.start(container, canceled)
    except NotReady as error:
        if into.position == 0:
            head = f"--- service {error.service} {error.reason}; the end of what it wrote: ---\n"
            into.write(head.encode() + error.output)
        return Ended(Outcome("failed", str(error), "service"))
    result = sandbox.follow(container.name, into=into, timeout=spec.limits.timeout, canceled=canceled, limit=limit)
    return Ended(judge(result, spec, limit), result)


def judge(result: StageResult, spec: StageSpec, limit: int = 0) -> Outcome | None:
    """What a container's end means; None when it was stopped because the step has ended already.

    `limit` is the output that it was allowed, in bytes.
    """
    if result.canceled:
        return None
    dead = "; ".join(f"service {name} ended before it: {how}" for name, how in result.services.items())
    if result.flooded:
        return Outcome("failed", f"wrote more than {limit >> 20:,} MiB of output", "output")
    if result.timed_out:
        reason = f"timed out after {format_seconds(spec.limits.timeout)}"
        return Outcome("failed", "; ".join(filter(None, [dead, reason])), "timeout")
    if result.exit_code == 0:
        return Outcome("passed", dead)
    if result.oom:
        return Outcome("failed", f"out of memory: used more than {spec.limits.memory >> 20} MiB", "out_of_memory")
    reason = result.error or f"exit code {result.exit_code}"
    return Outcome("failed", f"{dead}; {reason}" if dead else reason, "service" if dead else None)


def container_spec(
    instance: str,
    project: Project,
    run: Run,
    step: Step,
    spec: StageSpec,
    *,
    hidden: Mapping[str, str] | None = None,
    number: int | None = None,
) -> ContainerSpec:
    """The container of this attempt: its name makes starting it twice impossible, its labels make it found.

    `hidden` are its secrets; `number` is another attempt than the step's present one.
    """
    attempt = number or step.attempt
    return ContainerSpec(
        name=f"towpath-{instance}-step{step.id}-{attempt}",
        image=step.image or "",
        argv=spec.argv,
        env={**STANDARD_ENV, **spec.env},
        limits=_limits(spec.limits),
        labels={
            "towpath.instance": instance,
            "towpath.kind": "stage",
            "towpath.project": project.slug,
            "towpath.run": str(run.number),
            "towpath.stage": step.name,
            "towpath.step": str(step.id),
            "towpath.attempt": str(attempt),
        },
        secrets=dict(hidden or {}),
        network=spec.network or ("services" if spec.services else "none"),
        services=tuple(
            Service(name, step.services.get(name, one.image), _limits(spec.limits), dict(one.env), one.ready)
            for name, one in spec.services.items()
        ),
    )


def _limits(limits: LimitsSpec) -> Limits:
    return Limits(limits.memory, limits.cpus, limits.pids, limits.disk, limits.timeout)


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
