from __future__ import annotations

import playing
import pytest
import rows
from sqlalchemy import event, select
from sqlalchemy.orm import Session

from cd.pipeline import runs
from cd.pipeline.records import Project, Run
from cd.store.database import Database
from cd.store.records import Event

MAIN = "refs/heads/main"
STAGES = "stages: {unit: {run: unit}}"


def push(session: Session, project: Project, ref: str = MAIN, kind: str = "push", **values: object) -> Run:
    return runs.create(session, project, event=kind, ref=ref, sha="b" * 40, **values)  # type: ignore[arg-type]


def begin(session: Session, run: Run) -> None:
    """Its build is taken by a worker."""
    assert runs.start_step(session, playing.step(session, run, "build").id, 1) is not None


def state(session: Session, run: Run) -> str:
    session.refresh(run)
    return run.state


def test_a_newer_push_ends_a_run_that_has_not_begun(database: Database) -> None:
    with database.write() as session:
        project = rows.project(session)
        old = push(session, project)
        new = push(session, project)
        assert state(session, old) == "superseded"
        assert old.reason == f"run #{new.number} is of a newer push"
        assert old.finished_at is not None
        assert playing.states(session, old) == {"build": "canceled"}
        assert state(session, new) == "queued"
        assert playing.called(session, "build") == [playing.step(session, new, "build").id]
        kinds = session.scalars(select(Event.kind).where(Event.run_id == old.id).order_by(Event.id)).all()
        assert kinds == ["run.queued", "step.canceled", "run.superseded"]


@pytest.mark.parametrize("mode,expected", [("never", "running"), ("waiting", "running"), ("running", "superseded")])
def test_a_run_that_has_begun_gives_way_by_setting(database: Database, mode: str, expected: str) -> None:
    with database.write() as session:
        project = rows.project(session)
        project.supersede = mode
        old = rows.run(session, project, STAGES)
        playing.build(session, old)
        unit = playing.step(session, old, "unit")
        runs.start_step(session, unit.id, 1)
        push(session, project)
        assert state(session, old) == expected
        assert playing.states(session, old)["unit"] == ("canceled" if expected == "superseded" else "running")


def test_never_means_never(database: Database) -> None:
    with database.write() as session:
        project = rows.project(session)
        project.supersede = "never"
        old = push(session, project)
        push(session, project)
        assert state(session, old) == "queued"


@pytest.mark.parametrize(
    "old,new",
    [
        ({"ref": "refs/heads/a"}, {"ref": "refs/heads/b"}),
        ({"kind": "manual"}, {}),
        ({}, {"kind": "manual"}),
        ({"ref": "refs/tags/v1", "kind": "tag"}, {"ref": "refs/tags/v1", "kind": "tag"}),
        ({"ref": "refs/pull/1/head", "kind": "pull_request"}, {"ref": "refs/pull/2/head", "kind": "pull_request"}),
        ({"trusted": False}, {}),
        ({}, {"trusted": False}),
    ],
)
def test_only_the_same_branch_gives_way(database: Database, old: dict[str, object], new: dict[str, object]) -> None:
    with database.write() as session:
        project = rows.project(session)
        project.supersede = "running"
        before = push(session, project, **old)  # type: ignore[arg-type]
        push(session, rows.project(session, "other"))
        push(session, project, **new)  # type: ignore[arg-type]
        assert state(session, before) == "queued"


def test_a_pull_request_gives_way_to_its_newer_self(database: Database) -> None:
    with database.write() as session:
        project = rows.project(session)
        old = push(session, project, "refs/pull/1/head", "pull_request", trusted=False)
        push(session, project, "refs/pull/1/head", "pull_request", trusted=False)
        assert state(session, old) == "superseded"


def test_what_a_person_asked_for_is_left_alone(database: Database) -> None:
    """A retry of an old commit ends no newer run, and no push ends the retry."""
    with database.write() as session:
        project = rows.project(session)
        project.supersede = "running"
        first = push(session, project)
        begin(session, first)
        runs.cancel(session, first, "ana", lambda *_: None)
        newer = push(session, project)
        again = runs.retry(session, project, first, "ana")
        assert state(session, newer) == "queued"
        push(session, project)
        assert state(session, again) == "queued"
        assert state(session, newer) == "superseded"


def test_a_replayed_push_ends_nothing(database: Database) -> None:
    with database.write() as session:
        project = rows.project(session)
        old = push(session, project)
        runs.enqueue(session, project.id, superseding=False, event="push", ref=MAIN, sha="c" * 40)
        assert state(session, old) == "queued"


def test_a_push_costs_few_statements(database: Database) -> None:
    counted: list[str] = []

    def count(_: object, __: object, statement: str, *___: object) -> None:
        counted.append(statement)

    with database.write() as session:
        project = rows.project(session)
        session.flush()
        event.listen(database.engine, "before_cursor_execute", count)
        try:
            runs.enqueue(session, project.id, event="push", ref=MAIN, sha="a" * 40)
        finally:
            event.remove(database.engine, "before_cursor_execute", count)
    assert len(counted) == 5, counted


def test_many_waiting_runs_do_not_slow_a_push(database: Database) -> None:
    """The look for older runs goes by an index over the open runs of the ref."""
    if not database.sqlite:
        pytest.skip("a plan that depends on statistics")
    with database.write() as session:
        rows.project(session)
        plan = session.connection().exec_driver_sql(
            "EXPLAIN QUERY PLAN SELECT id, state FROM run WHERE project_id = ? AND ref = ?"
            " AND run.state IN ('queued', 'running') AND event = ? AND retry_of IS NULL",
            (1, MAIN, "push"),
        )
        assert "ix_run_open_ref" in str(plan.all())
