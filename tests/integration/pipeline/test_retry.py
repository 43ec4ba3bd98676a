from __future__ import annotations

import playing
import pytest
import rows
from sqlalchemy.orm import Session

from cd.errors import Conflict
from cd.pipeline import queries, runs, verdicts
from cd.pipeline.parse import parse
from cd.pipeline.plan import Occasion, plan
from cd.pipeline.records import Project, Run, Verdict
from cd.store.database import Database

STAGES = """
stages:
  load: {run: load, reuse: never}
  unit: {run: unit}
  e2e: {run: e2e, needs: [load]}
"""


def failed(session: Session, *, trusted: bool = True) -> tuple[Project, Run]:
    """A run in which only `e2e` failed."""
    project = rows.project(session)
    run = rows.run(session, project, STAGES, trusted=trusted)
    playing.build(session, run)
    for name in ("unit", "load"):
        playing.ends(session, run, name)
    playing.ends(session, run, "e2e", "failed")
    assert run.state == "failed"
    return project, run


def retried(session: Session, project: Project, run: Run, *, image: str = playing.IMAGE, fresh: bool = False) -> Run:
    again = runs.retry(session, project, run, "ana", fresh=fresh)
    runs.add_stages(session, again, plan(parse(STAGES.encode()), Occasion(again.event, again.ref)))
    playing.build(session, again, image=image)
    return again


@pytest.mark.parametrize("trusted", [True, False])
def test_what_passed_is_kept(database: Database, trusted: bool) -> None:
    with database.write() as session:
        project, run = failed(session, trusted=trusted)
        again = retried(session, project, run)
        assert playing.states(session, again) == {
            "build": "passed", "load": "reused", "unit": "reused", "e2e": "waiting",
        }  # fmt: skip
        load = playing.step(session, again, "load")
        assert load.reason == f"passed in run #{run.number}, which this one tries again"
        assert load.key == playing.step(session, run, "load").key
        playing.ends(session, again, "e2e", "failed")
        # And kept once more, from what was kept.
        third = retried(session, project, again)
        assert playing.states(session, third)["load"] == "reused"
        playing.ends(session, third, "e2e")
        assert third.state == "passed"
        detail = queries.detail(session, "shop", third.number)
        reused = {step.name: step.reused for step in detail.steps}
        assert reused["load"] is not None
        assert (reused["load"].run_number, reused["load"].step) == (run.number, "load")


def test_another_image_is_tested_anew(database: Database) -> None:
    with database.write() as session:
        project, run = failed(session)
        again = retried(session, project, run, image="sha256:" + "2" * 64)
        assert playing.states(session, again)["load"] == "waiting"


def test_fresh_keeps_nothing(database: Database) -> None:
    with database.write() as session:
        project, run = failed(session)
        again = retried(session, project, run, fresh=True)
        assert playing.states(session, again) == {
            "build": "passed", "load": "waiting", "unit": "waiting", "e2e": "waiting",
        }  # fmt: skip


def test_what_is_always_to_run_does_when_nothing_failed(database: Database) -> None:
    with database.write() as session:
        project, run = failed(session)
        again = retried(session, project, run)
        playing.ends(session, again, "e2e")
        third = retried(session, project, again)
        assert playing.states(session, third)["load"] == "waiting"
        with pytest.raises(Conflict, match="nothing to try again"):
            runs.retry(session, project, again, "ana", failed=True)


def test_what_was_contradicted_is_not_kept(database: Database) -> None:
    with database.write() as session:
        project, run = failed(session)
        load = playing.step(session, run, "load")
        verdict = session.query(Verdict).filter_by(step_id=load.id).one()
        verdicts.revoke(session, verdict.id)
        assert playing.states(session, retried(session, project, run))["load"] == "waiting"
