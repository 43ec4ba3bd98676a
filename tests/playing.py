"""Play a run without a worker: what it would write when a build or a stage ends."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from cd.pipeline import attempts, runs, verdicts
from cd.pipeline.records import Run, Step
from cd.sandbox.base import StageResult
from cd.store.base import now
from cd.store.records import Task

IMAGE = "sha256:" + "1" * 64


def step(session: Session, run: Run, name: str) -> Step:
    """The step of that name, as it is now."""
    return session.scalars(
        select(Step).where(Step.run_id == run.id, Step.name == name).execution_options(populate_existing=True)
    ).one()


def states(session: Session, run: Run) -> dict[str, str]:
    """Name and state of each step."""
    rows = session.execute(select(Step.name, Step.state).where(Step.run_id == run.id).order_by(Step.position))
    return dict(rows.all())


def called(session: Session, kind: str = "stage") -> list[int]:
    """Subjects of the ready tasks of that kind, in the order in which they were called for."""
    query = select(Task.subject).where(Task.kind == kind, Task.state == "ready").order_by(Task.id)
    return list(session.scalars(query))


def build(session: Session, run: Run, state: str = "passed", image: str = IMAGE) -> None:
    """The build ends; every stage gets its image."""
    for one in runs.steps_of(session, run.id):
        one.image = image
    run.image = image
    ends(session, run, "build", state)


def ends(session: Session, run: Run, name: str, state: str = "passed", *, ended: runs.Ended = lambda *_: None) -> Step:
    """A step begins and ends with that state, as a worker writes it."""
    one = step(session, run, name)
    begun = runs.start_step(session, one.id, one.fence + 1)
    assert begun is not None, f"{name} is {one.state}"
    row, one = begun
    if one.kind == "stage" and state in ("passed", "failed"):
        attempts.record(session, row, one, state, result(0 if state == "passed" else 1))
        if state == "passed":
            verdicts.keep(session, row, one)
    runs.end_step(session, one, state, ended)
    return one


def result(code: int, seconds: float = 2.0) -> StageResult:
    """What a container came to."""
    at = now()
    return StageResult(code, False, False, False, at - timedelta(seconds=seconds), at)
