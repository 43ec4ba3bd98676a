"""What a stage reports and leaves, from its container to the pages: retries, failures, and what can't be kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import playing
import pytest
import rows
from leaving import report
from sqlalchemy import select
from test_auditing import Shelf

from cd.identity.vault import Vault
from cd.pipeline import artifacts, runs, testhistory
from cd.pipeline.collecting import Collector
from cd.pipeline.records import Attempt, Step
from cd.pipeline.stages import StageRunner
from cd.sandbox.fake import FakeSandbox, Play
from cd.store.database import Database
from cd.store.tasks import Claim

STAGE = "stages: {unit: {run: x, retries: 1, reports: {junit: /work/junit.xml}, artifacts: ['/work/dist/*']}}"
Execute = Callable[..., Step]


@pytest.fixture
def execute(database: Database, tmp_path: Path) -> Execute:
    """Runs the stage: attempt by attempt an exit code and the files that are left."""

    def run(*plays: tuple[int, Mapping[str, bytes]], limit: int = 1 << 20) -> Step:
        coming = iter(plays)
        sandbox = FakeSandbox(lambda spec: _play(*next(coming)))
        with database.write() as session:
            run = rows.run(session, rows.project(session), STAGE)
            playing.build(session, run)
            step_id = playing.step(session, run, "unit").id
        collector = Collector(sandbox, f"file://{tmp_path / 'blobs'}", limit, days=1)
        parts: list[Any] = [database, sandbox, Shelf(), Vault(b"k" * 32), collector, lambda *_: None, "here"]
        StageRunner(*parts).execute(Claim(1, "stage", step_id, fence=1, attempts=0))
        with database.read() as session:
            return session.get_one(Step, step_id)

    return run


def _play(exit_code: int, files: Mapping[str, bytes]) -> Play:
    return Play(exit_code=exit_code, files=files)


GOOD = {"/work/junit.xml": report(a="passed"), "/work/dist/app": b"app"}
BAD = {"/work/junit.xml": report(a="failed"), "/work/dist/app": b"broken"}


def test_what_a_stage_left_is_with_its_run(database: Database, execute: Execute) -> None:
    step = execute((0, GOOD))
    assert (step.state, step.reason, step.cause) == ("passed", "", None)
    with database.read() as session:
        assert [one.summary.passed for one in testhistory.of_run(session, step.run_id)] == [1]
        assert [one.path for one in artifacts.of_run(session, step.run_id)] == ["/work/dist/app"]


def test_a_retry_shows_its_own_results_and_proves_the_flake(database: Database, execute: Execute) -> None:
    step = execute((1, BAD), (0, GOOD))
    assert (step.state, step.attempt) == ("passed", 2)
    with database.read() as session:
        assert [one.state for one in session.scalars(select(Attempt).order_by(Attempt.number))] == ["failed", "passed"]
        assert [one.summary.failed for one in testhistory.of_run(session, step.run_id)] == [0]
        assert [one.size for one in artifacts.of_run(session, step.run_id)] == [3]
        (flaky,) = testhistory.ranked(session, step.project_id)["flaky"]
        assert (flaky.name, flaky.flips) == ("a", 1)


def test_a_stage_that_passed_fails_when_its_artifacts_can_t_be_kept(database: Database, execute: Execute) -> None:
    step = execute((0, GOOD), (0, GOOD), limit=2)
    assert (step.state, step.cause) == ("failed", "artifacts")
    assert step.reason.startswith("artifacts can't be kept: /work/dist/app and what came before are more than 2 bytes")
    with database.read() as session:
        assert runs.steps_of(session, step.run_id)[0].state == "passed"
        assert [one.summary.passed for one in testhistory.of_run(session, step.run_id)] == [1]


def test_a_stage_that_failed_keeps_its_own_reason(execute: Execute) -> None:
    step = execute((3, BAD), (3, {"/work/junit.xml": b"<broken"}), limit=2)
    assert (step.state, step.cause) == ("failed", None)
    assert step.reason == (
        "exit code 3; no file at /work/dist/*; "
        "a report that can't be read: /work/junit.xml: it is no XML: unclosed token: line 1, column 0"
    )


def test_a_stage_that_failed_says_what_could_not_be_kept_too(execute: Execute) -> None:
    step = execute((3, GOOD), (3, GOOD), limit=2)
    assert (step.state, step.cause) == ("failed", None)
    assert step.reason.startswith("exit code 3; artifacts can't be kept: /work/dist/app")


def test_a_service_that_was_not_ready_leaves_an_attempt(database: Database, tmp_path: Path) -> None:
    step = _one(database, tmp_path, "stages: {unit: {run: x, services: {db: {image: postgres}}}}")
    assert (step.state, step.cause) == ("failed", "service")
    with database.read() as session:
        (attempt,) = session.scalars(select(Attempt))
        assert (attempt.state, attempt.cause, attempt.exit_code) == ("failed", "service", None)


def test_code_from_outside_gets_no_secrets(database: Database, tmp_path: Path) -> None:
    step = _one(database, tmp_path, "stages: {unit: {run: x, secrets: [TOKEN]}}", trusted=False)
    assert (step.state, step.reason.split(";")[0]) == ("failed", "code from outside gets no secrets")


def _one(database: Database, path: Path, stages: str, *, trusted: bool = True) -> Step:
    sandbox = FakeSandbox(lambda spec: Play(not_ready="db"))
    with database.write() as session:
        run = rows.run(session, rows.project(session), stages)
        playing.build(session, run)
        run.trusted = trusted
        step_id = playing.step(session, run, "unit").id
    collector = Collector(sandbox, f"file://{path / 'blobs'}", 1 << 20, days=1)
    parts: list[Any] = [database, sandbox, Shelf(), Vault(b"k" * 32), collector, lambda *_: None, "here"]
    StageRunner(*parts).execute(Claim(1, "stage", step_id, fence=1, attempts=0))
    with database.read() as session:
        return session.get_one(Step, step_id)
