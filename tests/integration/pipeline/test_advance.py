from __future__ import annotations

import playing
import pytest
import rows
from sqlalchemy import event, select
from sqlalchemy.orm import Session

from cd.pipeline import runs, verdicts
from cd.pipeline.parse import parse
from cd.pipeline.plan import Planned
from cd.pipeline.records import Project, Run, Verdict
from cd.store.database import Database
from cd.store.records import Event, Task

CHAIN = """
stages:
  lint: {run: lint}
  unit: {run: unit, needs: [lint]}
  e2e: {run: e2e, needs: [unit]}
"""


def again(session: Session, run: Run, pipeline: str = CHAIN, **values: object) -> Run:
    """A later run of the same project and image, its build passed."""
    project = session.get_one(Project, run.project_id)
    later = rows.run(session, project, pipeline, sha="b" * 40)
    for name, value in values.items():
        setattr(later, name, value)
    playing.build(session, later)
    return later


@pytest.fixture
def passed(database: Database) -> Run:
    """A run of CHAIN that passed."""
    with database.write() as session:
        run = rows.run(session, rows.project(session), CHAIN)
        playing.build(session, run)
        for name in ("lint", "unit", "e2e"):
            playing.ends(session, run, name)
        assert run.state == "passed"
    return run


def test_a_stage_is_called_for_when_its_needs_passed(database: Database) -> None:
    with database.write() as session:
        run = rows.run(session, rows.project(session), CHAIN)
        assert playing.called(session) == []
        playing.build(session, run)
        assert playing.called(session) == [playing.step(session, run, "lint").id]
        lint = playing.ends(session, run, "lint")
        assert lint.key
        assert lint.attempt == 1
        assert playing.states(session, run) == {
            "build": "passed", "lint": "passed", "unit": "waiting", "e2e": "waiting",
        }  # fmt: skip
        assert playing.step(session, run, "unit").id in playing.called(session)
        assert playing.step(session, run, "unit").queued_at is not None
        assert run.state == "running"


def test_all_that_is_known_passes_at_once(database: Database, passed: Run) -> None:
    with database.write() as session:
        later = again(session, passed)
        assert later.state == "passed"
        assert playing.states(session, later) == {
            "build": "passed", "lint": "reused", "unit": "reused", "e2e": "reused",
        }  # fmt: skip
        e2e = playing.step(session, later, "e2e")
        assert e2e.reason == f"passed for this image in run #{passed.number}"
        assert e2e.key == playing.step(session, passed, "e2e").key
        assert session.get_one(Verdict, e2e.verdict_id).run_id == passed.id
        kinds = session.scalars(select(Event.kind).where(Event.run_id == later.id).order_by(Event.id)).all()
        assert kinds == ["run.queued", "run.running", "step.running", "step.passed", *["step.reused"] * 3, "run.passed"]


def test_the_first_that_is_not_known_runs_and_the_rest_follows(database: Database, passed: Run) -> None:
    with database.write() as session:
        changed = CHAIN.replace("run: unit", "run: unit --more")
        later = again(session, passed, changed)
        assert playing.states(session, later) == {
            "build": "passed", "lint": "reused", "unit": "waiting", "e2e": "waiting",
        }  # fmt: skip
        playing.ends(session, later, "unit")
        assert playing.step(session, later, "e2e").state == "reused"
        assert later.state == "passed"


def test_a_revoked_verdict_stands_no_longer(database: Database, passed: Run) -> None:
    with database.write() as session:
        verdict = session.scalars(select(Verdict).where(Verdict.step_id == playing.step(session, passed, "lint").id))
        verdicts.revoke(session, verdict.one().id)
        later = again(session, passed)
        assert playing.states(session, later)["lint"] == "waiting"
        playing.ends(session, later, "lint")
        assert later.state == "passed"
        assert playing.states(session, again(session, passed))["lint"] == "reused"


@pytest.mark.parametrize("values", [{"fresh": True}, {"trusted": False}])
def test_some_runs_reuse_nothing(database: Database, passed: Run, values: dict[str, bool]) -> None:
    with database.write() as session:
        assert playing.states(session, again(session, passed, **values))["lint"] == "waiting"


def test_what_can_t_run_any_more_is_skipped(database: Database) -> None:
    with database.write() as session:
        run = rows.run(session, rows.project(session), CHAIN)
        playing.build(session, run)
        playing.ends(session, run, "lint", "failed")
        assert playing.states(session, run) == {
            "build": "passed", "lint": "failed", "unit": "skipped", "e2e": "skipped",
        }  # fmt: skip
        assert (run.state, run.reason) == ("failed", "lint failed")
        assert "lint" in playing.step(session, run, "unit").reason


WHEN = """
stages:
  docs: {run: docs}
  unit: {run: unit, needs: [docs]}
  notify: {run: notify, needs: [unit], when: {status: [failed]}}
"""


def planned(session: Session, run: Run, *, left_out: tuple[str, ...] = ()) -> None:
    """Give a run the stages of WHEN, of which some are left out by their conditions."""
    stages = parse(WHEN.encode()).stages
    plan = [
        Planned(name, name, {}, spec, ("build", *spec.needs), "it is for tags" if name in left_out else "")
        for name, spec in stages.items()
    ]
    runs.add_stages(session, run, plan, dict.fromkeys(stages, playing.IMAGE))


def test_what_its_own_conditions_leave_out_is_no_hindrance(database: Database) -> None:
    with database.write() as session:
        run = rows.run(session, rows.project(session))
        planned(session, run, left_out=("docs",))
        docs = playing.step(session, run, "docs")
        assert (docs.state, docs.cause, docs.reason) == ("skipped", "when", "it is for tags")
        playing.build(session, run)
        playing.ends(session, run, "unit")
        assert playing.states(session, run)["notify"] == "skipped"
        assert run.state == "passed"


def test_a_stage_can_run_because_another_failed(database: Database) -> None:
    with database.write() as session:
        run = rows.run(session, rows.project(session))
        planned(session, run)
        playing.build(session, run)
        playing.ends(session, run, "docs", "failed")
        assert playing.states(session, run) == {
            "build": "passed", "docs": "failed", "unit": "skipped", "notify": "waiting",
        }  # fmt: skip
        playing.ends(session, run, "notify")
        assert (run.state, run.reason) == ("failed", "docs failed")


def test_stages_are_given_once(database: Database) -> None:
    with database.write() as session:
        run = rows.run(session, rows.project(session))
        planned(session, run, left_out=("docs",))
        planned(session, run, left_out=("docs",))
        assert list(playing.states(session, run)) == ["build", "docs", "unit", "notify"]


def test_the_longest_path_weighs_most(database: Database) -> None:
    with database.write() as session:
        run = rows.run(session, rows.project(session), CHAIN + "  alone: {run: alone}\n")
        playing.build(session, run)
        weight = dict(session.execute(select(Task.subject, Task.weight).where(Task.kind == "stage")).all())
        assert weight[playing.step(session, run, "lint").id] > weight[playing.step(session, run, "alone").id]
        assert set(session.scalars(select(Task.owner).where(Task.kind == "stage"))) == {run.project_id}


def test_the_end_of_a_run_is_told_once(database: Database, passed: Run) -> None:
    told = []
    with database.write() as session:
        runs.advance(session, passed, lambda _, run: told.append(run.id))
    assert told == []


def test_what_has_ended_well_costs_nothing(database: Database) -> None:
    """The statements of a stage's end are the same few, however many ended before and are still to come."""
    wide = "stages:\n" + "".join(f"  s{number}: {{run: 'echo {number}'}}\n" for number in range(40))
    with database.write() as session:
        run = rows.run(session, rows.project(session), wide)
        playing.build(session, run)
        for name in ("s0", "s1", "s2"):
            playing.ends(session, run, name)
        session.flush()
        counts = []
        for name in ("s3", "s20", "s30"):
            one, counted = playing.step(session, run, name), [0]
            runs.start_step(session, one.id, 1)

            def count(*_: object, counted: list[int] = counted) -> None:
                counted[0] += 1

            event.listen(database.engine, "before_cursor_execute", count)
            try:
                runs.end_step(session, one, "passed", lambda *_: None)
            finally:
                event.remove(database.engine, "before_cursor_execute", count)
            counts.append(counted[0])
        assert len(set(counts)) == 1
        assert counts[0] <= 6
