from __future__ import annotations

import random
import threading

from sqlalchemy import update
from threads import together

from cd.pipeline.records import Project
from cd.store import events
from cd.store.base import now
from cd.store.database import Database
from cd.store.tasks import Ring


def test_events_come_in_order_and_after_a_cursor(database: Database) -> None:
    with database.read() as session:
        assert events.newest(session) == 0
    with database.write() as session:
        events.append(session, "run.queued", project_id=None, run_id=3, subject=3, number=7)
        events.append(session, "run.running", project_id=None, run_id=3, subject=3)
    with database.read() as session:
        first, second = events.after(session, 0)
        assert (first.kind, first.run_id, first.data) == ("run.queued", 3, {"number": 7})
        assert [event.id for event in events.after(session, first.id)] == [second.id] == [events.newest(session)]
        assert len(events.after(session, 0, limit=1)) == 1
        assert abs((now() - first.at).total_seconds()) < 60


def test_listeners_are_told_after_the_commit_and_only_of_events(database: Database) -> None:
    told: list[bool] = []

    def doorbell(rings: list[Ring], changed: bool) -> None:
        with database.read() as session:
            assert events.newest(session) > 0
        told.append(changed)

    database._doorbell = doorbell
    with database.write() as session:
        events.append(session, "run.queued", project_id=None)
        assert told == []
    with database.write():
        pass
    assert told == [True]


def test_a_reader_that_keeps_a_cursor_misses_none_of_many_writers(database: Database) -> None:
    """Ids would overtake each other: one that began earlier may commit later, below the reader's cursor."""
    done = threading.Event()
    seen: list[int] = []

    def read() -> None:
        cursor = 0
        while True:
            last = done.is_set()
            with database.read() as session:
                fresh = [event.id for event in events.after(session, cursor)]
            seen.extend(fresh)
            cursor = max([cursor, *fresh])
            if last and not fresh:
                return

    def write(number: int) -> None:
        chance = random.Random(number)
        for _ in range(25):
            with database.write() as session:
                events.append(session, "x", project_id=None, subject=number)
                for _ in range(chance.randrange(6)):
                    events.newest(session)

    reader = threading.Thread(target=read)
    reader.start()
    together(8, write)
    done.set()
    reader.join()
    assert len(seen) == 200
    assert seen == sorted(set(seen))


def test_writers_that_touch_the_same_things_in_any_order_all_come_through(database: Database) -> None:
    """A push that numbers its run while a run ends and numbers its release: neither may be lost to a deadlock."""
    with database.write() as session:
        session.add(Project(id=1, slug="p", forge="generic", webhook_secret=b"", created_at=now()))

    def write(number: int) -> None:
        for _ in range(10):
            with database.write() as session:
                if number % 2:
                    events.append(session, "x", project_id=1)
                session.execute(update(Project).values(next_run=Project.next_run + 1))
                if not number % 2:
                    events.append(session, "x", project_id=1)

    together(8, write)
    with database.read() as session:
        assert session.get_one(Project, 1).next_run == 81
        assert len(events.after(session, 0)) == 80
