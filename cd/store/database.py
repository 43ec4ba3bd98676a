"""Sessions: `read()` for looking, `write()` for one short transaction that rings the doorbell after it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import structlog
from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.orm import Session
from sqlalchemy.pool import ConnectionPoolEntry

from cd.errors import ServiceError

log = structlog.get_logger()

#: Called after a commit with the tasks to ring (`cd.store.tasks.Ring`) and whether events were written.
Doorbell = Callable[[list[Any], bool], None]

#: Any number, the same everywhere: on PostgreSQL a writing transaction holds this advisory lock.
EVENT_LOCK = 0x70777470
#: A writer that stops in the middle, such as a process that was halted, loses its transaction after this long.
LONGEST_PAUSE = "15s"


class Database:
    """The one place that opens sessions.

    Writes take turns, on both databases: so events are committed in the order of their ids, and no two
    transactions can each hold what the other one waits for. On SQLite the write lock is taken at the start (BEGIN
    IMMEDIATE), since a transaction that begins as a reader and then writes is refused at once, whatever the busy
    timeout says; on PostgreSQL it is an advisory lock.
    """

    def __init__(self, url: str, doorbell: Doorbell = lambda tasks, events: None) -> None:
        self.url = url
        self.engine = _engine(url)
        self.sqlite = self.engine.dialect.name == "sqlite"
        self._doorbell = doorbell
        self._writer = self.engine.execution_options(towpath_writer=True)
        # SQLite's own wait for the write lock is a poll with growing naps; threads of one process queue here.
        self._turn: Any = threading.Lock() if self.sqlite else nullcontext()

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A session to look with; nothing it does is kept."""
        with _translated(self.url), Session(self.engine, expire_on_commit=False) as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """One transaction: committed at the end, rolled back on any error; then what it asked for is rung."""
        with _translated(self.url), Session(self._writer, expire_on_commit=False) as session:
            with self._turn:
                with session.begin():
                    self._begin(session)
                    yield session
        rings, events = session.info.get("rings", []), bool(session.info.get("events"))
        if rings or events:
            self._doorbell(rings, events)

    def _begin(self, session: Session) -> None:
        if not self.sqlite:
            session.execute(
                text(
                    "SELECT pg_advisory_xact_lock(:lock),"
                    " set_config('idle_in_transaction_session_timeout', :pause, true)"
                ),
                {"lock": EVENT_LOCK, "pause": LONGEST_PAUSE},
            )

    @contextmanager
    def rehearsal(self) -> Iterator[Session]:
        """A writing session of which nothing is kept and nothing is rung."""
        with _translated(self.url), Session(self._writer, expire_on_commit=False) as session:
            with self._turn, session.begin() as transaction:
                yield session
                transaction.rollback()

    def after_fork(self) -> None:
        """In a forked child: forget the parent's connections without closing them, take a lock of its own."""
        self.engine.dispose(close=False)
        if self.sqlite:
            self._turn = threading.Lock()

    def close(self) -> None:
        """Close all pooled connections."""
        self.engine.dispose()


def _engine(url: str) -> Engine:
    if not url.startswith("sqlite"):
        return create_engine(url, pool_pre_ping=True, pool_size=5, max_overflow=40)
    engine = create_engine(url, connect_args={"timeout": 15, "check_same_thread": False}, pool_size=5, max_overflow=200)
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: Any, _: ConnectionPoolEntry) -> None:
    connection.isolation_level = None  # the driver must not begin transactions by itself
    for pragma in (
        "journal_mode=WAL",
        "synchronous=NORMAL",
        "foreign_keys=ON",
        "cache_size=-4096",
        "mmap_size=0",
    ):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Connection) -> None:
    writer = connection.get_execution_options().get("towpath_writer")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writer else "BEGIN")


def lock_events(session: Session) -> None:
    """Say that this transaction writes events, so that listeners are told after it; writers take turns anyway."""
    session.info["events"] = True


@contextmanager
def _translated(url: str) -> Iterator[None]:
    try:
        yield
    except OperationalError as error:
        raise _service_error(url, error) from error
    except DBAPIError as error:
        if error.connection_invalidated:
            raise _service_error(url, error) from error
        raise


def _service_error(url: str, error: DBAPIError) -> ServiceError:
    reason = str(error.orig).strip().splitlines()[0] if str(error.orig).strip() else "no reason given"
    if "locked" in reason or "busy" in reason:
        return ServiceError(
            "the database is locked by another program", remedy="close it, or use PostgreSQL for many writers"
        )
    if "full" in reason:
        return ServiceError("the disk of the database is full", remedy="free some space; nothing was lost")
    where = url.rsplit("@", maxsplit=1)[-1]
    return ServiceError(f"the database {where} does not answer: {reason}", remedy="check TOWPATH_DATABASE_URL")
