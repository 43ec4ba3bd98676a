"""What reuse spares a project, and how often it was wrong: some stages that stood on a verdict are run again."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from cd.pipeline.advance import Ended
from cd.pipeline.records import Attempt, Run, Step, Verdict
from cd.store import tasks

#: Written as the index has it, or the index would not be used.
SHADOW = text("attempt.shadow")


@dataclass(frozen=True)
class FalseHit:
    """A reused stage that failed when it was run again with the same image and key."""

    stage: str
    run_number: int
    image: str
    key: str
    at: datetime


@dataclass(frozen=True)
class Reuse:
    """Counts of one project. `saved` in seconds of stages that did not run."""

    reused: int
    saved: float
    audited: int
    false_hits: int
    #: The newest ones.
    newest: tuple[FalseHit, ...] = ()


@dataclass(frozen=True)
class Sampled:
    """What a run's end calls for, besides `ended`: a shadow audit of one in `one_in` of its reused stages; 0: of none.

    At the end of a run, so that the audit is not in the way of the run itself.
    """

    ended: Ended
    one_in: int

    def __call__(self, session: Session, run: Run) -> None:
        self.ended(session, run)
        if not self.one_in or not run.trusted or run.state not in ("passed", "failed"):
            return
        reused = session.scalars(
            select(Step.id)
            .join(Verdict, Verdict.id == Step.verdict_id)
            .where(Step.run_id == run.id, Step.kind == "stage", Step.state == "reused", Verdict.revoked_at.is_(None))
            .order_by(Step.position)
        )
        for step_id in reused.all():
            if secrets.randbelow(self.one_in) == 0:
                tasks.add(session, "audit", step_id)


def counts(session: Session, project_id: int, newest: int = 10) -> Reuse:
    """The counts of a project, and its newest false hits."""
    reused, saved = session.execute(
        select(func.count(), func.coalesce(func.sum(Verdict.seconds), 0.0))
        .select_from(Step)
        .outerjoin(Verdict, Verdict.id == Step.verdict_id)
        .where(Step.project_id == project_id, Step.kind == "stage", Step.state == "reused")
    ).one()
    audited = audits(session, project_id)
    rows = session.execute(
        select(Attempt.name, Run.number, Attempt.image, Attempt.key, Attempt.created_at)
        .join(Run, Run.id == Attempt.run_id)
        .where(SHADOW, Attempt.project_id == project_id, Attempt.state == "failed")
        .order_by(Attempt.id.desc())
        .limit(newest)
    )
    return Reuse(
        reused, float(saved), sum(audited.values()), audited.get("failed", 0), tuple(FalseHit(*row) for row in rows)
    )


def audits(session: Session, project_id: int | None = None) -> dict[str, int]:
    """How shadow audits came out, of a project or of all: state and number."""
    query = select(Attempt.state, func.count().label("number")).where(SHADOW).group_by(Attempt.state)
    rows = session.execute(query if project_id is None else query.where(Attempt.project_id == project_id))
    return {row.state: row.number for row in rows}
