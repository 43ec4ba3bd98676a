"""Claims on both databases: one winner, and no word from who lost."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import pytest
from sqlalchemy import literal, select
from threads import together

from cd.errors import StaleWrite
from cd.store import tasks
from cd.store.base import now
from cd.store.database import Database
from cd.store.records import Task
from cd.store.tasks import Claim, Ring


def add(database: Database, kind: str = "stage", subject: int = 1, delay: float = 0.0) -> int:
    with database.write() as session:
        task = tasks.add(session, kind, subject, delay=delay)
    assert task is not None
    return task


def claim(database: Database, task: int, lease: float = 60.0, worker: str = "w") -> Claim | None:
    with database.write() as session:
        return tasks.claim(session, task, worker, lease)


def taken(database: Database, task: int, lease: float = 60.0, worker: str = "w") -> Claim:
    held = claim(database, task, lease, worker)
    assert held is not None
    return held


def ids(rings: Sequence[Ring]) -> list[int]:
    return [ring.task_id for ring in rings]


def look(database: Database, task: int) -> Task:
    with database.read() as session:
        return session.get_one(Task, task)


def test_of_many_that_claim_at_once_one_wins(database: Database) -> None:
    for round_ in range(5):
        task = add(database, subject=round_)
        claims = together(8, lambda number, task=task: claim(database, task, worker=f"w{number}"))
        winners = [number for number, held in enumerate(claims) if held]
        assert len(winners) == 1
        assert look(database, task).worker == f"w{winners[0]}"


def test_the_same_work_is_open_once(database: Database) -> None:
    first = add(database, subject=7)
    with database.write() as session:
        assert tasks.add(session, "stage", 7) is None
        assert tasks.add(session, "build", 7) is not None
    held = taken(database, first)
    with database.write() as session:
        assert tasks.add(session, "stage", 7) is None
    with database.write() as session:
        tasks.finish(session, held)
        assert tasks.add(session, "stage", 7) is not None


def test_of_many_that_add_the_same_work_at_once_one_does(database: Database) -> None:
    def add_it(_: int) -> int | None:
        with database.write() as session:
            return tasks.add(session, "stage", 1)

    added = together(8, add_it)
    assert len([one for one in added if one is not None]) == 1
    with database.read() as session:
        assert len(session.scalars(select(Task)).all()) == 1


def test_a_task_is_rung_after_its_commit_and_not_before_its_time(database: Database) -> None:
    rung: list[int] = []
    database._doorbell = lambda rings, events: rung.extend(ring.task_id for ring in rings)
    with database.write() as session:
        task = tasks.add(session, "stage", 1)
        later = tasks.add(session, "stage", 2, delay=60)
        assert rung == []
    assert rung == [task]
    assert later is not None
    assert claim(database, later) is None


def test_what_was_rolled_back_is_neither_there_nor_rung(database: Database) -> None:
    rung: list[int] = []
    database._doorbell = lambda rings, events: rung.extend(ring.task_id for ring in rings)

    def fail() -> None:
        with database.write() as session:
            tasks.add(session, "stage", 1)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert rung == []
    with database.read() as session:
        assert session.scalars(select(Task)).all() == []


def test_who_lost_a_claim_writes_nothing_any_more(database: Database) -> None:
    task = add(database)
    old = taken(database, task, lease=0.0)
    with database.write() as session:
        assert ids(tasks.release_expired(session, now() + timedelta(seconds=1))) == [task]
    new = taken(database, task)
    assert new.fence == old.fence + 1
    for word in (
        lambda session: tasks.renew(session, old, 60),
        lambda session: tasks.finish(session, old),
        lambda session: tasks.put_back(session, old, "x", 0),
        lambda session: tasks.check(session, old),
    ):
        with pytest.raises(StaleWrite), database.write() as session:
            word(session)
    with database.write() as session:
        tasks.check(session, new)
        tasks.finish(session, new)
    assert look(database, task).state == "done"
    with pytest.raises(StaleWrite), database.write() as session:
        tasks.finish(session, new)


def test_only_expired_claims_are_released(database: Database) -> None:
    silent, alive, ready = add(database, subject=1), add(database, subject=2), add(database, subject=3)
    at = now()
    taken(database, silent, lease=5)
    held = taken(database, alive, lease=5)
    with database.write() as session:
        tasks.renew(session, held, lease=100)
    with database.write() as session:
        assert ids(tasks.release_expired(session, at)) == []
        assert ids(tasks.release_expired(session, at + timedelta(seconds=50))) == [silent]
    assert [look(database, one).state for one in (silent, alive, ready)] == ["ready", "claimed", "ready"]
    assert look(database, silent).attempts == 0, "a claim lost with its worker is no failed attempt"


def test_tasks_of_a_dead_worker_are_freed_and_rung(database: Database) -> None:
    rung: list[int] = []
    mine, other = add(database, subject=1), add(database, subject=2)
    taken(database, mine, worker="dead")
    taken(database, other, worker="alive")
    database._doorbell = lambda rings, events: rung.extend(ring.task_id for ring in rings)
    with database.write() as session:
        assert ids(tasks.release_of(session, "dead")) == [mine]
    assert rung == [mine]
    assert look(database, other).state == "claimed"


def test_a_task_that_failed_waits_and_counts(database: Database) -> None:
    task = add(database)
    held = taken(database, task)
    with database.write() as session:
        tasks.put_back(session, held, "the engine is away", delay=60)
    row = look(database, task)
    assert (row.state, row.attempts, row.error, row.worker) == ("ready", 1, "the engine is away", None)
    assert claim(database, task) is None
    with database.read() as session:
        assert ids(tasks.due(session, now())) == []
        assert ids(tasks.due(session, now() + timedelta(seconds=61))) == [task]


def test_what_was_rung_and_not_taken_is_due_again(database: Database) -> None:
    task = add(database)
    with database.read() as session:
        assert ids(tasks.due(session, now())) == []
        assert ids(tasks.due(session, now() + tasks.RING_AGAIN * 2)) == [task]
    later = now() + tasks.RING_AGAIN * 2
    with database.write() as session:
        tasks.mark_rung(session, tasks.due(session, later), later)
        assert ids(session.info["rings"]) == [task]
    with database.read() as session:
        assert ids(tasks.due(session, later + timedelta(seconds=1))) == []


def test_cancel_drops_only_what_nobody_has_taken(database: Database) -> None:
    waiting, running, other = add(database, subject=1), add(database, subject=2), add(database, "build", 1)
    held = taken(database, running)
    with database.write() as session:
        tasks.cancel(session, "stage", [1, 2])
    assert [look(database, one).state for one in (waiting, running, other)] == ["done", "claimed", "ready"]
    with database.write() as session:
        tasks.finish(session, held, error="given up")
    assert (look(database, running).state, look(database, running).error) == ("failed", "given up")


def test_an_owner_at_its_limit_waits_and_the_heaviest_goes_first(database: Database) -> None:
    limits = select(literal(1).label("owner"), literal(1).label("most")).subquery()
    with database.write() as session:
        light = tasks.add(session, "stage", 1, owner=1, weight=1)
        heavy = tasks.add(session, "stage", 2, owner=1, weight=9)
        other = tasks.add(session, "stage", 3, owner=2)
    order = []
    for _ in range(3):
        with database.write() as session:
            held = tasks.take(session, ["stage"], "w", 60.0, limits)
        order.append(held.task_id if held else None)
    assert order == [heavy, other, None]
    assert light is not None
