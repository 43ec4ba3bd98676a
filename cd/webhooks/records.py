"""Tables of received webhooks."""

from __future__ import annotations

from datetime import date, datetime

from sqlalchemy import JSON, Date, ForeignKey, Index, LargeBinary, String, Text, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from cd.store.base import Base, UTCDateTime
from cd.store.records import Id

#: Deliveries that say where a ref is: those that started a run, and the ref's deletion.
COUNTS = text("outcome = 'run' OR sha IS NULL")


class Delivery(Base):
    """One received webhook, with the raw bytes that its signature covers."""

    __tablename__ = "delivery"

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    project_id: Mapped[int] = mapped_column(Id, ForeignKey("project.id"))
    #: The forge's id of it, by which a second copy is known.
    delivery_id: Mapped[str] = mapped_column(String(200))
    event: Mapped[str] = mapped_column(String(64))
    headers: Mapped[dict[str, str]] = mapped_column(JSON)
    body: Mapped[bytes] = mapped_column(LargeBinary)
    received_at: Mapped[datetime] = mapped_column(UTCDateTime)
    #: Full ref that it is about; None for an event about none.
    ref: Mapped[str | None] = mapped_column(Text)
    #: Where the ref went, and where it was before; None when there is no such commit, as after its deletion.
    sha: Mapped[str | None] = mapped_column(String(64))
    before: Mapped[str | None] = mapped_column(String(64))
    #: When it was pushed, by the forge's clock; None where the forge does not say.
    pushed_at: Mapped[datetime | None] = mapped_column(UTCDateTime)
    #: run, ignored, or duplicate (another delivery of the same ref and commit).
    outcome: Mapped[str] = mapped_column(String(16))
    reason: Mapped[str] = mapped_column(Text, default="")
    run_id: Mapped[int | None] = mapped_column(Id, ForeignKey("run.id"))

    __table_args__ = (
        UniqueConstraint("project_id", "delivery_id"),
        Index("ix_delivery_project_received", "project_id", "received_at"),
        Index("ix_delivery_newest", "project_id", "ref", "id", sqlite_where=COUNTS, postgresql_where=COUNTS),
        Index("ix_delivery_before", "project_id", "ref", "before"),
    )


class RejectedCount(Base):
    """How many requests a project refused for their signature on a day; nothing else is kept of them."""

    __tablename__ = "rejected_count"

    project_id: Mapped[int] = mapped_column(ForeignKey("project.id"), primary_key=True)
    day: Mapped[date] = mapped_column(Date, primary_key=True)
    count: Mapped[int] = mapped_column(default=0)
