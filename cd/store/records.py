"""Tables that belong to no single feature: background tasks, the event stream, locks and facts."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, BigInteger, ForeignKey, Index, Integer, String, Text, text
from sqlalchemy.orm import Mapped, mapped_column

from cd.store.base import Base, UTCDateTime

#: SQLite numbers rows by itself only in a column that is exactly INTEGER.
Id = BigInteger().with_variant(Integer, "sqlite")


class Task(Base):
    """One piece of background work. Written in the transaction that calls for it; see `cd.store.tasks`."""

    __tablename__ = "task"

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    kind: Mapped[str] = mapped_column(String(32))
    #: Id of the row that the work is about; which table it is in follows from `kind`.
    subject: Mapped[int] = mapped_column(Id)
    #: Whose work it is: a project's id, None for Towpath's own.
    owner: Mapped[int | None] = mapped_column(Id)
    #: Seconds of work that depend on this task, itself included; of one owner's tasks the largest goes first.
    weight: Mapped[float] = mapped_column(default=0.0, server_default=text("0"))
    state: Mapped[str] = mapped_column(String(16), default="ready")
    fence: Mapped[int] = mapped_column(default=0)
    #: Failed attempts so far; a claim lost with its worker is not one.
    attempts: Mapped[int] = mapped_column(default=0)
    worker: Mapped[str | None] = mapped_column(String(128))
    lease_until: Mapped[datetime | None] = mapped_column(UTCDateTime)
    not_before: Mapped[datetime] = mapped_column(UTCDateTime)
    rung_at: Mapped[datetime | None] = mapped_column(UTCDateTime)
    created_at: Mapped[datetime] = mapped_column(UTCDateTime)
    finished_at: Mapped[datetime | None] = mapped_column(UTCDateTime)
    error: Mapped[str | None] = mapped_column(Text)

    __table_args__ = (
        Index(
            "uq_task_open",
            "kind",
            "subject",
            unique=True,
            sqlite_where=text("state IN ('ready', 'claimed')"),
            postgresql_where=text("state IN ('ready', 'claimed')"),
        ),
        Index(
            "ix_task_open_state",
            "state",
            "not_before",
            sqlite_where=text("state IN ('ready', 'claimed')"),
            postgresql_where=text("state IN ('ready', 'claimed')"),
        ),
    )


class Event(Base):
    """One change of state, appended in the transaction that made it. Ids grow in the order of commits."""

    __tablename__ = "event"

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    at: Mapped[datetime] = mapped_column(UTCDateTime)
    #: What changed and to what, such as `run.passed` or `promotion.succeeded`.
    kind: Mapped[str] = mapped_column(String(64))
    project_id: Mapped[int | None] = mapped_column(Id, ForeignKey("project.id"))
    run_id: Mapped[int | None] = mapped_column(Id, index=True)
    subject: Mapped[int | None] = mapped_column(Id)
    data: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)

    __table_args__ = ({"sqlite_autoincrement": True},)


class Lock(Base):
    """A named lease, so that one of many schedulers is the active one."""

    __tablename__ = "lock"

    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    holder: Mapped[str] = mapped_column(String(128))
    until: Mapped[datetime] = mapped_column(UTCDateTime)


class Fact(Base):
    """One lasting fact about this installation, such as its instance id."""

    __tablename__ = "fact"

    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    value: Mapped[str] = mapped_column(Text)
