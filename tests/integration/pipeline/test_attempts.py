from __future__ import annotations

import playing
import pytest
import rows
from sqlalchemy import select
from sqlalchemy.orm import Session

from cd.pipeline import attempts, reuse, verdicts
from cd.pipeline.records import Attempt, Project, Run, Verdict
from cd.store.database import Database

STAGES = "stages: {unit: {run: unit}, load: {run: load, reuse: never}}"


def played(session: Session, project: Project, *, image: str = playing.IMAGE, **states: str) -> Run:
    """A run whose stages end so."""
    run = rows.run(session, project, STAGES)
    playing.build(session, run, image=image)
    for name, state in states.items():
        playing.ends(session, run, name, state)
    return run


def test_how_long_a_stage_takes_is_the_median_of_its_last_ones(database: Database) -> None:
    with database.write() as session:
        project = rows.project(session)
        run = played(session, project)
        unit = playing.step(session, run, "unit")
        for number, seconds in enumerate((900, 800, 5, 1, 3, 2, 70), start=1):
            attempts.record(session, run, unit, "passed", playing.result(0, seconds), number=number)
        attempts.record(session, run, unit, "failed", playing.result(1, 1000), number=8)
        assert attempts.typical(session, project.id, ["unit", "load", "unit"]) == {"unit": pytest.approx(3.0)}
        assert attempts.typical(session, project.id, []) == {}
        assert attempts.typical(session, project.id + 1, ["unit"]) == {}
        many = [f"s{number}" for number in range(1200)]
        assert attempts.typical(session, project.id, [*many, "unit"]) == {"unit": pytest.approx(3.0)}


def test_an_attempt_is_kept_once(database: Database) -> None:
    with database.write() as session:
        run = played(session, rows.project(session), load="passed")
        load = playing.step(session, run, "load")
        first = attempts.record(session, run, load, "passed", playing.result(0))
        again = attempts.record(session, run, load, "failed", playing.result(1), report={"tests": 1})
        assert (again.id, again.state, again.key) == (first.id, "passed", load.key)
        assert len(session.scalars(select(Attempt)).all()) == 1


def test_two_results_for_one_image_and_key_are_a_flake(database: Database) -> None:
    with database.write() as session:
        project = rows.project(session)
        one = played(session, project, load="failed")
        two = played(session, project, load="passed", unit="passed")
        played(session, project, image="sha256:" + "2" * 64, load="failed", unit="failed")
        other = rows.project(session, "other")
        played(session, other, load="failed")
        (flake,) = attempts.flakes(session, project.id)
        load = playing.step(session, two, "load")
        assert (flake.name, flake.passed, flake.failed, flake.key) == ("load", 1, 1, load.key)
        assert (flake.passed_run, flake.failed_run) == (two.number, one.number)
        assert attempts.flakes(session, other.id) == []


def test_the_latest_flakes_come_first(database: Database) -> None:
    with database.write() as session:
        project = rows.project(session)
        for state in ("passed", "failed"):
            run = rows.run(session, project, "stages: {a: {run: a, reuse: never}, b: {run: b, reuse: never}}")
            playing.build(session, run)
            playing.ends(session, run, "b", state)
            playing.ends(session, run, "a", state)
        assert [flake.name for flake in attempts.flakes(session, project.id)] == ["a", "b"]
        assert [flake.name for flake in attempts.flakes(session, project.id, limit=1)] == ["a"]


def test_a_share_of_what_was_reused_is_run_again(database: Database) -> None:
    with database.write() as session:
        project = rows.project(session)
        played(session, project, unit="passed", load="passed")
        later = rows.run(session, project, STAGES)
        playing.build(session, later)
        unit = playing.step(session, later, "unit")
        playing.ends(session, later, "load", ended=reuse.Sampled(lambda *_: None, 0))
        assert playing.called(session, "audit") == []
        later = rows.run(session, project, STAGES)
        playing.build(session, later)
        told: list[int] = []
        playing.ends(session, later, "load", ended=reuse.Sampled(lambda _, run: told.append(run.id), 1))
        unit = playing.step(session, later, "unit")
        assert unit.state == "reused"
        assert playing.called(session, "audit") == [unit.id]
        assert told == [later.id]


def test_what_reuse_spared_and_how_often_it_was_wrong_is_counted(database: Database) -> None:
    with database.write() as session:
        project = rows.project(session)
        first = played(session, project, unit="passed", load="passed")
        later = played(session, project, load="passed")
        unit = playing.step(session, later, "unit")
        verdict = session.get_one(Verdict, unit.verdict_id)
        assert verdict.run_id == first.id
        assert reuse.counts(session, project.id) == reuse.Reuse(1, verdict.seconds, 0, 0)
        attempts.record(session, later, unit, "failed", playing.result(1), shadow=True, number=1)
        verdicts.revoke(session, verdict.id)
        counted = reuse.counts(session, project.id)
        assert (counted.reused, counted.audited, counted.false_hits) == (1, 1, 1)
        assert [(hit.stage, hit.run_number, hit.key) for hit in counted.newest] == [("unit", later.number, unit.key)]
        assert reuse.audits(session) == {"failed": 1}
