"""Runs that are ended from outside their graph: canceled by a person, or superseded by a newer push."""

from __future__ import annotations

from typing import Any

from sqlalchemy import bindparam, select, text
from sqlalchemy.orm import Session

from cd.pipeline.records import Run, Step
from cd.pipeline.states import RUN, STEP
from cd.store import tasks
from cd.store.base import now
from cd.store.states import move_many

#: A newer one of these takes the place of older ones of the same ref.
SUPERSEDES = frozenset({"push", "pull_request"})
#: Project.supersede, and the states in which a run then gives way.
GIVE_WAY = {"never": frozenset[str](), "waiting": frozenset({"queued"}), "running": frozenset({"queued", "running"})}

# Made once and run without the ORM: they stand in the way of every push.
_OLDER = select(Run.id, Run.state).where(
    Run.project_id == bindparam("project"),
    Run.ref == bindparam("of_ref"),
    # Written as the index has it, or the index would not be used.
    text("run.state IN ('queued', 'running')"),
    Run.event == bindparam("of_event"),
    Run.trusted == bindparam("of_trusted"),
    # What a person asked for is not taken away by a push.
    Run.retry_of.is_(None),
)
#: Whether there is any such; asked by the statement that gives the new run its number, since mostly there is none.
ANY_OLDER = _OLDER.exists()
_OPEN = select(Step.id, Step.kind, Step.state).where(
    Step.run_id == bindparam("of_run"), Step.state.in_([state for state in STEP.transitions if STEP.transitions[state]])
)


def older(project_id: int, values: dict[str, Any]) -> dict[str, Any]:
    """The parameters of ANY_OLDER for a new run with these columns."""
    return {
        "project": project_id,
        "of_ref": values["ref"],
        "of_event": values["event"],
        "of_trusted": values.get("trusted", True),
    }


def supersede(session: Session, project_id: int, number: int, mode: str, values: dict[str, Any]) -> None:
    """End the older runs of the same ref that the new run of that number makes needless, by the project's `mode`.

    `values` are the new run's columns; it is not stored yet. Deployments are none of a run's business: they go on.
    """
    gives_way = GIVE_WAY[mode]
    if values["event"] not in SUPERSEDES or values.get("retry_of") is not None or not gives_way:
        return
    for run_id, state in session.connection().execute(_OLDER, older(project_id, values)).all():
        if state in gives_way:
            reason = f"run #{number} is of a newer push"
            close(session, project_id, run_id, reason)
            ended = {"id": run_id, "reason": reason, "finished_at": now()}
            move_many(session, RUN, Run, state, "superseded", rows=[ended], project_id=project_id, run_id=run_id)


def close(session: Session, project_id: int, run_id: int, reason: str) -> None:
    """End all open steps of a run as canceled. The worker of a running one sees it and stops the container."""
    opened = session.connection().execute(_OPEN, {"of_run": run_id}).all()
    for kind in ("build", "stage"):
        if ids := [row.id for row in opened if row.kind == kind]:
            tasks.cancel(session, kind, ids)
    at = now()
    for old in ("waiting", "running"):
        rows = [{"id": row.id, "reason": reason, "finished_at": at} for row in opened if row.state == old]
        move_many(session, STEP, Step, old, "canceled", rows=rows, project_id=project_id, run_id=run_id)
