"""A named lease in the database: of all schedulers one is active."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import delete, insert, select, update
from sqlalchemy.orm import Session

from cd.store.base import now
from cd.store.records import Lock


def hold(session: Session, name: str, holder: str, seconds: float) -> bool:
    """Take or renew the lock for `seconds`; False when somebody else holds it."""
    at = now()
    taken = session.execute(
        update(Lock)
        .where(Lock.name == name, (Lock.holder == holder) | (Lock.until < at))
        .values(holder=holder, until=at + timedelta(seconds=seconds))
        .returning(Lock.name)
    ).one_or_none()
    if taken is not None:
        return True
    if session.scalar(select(Lock.name).where(Lock.name == name)) is not None:
        return False
    session.execute(insert(Lock).values(name=name, holder=holder, until=at + timedelta(seconds=seconds)))
    return True


def release(session: Session, name: str, holder: str) -> None:
    """Give the lock back, if it is ours."""
    session.execute(delete(Lock).where(Lock.name == name, Lock.holder == holder))
