from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import playing
import pytest
import rows
from sqlalchemy import select

from cd.errors import ServiceError
from cd.identity.vault import Vault
from cd.pipeline import reuse
from cd.pipeline.auditing import Auditor, clean
from cd.pipeline.records import Attempt, Run, Step, Verdict
from cd.pipeline.stages import StageRunner
from cd.sandbox.base import ContainerSpec
from cd.sandbox.fake import FakeSandbox, Play
from cd.store import tasks
from cd.store.database import Database
from cd.store.records import Event
from cd.store.tasks import Claim

STAGES = "stages: {unit: {run: unit, env: {A: '1'}}, load: {run: load, reuse: never}}"


@dataclass
class Paper:
    """A log in memory."""

    position: int = 0
    since: int = 0
    since_at: int = 0
    text: bytes = b""

    def write(self, data: bytes, times: Sequence[tuple[int, int]] = ()) -> None:
        self.text += data
        self.position += len(data)


@dataclass
class Shelf:
    """Logs in memory, by step and attempt."""

    papers: dict[tuple[int, int], Paper] = field(default_factory=dict)

    @contextmanager
    def writer(self, step_id: int, attempt: int, fence: int, secrets: Sequence[str] = ()) -> Iterator[Paper]:
        yield self.papers.setdefault((step_id, attempt), Paper())


def auditor(database: Database, sandbox: FakeSandbox, shelf: Shelf | None = None) -> Auditor:
    parts: list[Any] = [database, sandbox, shelf or Shelf(), Vault(b"k" * 32), None, lambda *_: None, "here"]
    return Auditor(StageRunner(*parts))


@pytest.fixture
def reused(database: Database) -> Step:
    """A stage that stands on the verdict of an earlier run, its audit called for."""
    with database.write() as session:
        project = rows.project(session)
        for _ in range(2):
            run = rows.run(session, project, STAGES)
            playing.build(session, run)
            if playing.step(session, run, "unit").state == "waiting":
                playing.ends(session, run, "unit")
            playing.ends(session, run, "load", ended=reuse.Sampled(lambda *_: None, 1))
        step = playing.step(session, run, "unit")
        assert step.state == "reused"
        return step


def claim(database: Database, step: Step) -> Claim:
    with database.write() as session:
        (ring,) = [one for one in tasks.due(session, tasks.now() + tasks.RING_AGAIN * 2) if one.kind == "audit"]
        taken = tasks.claim(session, ring.task_id, "w", 60)
    assert taken is not None
    assert taken.subject == step.id
    return taken


def test_a_verdict_that_stands_is_left_alone(database: Database, reused: Step) -> None:
    asked: list[ContainerSpec] = []

    def play(spec: ContainerSpec) -> Play:
        asked.append(spec)
        return Play(b"fine\n")

    sandbox, shelf = FakeSandbox(play), Shelf()
    auditor(database, sandbox, shelf).execute(claim(database, reused))
    (spec,) = asked
    assert (spec.image, spec.argv, spec.env["A"]) == (playing.IMAGE, ("sh", "-e", "-c", "unit"), "1")
    assert spec.labels["towpath.kind"] == "audit"
    assert shelf.papers[reused.id, 1].text == b"fine\n"
    assert sandbox.find({}) == []
    with database.read() as session:
        attempt = session.scalars(select(Attempt).where(Attempt.shadow)).one()
        assert (attempt.state, attempt.step_id, attempt.number) == ("passed", reused.id, 1)
        assert session.get_one(Verdict, reused.verdict_id).revoked_at is None
        assert session.get_one(Step, reused.id).state == "reused"
        assert reuse.counts(session, reused.project_id).audited == 1


def test_a_verdict_that_is_contradicted_is_revoked_and_counted(database: Database, reused: Step) -> None:
    auditor(database, FakeSandbox(lambda _: Play(exit_code=1))).execute(claim(database, reused))
    with database.write() as session:
        assert session.get_one(Verdict, reused.verdict_id).revoked_at is not None
        counted = reuse.counts(session, reused.project_id)
        assert (counted.audited, counted.false_hits) == (1, 1)
        assert session.scalars(select(Event).where(Event.kind == "audit.failed")).one().subject == reused.id
        # What was found out does not change the past: the run passed as it did.
        assert session.get_one(Run, reused.run_id).state == "passed"
        run = rows.run(session, session.get_one(rows.Project, reused.project_id), STAGES)
        playing.build(session, run)
        assert playing.step(session, run, "unit").state == "waiting"


def test_the_engine_s_fault_says_nothing(database: Database, reused: Step) -> None:
    sandbox = FakeSandbox()
    sandbox.away = ServiceError("the engine is away")
    taken = claim(database, reused)
    with pytest.raises(ServiceError):
        auditor(database, sandbox).execute(taken)
    with database.read() as session:
        assert session.scalars(select(Attempt).where(Attempt.shadow)).all() == []
    sandbox.away = None
    auditor(database, sandbox).execute(taken)
    auditor(database, sandbox).execute(taken)
    with database.read() as session:
        assert len(session.scalars(select(Attempt).where(Attempt.shadow)).all()) == 1
    assert len(sandbox.started) == 1


def test_what_a_lost_worker_left_is_removed(database: Database, reused: Step) -> None:
    sandbox = FakeSandbox()
    taken = claim(database, reused)
    one = auditor(database, sandbox)
    audit = one._begin(taken)
    assert audit is not None
    sandbox.start(audit.container)
    assert clean(database, sandbox, "here") == 0
    with database.write() as session:
        tasks.finish(session, taken)
    assert clean(database, sandbox, "elsewhere") == 0
    assert clean(database, sandbox, "here") == 1
    assert sandbox.find({}) == []
