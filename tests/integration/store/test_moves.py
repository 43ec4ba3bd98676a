"""State columns change by compare-and-set, each with its event."""

from __future__ import annotations

import pytest
import rows
from sqlalchemy import select
from threads import together

from cd.errors import StaleWrite
from cd.pipeline.records import Run, Step
from cd.pipeline.states import RUN, STEP
from cd.store import events
from cd.store.base import now
from cd.store.database import Database
from cd.store.states import move


@pytest.fixture
def run(database: Database) -> Run:
    with database.write() as session:
        return rows.run(session, rows.project(session))


def test_a_move_writes_values_and_appends_its_event(database: Database, run: Run) -> None:
    at = now()
    with database.write() as session:
        move(session, RUN, session.get_one(Run, run.id), "running", started_at=at)
    with database.read() as session:
        row = session.get_one(Run, run.id)
        assert (row.state, row.started_at) == ("running", at)
        event = events.after(session, 0)[-1]
        assert (event.kind, event.project_id, event.run_id, event.subject) == (
            "run.running",
            run.project_id,
            run.id,
            run.id,
        )


def test_who_believes_an_old_state_is_refused(database: Database, run: Run) -> None:
    with database.write() as session:
        move(session, RUN, session.get_one(Run, run.id), "running")
    with pytest.raises(StaleWrite, match="is no longer queued"), database.write() as session:
        move(session, RUN, session.merge(run, load=False), "running")


def test_who_carries_an_old_fence_is_refused_and_nothing_stays(database: Database, run: Run) -> None:
    with database.write() as session:
        step = session.scalars(select(Step).where(Step.run_id == run.id)).one()
        move(session, STEP, step, "running", held=0, fence=3)
        newest = session.scalar(select(Step.fence))
        assert newest == 3

    def write_late() -> None:
        with database.write() as session:
            late = session.get_one(Step, step.id)
            session.get_one(Run, run.id).reason = "from a worker that lost its claim"
            move(session, STEP, late, "passed", held=2)

    with pytest.raises(StaleWrite, match="at fence 2"):
        write_late()
    with database.read() as session:
        assert session.get_one(Step, step.id).state == "running"
        assert session.get_one(Run, run.id).reason == ""
        assert "step.passed" not in [event.kind for event in events.after(session, 0)]


def test_a_step_that_the_table_does_not_have_is_a_programming_error(database: Database, run: Run) -> None:
    with pytest.raises(ValueError, match="run: queued -> passed is not a transition"), database.write() as session:
        move(session, RUN, session.get_one(Run, run.id), "passed")


def test_of_many_that_end_a_run_at_once_one_does(database: Database, run: Run) -> None:
    def end(number: int) -> bool:
        try:
            with database.write() as session:
                move(session, RUN, session.merge(run, load=False), "canceled", reason=str(number))
        except StaleWrite:
            return False
        return True

    ended = together(8, end)
    assert sum(ended) == 1
    with database.read() as session:
        assert session.get_one(Run, run.id).reason == str(ended.index(True))
        assert [event.kind for event in events.after(session, 0)].count("run.canceled") == 1


def test_times_come_back_in_utc_and_need_a_zone(database: Database, run: Run) -> None:
    with database.read() as session:
        assert session.get_one(Run, run.id).created_at.utcoffset() is not None
    with pytest.raises(Exception, match="without a zone"), database.write() as session:
        session.get_one(Run, run.id).created_at = now().replace(tzinfo=None)
