from __future__ import annotations

from datetime import timedelta

import pytest
import rows
from sqlalchemy import select

from cd.pipeline import verdicts
from cd.pipeline.definition import StageSpec
from cd.pipeline.records import Project, Run, Step, Verdict
from cd.store.base import now
from cd.store.database import Database

IMAGE = "sha256:" + "1" * 64


def spec(**values: object) -> StageSpec:
    return StageSpec.model_validate({"run": "pytest", **values})


KEY = verdicts.stage_key(spec())


def earn(database: Database, slug: str = "shop", *, trusted: bool = True, seconds: float = 3.0) -> tuple[Run, Step]:
    """A run whose step passed for IMAGE after so many seconds."""
    with database.write() as session:
        run = rows.run(session, rows.project(session, slug), trusted=trusted)
        step = session.scalars(select(Step).where(Step.run_id == run.id)).one()
        step.image, step.started_at = IMAGE, now() - timedelta(seconds=seconds)
        step.key = KEY
        verdicts.keep(session, run, step)
    return run, step


def found(database: Database, run: Run, image: str = IMAGE, stage: StageSpec | None = None) -> Verdict | None:
    stage = stage or spec()
    step = Step(id=1, image=image, spec=stage.model_dump(mode="json"), services={})
    with database.read() as session:
        return verdicts.find_many(session, run, [step]).get(1)


def test_what_passed_stands_for_the_same_image_and_key(database: Database) -> None:
    run, step = earn(database)
    verdict = found(database, run)
    assert verdict is not None
    assert (verdict.step_id, verdict.run_id) == (step.id, run.id)
    assert verdict.seconds == pytest.approx(3.0, abs=1.0)
    assert found(database, run, image="sha256:" + "2" * 64) is None
    assert found(database, run, stage=spec(env={"A": "1"})) is None


def test_a_verdict_is_its_project_s_own(database: Database) -> None:
    earn(database)
    with database.write() as session:
        other = rows.run(session, rows.project(session, "other"))
    assert found(database, other) is None


def test_the_newest_stands(database: Database) -> None:
    run, _ = earn(database)
    with database.write() as session:
        again = rows.run(session, session.get_one(Project, run.project_id))
        step = session.scalars(select(Step).where(Step.run_id == again.id)).one()
        step.image, step.started_at = IMAGE, now()
        step.key = KEY
        verdicts.keep(session, again, step)
    verdict = found(database, run)
    assert verdict is not None
    assert (verdict.run_id, verdict.step_id) == (again.id, step.id)
    with database.read() as session:
        assert len(session.scalars(select(Verdict)).all()) == 1


def test_a_run_of_strangers_code_earns_and_uses_none(database: Database) -> None:
    run, _ = earn(database, trusted=False)
    with database.read() as session:
        assert session.scalars(select(Verdict)).all() == []
    earn(database, "other")
    assert found(database, run) is None


def test_who_wants_a_fresh_run_gets_one(database: Database) -> None:
    run, _ = earn(database)
    run.fresh = True
    assert found(database, run) is None


def test_stages_that_may_see_another_world_each_time_are_run(database: Database) -> None:
    run, _ = earn(database)
    for stage in (spec(reuse="never"), spec(network="internet")):
        assert found(database, run, stage=stage) is None
