"""The shadow audit: a reused stage is run again, out of everybody's way, to see whether its verdict stands."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Protocol

import structlog
from sqlalchemy import select
from sqlalchemy.orm import Session

from cd.errors import UserError
from cd.pipeline import attempts, stages, verdicts
from cd.pipeline.definition import StageSpec
from cd.pipeline.records import Attempt, Project, Run, Step, Verdict
from cd.sandbox.base import ContainerSpec, NotReady, Sandbox, Sink, StageResult
from cd.store import events
from cd.store.database import Database
from cd.store.records import Task
from cd.store.tasks import Claim

log = structlog.get_logger()

KIND = "audit"


class Logs(Protocol):
    """What this module needs of `cd.pipeline.logs.LogStore`."""

    def writer(
        self, step_id: int, attempt: int, fence: int, secrets: Sequence[str] = ()
    ) -> AbstractContextManager[Sink]:
        """Where the output of one attempt goes."""


@dataclass(frozen=True)
class Audit:
    """One audit, as it was when it began. Its log is the attempt after the step's last one."""

    step_id: int
    number: int
    verdict_id: int
    container: ContainerSpec
    spec: StageSpec


@dataclass(frozen=True)
class Auditor:
    """Executes audits. `secrets` gives the values of a project's secrets by name; `limit` is in bytes of output."""

    database: Database
    sandbox: Sandbox
    logs: Logs
    instance: str
    limit: int
    secrets: Callable[[Session, int, Sequence[str]], Mapping[str, str]]

    def execute(self, claim: Claim) -> None:
        """The "audit" task. Raises ServiceError for the engine's faults, which say nothing of the verdict."""
        audit = self._begin(claim)
        if audit is None:
            return
        try:
            result = self._run(claim, audit)
        except NotReady as error:
            log.info("audit.no_service", step=audit.step_id, reason=str(error))
        else:
            self._end(audit, result)
        self.sandbox.remove(audit.container.name)

    def _begin(self, claim: Claim) -> Audit | None:
        """None when there is nothing to compare any more: the verdict, a secret or the sandbox changed meanwhile."""
        with self.database.read() as session:
            step = session.get_one(Step, claim.subject)
            verdict = session.get(Verdict, step.verdict_id) if step.verdict_id is not None else None
            if step.state != "reused" or verdict is None or verdict.revoked_at is not None:
                return None
            number = step.attempt + 1
            if session.scalar(select(Attempt.id).where(Attempt.step_id == step.id, Attempt.number == number)):
                return None
            if verdicts.keys(session, step.project_id, [step])[step.id] != step.key:
                return None
            run, project = session.get_one(Run, step.run_id), session.get_one(Project, step.project_id)
            spec = StageSpec.model_validate(step.spec)
            try:
                secrets = self.secrets(session, project.id, spec.secrets) if spec.secrets else {}
            except UserError:
                return None
            container = stages.container_spec(self.instance, project, run, step, spec)
        return Audit(step.id, number, verdict.id, _apart(container, number, secrets), spec)

    def _run(self, claim: Claim, audit: Audit) -> StageResult:
        self.sandbox.start(audit.container)
        secrets = tuple(audit.container.secrets.values())
        with self.logs.writer(audit.step_id, audit.number, claim.fence, secrets) as writer:
            return self.sandbox.follow(
                audit.container.name,
                into=writer,
                timeout=audit.spec.limits.timeout,
                canceled=lambda: False,
                limit=self.limit,
            )

    def _end(self, audit: Audit, result: StageResult) -> None:
        outcome = stages.judge(result, audit.spec)
        if outcome is None:
            return
        with self.database.write() as session:
            step = session.get_one(Step, audit.step_id)
            run = session.get_one(Run, step.run_id)
            attempts.record(
                session, run, step, outcome.state, result, shadow=True, number=audit.number, cause=outcome.cause
            )
            if outcome.state == "failed":
                verdicts.revoke(session, audit.verdict_id)
                log.warning("audit.false_hit", run=run.number, stage=step.name, reason=outcome.reason)
            events.append(session, f"audit.{outcome.state}", project_id=run.project_id, run_id=run.id, subject=step.id)


def _apart(container: ContainerSpec, number: int, secrets: Mapping[str, str]) -> ContainerSpec:
    """The stage's container under a name and a kind of its own: the round of cleaning knows it by its task."""
    labels = {**container.labels, "towpath.kind": KIND, "towpath.attempt": str(number)}
    return replace(
        container,
        name=f"{container.name}-audit{number}",
        labels=labels,
        secrets={**container.secrets, **secrets},
        keep_files=False,
    )


def clean(database: Database, sandbox: Sandbox, instance: str) -> int:
    """Remove containers of audits that no open task is about. How many."""
    found = sandbox.find({"towpath.instance": instance, "towpath.kind": KIND})
    if not found:
        return 0
    with database.read() as session:
        opened = set(
            session.scalars(select(Task.subject).where(Task.kind == KIND, Task.state.in_(("ready", "claimed"))))
        )
    names = [one.name for one in found if int(one.labels["towpath.step"]) not in opened]
    for name in names:
        sandbox.remove(name)
    return len(names)
