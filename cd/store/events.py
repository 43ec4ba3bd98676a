"""The stream of state changes that pages, the API, metrics and notifications read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import func, insert, select
from sqlalchemy.orm import Session

from cd.store.base import now
from cd.store.database import lock_events
from cd.store.records import Event

#: Made once and run without the ORM: each change of state comes by here.
_APPEND = insert(Event)


def append(
    session: Session,
    kind: str,
    *,
    project_id: int | None,
    run_id: int | None = None,
    subject: int | None = None,
    **data: Any,
) -> None:
    """Add one event to the running transaction. `data` must be JSON."""
    if not session.info.get("events"):
        lock_events(session)
    session.connection().execute(
        _APPEND,
        {
            "at": now(),
            "kind": kind,
            "project_id": project_id,
            "run_id": run_id,
            "subject": subject,
            "data": data,
        },
    )


def append_many(session: Session, kind: str, subjects: Sequence[int], *, project_id: int, run_id: int | None) -> None:
    """The same for many subjects at once, in their order."""
    if not subjects:
        return
    if not session.info.get("events"):
        lock_events(session)
    shared = {"at": now(), "kind": kind, "project_id": project_id, "run_id": run_id, "data": {}}
    session.connection().execute(_APPEND, [{**shared, "subject": subject} for subject in subjects])


def after(session: Session, cursor: int, limit: int = 500) -> Sequence[Event]:
    """Events with an id over `cursor`, oldest first."""
    return session.scalars(select(Event).where(Event.id > cursor).order_by(Event.id).limit(limit)).all()


def newest(session: Session) -> int:
    """Id of the last event, 0 when there is none."""
    return session.scalar(select(func.max(Event.id))) or 0
