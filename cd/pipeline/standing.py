"""Which stages of a run need not run: their verdict stands, or the run that this one tries again had them right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from cd.pipeline import verdicts
from cd.pipeline.records import Run, Step, Verdict
from cd.pipeline.states import GOOD


@dataclass(frozen=True)
class Standing:
    """What a stage stands on, and why, for people. Without `verdict_id`: the run that is tried again."""

    step_id: int
    key: str
    verdict_id: int | None
    reason: str


def look_up(session: Session, run: Run, ids: Sequence[int]) -> dict[int, Standing]:
    """For those of these steps that need not run, what they stand on; by step id."""
    if not ids or run.fresh or not (run.trusted or run.retry_of):
        return {}
    steps = session.scalars(select(Step).where(Step.id.in_(ids))).all()
    found = verdicts.find_many(session, run, steps)
    earned = {verdict.run_id for verdict in found.values()}
    rows = session.execute(select(Run.id, Run.number).where(Run.id.in_(earned))).all() if earned else []
    numbers = {row.id: row.number for row in rows}
    standing = {
        key: Standing(key, verdict.key, verdict.id, f"passed for this image in run #{numbers[verdict.run_id]}")
        for key, verdict in found.items()
    }
    return {**_kept(session, run, [step for step in steps if step.id not in standing]), **standing}


def _kept(session: Session, run: Run, steps: Sequence[Step]) -> dict[int, Standing]:
    """What passed in the run that did not, and that this one tries again; also what is never reused otherwise."""
    before = session.get(Run, run.retry_of) if run.retry_of is not None and steps else None
    if before is None or before.state == "passed":
        return {}
    names = [step.name for step in steps]
    rows = session.execute(
        select(Step.name, Step.image, Step.key).where(
            Step.run_id == before.id, Step.kind == "stage", Step.state.in_(GOOD), Step.name.in_(names)
        )
    )
    passed = {name: (image, key) for name, image, key in rows}
    candidates = [step for step in steps if step.name in passed and step.image is not None]
    keys = verdicts.keys(session, run.project_id, candidates) if candidates else {}
    same = [step for step in candidates if passed[step.name] == (step.image, keys[step.id])]
    gone = _revoked(session, run.project_id, [keys[step.id] for step in same])
    reason = f"passed in run #{before.number}, which this one tries again"
    return {
        step.id: Standing(step.id, keys[step.id], None, reason)
        for step in same
        if (step.image, keys[step.id]) not in gone
    }


def _revoked(session: Session, project_id: int, keys: Sequence[str]) -> set[tuple[str, str]]:
    if not keys:
        return set()
    rows = session.execute(
        select(Verdict.image, Verdict.key).where(
            Verdict.project_id == project_id, Verdict.key.in_(keys), Verdict.revoked_at.is_not(None)
        )
    )
    return set(rows)
