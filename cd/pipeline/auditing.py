"""The shadow audit: a reused stage is run again, out of everybody's way, to see whether its verdict stands."""

from __future__ import annotations

from dataclasses import dataclass, replace

import structlog
from sqlalchemy import select

from cd.errors import UserError
from cd.pipeline import attempts, stages, verdicts
from cd.pipeline.records import Run, Step, Verdict
from cd.pipeline.stages import Attempt, Outcome, StageRunner
from cd.sandbox.base import ContainerSpec, Sandbox, StageResult
from cd.store import events
from cd.store.database import Database
from cd.store.records import Task
from cd.store.tasks import Claim

log = structlog.get_logger()

KIND = "audit"


@dataclass(frozen=True)
class Auditor:
    """Executes audits, as `stages` executes stages. An audit's log is the attempt after its step's last one."""

    stages: StageRunner

    def execute(self, claim: Claim) -> None:
        """The "audit" task. Raises ServiceError for the engine's faults, which say nothing of the verdict."""
        attempt = self._begin(claim)
        if attempt is None:
            return
        sandbox, limit = self.stages.sandbox, self.stages.keeping.output
        hidden = tuple(attempt.container.secrets.values())
        with self.stages.logs.writer(attempt.step_id, attempt.number, claim.fence, hidden) as writer:
            ended = stages.execute(
                sandbox, attempt.container, attempt.spec, writer, canceled=lambda: False, limit=limit
            )
        if ended.outcome is not None and ended.result is not None:
            self._end(attempt, ended.outcome, ended.result)
        sandbox.remove(attempt.container.name)

    def _begin(self, claim: Claim) -> Attempt | None:
        """None when there is nothing to compare any more: the verdict, a secret or the sandbox changed meanwhile."""
        with self.stages.database.read() as session:
            step = session.get_one(Step, claim.subject)
            verdict = session.get(Verdict, step.verdict_id) if step.verdict_id is not None else None
            number = step.attempt + 1
            if (
                step.state != "reused"
                or verdict is None
                or verdict.revoked_at is not None
                or verdicts.keys(session, step.project_id, [step])[step.id] != step.key
                or attempts.known(session, step.id, number)
            ):
                return None
            try:
                attempt = self.stages.attempt(session, session.get_one(Run, step.run_id), step, number)
            except UserError:
                return None
        return replace(attempt, container=_apart(attempt.container))

    def _end(self, attempt: Attempt, outcome: Outcome, result: StageResult) -> None:
        with self.stages.database.write() as session:
            step = session.get_one(Step, attempt.step_id)
            run = session.get_one(Run, step.run_id)
            attempts.record(
                session, run, step, outcome.state, result, shadow=True, number=attempt.number, cause=outcome.cause
            )
            if outcome.state == "failed" and step.verdict_id is not None:
                verdicts.revoke(session, step.verdict_id)
                log.warning("audit.false_hit", run=run.number, stage=step.name, reason=outcome.reason)
            events.append(session, f"audit.{outcome.state}", project_id=run.project_id, run_id=run.id, subject=step.id)


def _apart(container: ContainerSpec) -> ContainerSpec:
    """A stage's container under a name and a kind of its own: the round of cleaning knows it by its task."""
    labels = {**container.labels, "towpath.kind": KIND}
    return replace(container, name=f"{container.name}-audit", labels=labels, keep_files=False)


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
