"""A named lease in the database: of all schedulers one is active."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import delete, update
from sqlalchemy.orm import Session

from cd.store.base import insert_new, now
from cd.store.records import Lock


def hold(session: Session, name: str, holder: str, seconds: float) -> bool:
    """Take or renew the lock for `seconds`; False when somebody else holds it."""
    at = now()
    ours = {"holder": holder, "until": at + timedelta(seconds=seconds)}
    free = (Lock.name == name) & ((Lock.holder == holder) | (Lock.until < at))
    taken = session.scalar(update(Lock).where(free).values(ours).returning(Lock.name))
    if taken is None:
        new = insert_new(session.get_bind().dialect.name, Lock).values(name=name, **ours)
        taken = session.scalar(new.returning(Lock.name))
    return taken is not None


def release(session: Session, name: str, holder: str) -> None:
    """Give the lock back, if it is ours."""
    session.execute(delete(Lock).where(Lock.name == name, Lock.holder == holder))
