from __future__ import annotations

from threads import together

from cd.store import locks
from cd.store.database import Database


def hold(database: Database, holder: str, seconds: float = 60.0) -> bool:
    with database.write() as session:
        return locks.hold(session, "scheduler", holder, seconds)


def test_one_holds_until_it_gives_back_or_goes_silent(database: Database) -> None:
    assert hold(database, "a")
    assert hold(database, "a"), "its holder renews it"
    assert not hold(database, "b")
    with database.write() as session:
        locks.release(session, "scheduler", "b")
    assert not hold(database, "b"), "what is somebody else's is not given back"
    with database.write() as session:
        locks.release(session, "scheduler", "a")
    assert hold(database, "b", seconds=-1)
    assert hold(database, "a"), "a lease that is over is free"


def test_locks_of_other_names_are_others(database: Database) -> None:
    assert hold(database, "a")
    with database.write() as session:
        assert locks.hold(session, "other", "b", 60)


def test_of_many_at_once_one_holds(database: Database) -> None:
    for _ in range(5):
        assert sum(together(8, lambda number: hold(database, f"s{number}"))) == 1
        for number in range(8):
            with database.write() as session:
                locks.release(session, "scheduler", f"s{number}")
