"""The task table: what is to be done. A claim is a lease with a fence; whoever lost it can't write any more."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

from sqlalchemy import ColumnElement, Subquery, func, or_, select, update
from sqlalchemy.orm import Session

from cd.errors import StaleWrite
from cd.store.base import insert_new, now
from cd.store.records import Task

#: A task that failed by Towpath's or an engine's fault this often is given up.
MAX_ATTEMPTS = 5
#: A ready task that nobody took this long after its ring is rung again.
RING_AGAIN = timedelta(seconds=3)


class Ring(NamedTuple):
    """What the doorbell needs to know of a task: its kind chooses the queue."""

    task_id: int
    kind: str


@dataclass(frozen=True)
class Claim:
    """The right to do one task until `until`, proven by `fence`."""

    task_id: int
    kind: str
    subject: int
    fence: int
    attempts: int


# Made once and run without the ORM: this stands in the way of every push.
_ADD = {dialect: insert_new(dialect, Task).returning(Task.id) for dialect in ("sqlite", "postgresql")}


def add(
    session: Session, kind: str, subject: int, *, owner: int | None = None, weight: float = 0.0, delay: float = 0.0
) -> int | None:
    """Put work into the running transaction; it is rung after the commit.

    Returns the task's id, or None when the same work is open already. `owner` is the project that it is done for,
    `weight` the seconds of work that depend on it, `delay` in seconds.
    """
    connection = session.connection()
    at = now()
    task_id: int | None = connection.execute(
        _ADD[connection.dialect.name],
        {
            "kind": kind,
            "subject": subject,
            "owner": owner,
            "weight": weight,
            "state": "ready",
            "fence": 0,
            "attempts": 0,
            "created_at": at,
            "not_before": at + timedelta(seconds=delay),
            "rung_at": None if delay else at,
        },
    ).scalar_one_or_none()
    if task_id is not None and not delay:
        session.info.setdefault("rings", []).append(Ring(task_id, kind))
    return task_id


def claim(session: Session, task_id: int, worker: str, lease: float) -> Claim | None:
    """Take a ready task for `lease` seconds; None when it is done, taken, or not due yet."""
    at = now()
    row = session.execute(
        update(Task)
        .where(Task.id == task_id, Task.state == "ready", Task.not_before <= at)
        .values(state="claimed", fence=Task.fence + 1, worker=worker, lease_until=at + timedelta(seconds=lease))
        .returning(Task.kind, Task.subject, Task.fence, Task.attempts)
    ).one_or_none()
    if row is None:
        return None
    return Claim(task_id, row.kind, row.subject, row.fence, row.attempts)


def take(session: Session, kinds: Collection[str], worker: str, lease: float, limits: Subquery) -> Claim | None:
    """Take the best of all ready tasks of these kinds for `lease` seconds; None when there is none.

    First whose owner has the fewest tasks at work, then what most work depends on, then the oldest. `limits` has for
    owners (column `owner`) the most tasks that they may have at work (`most`); an owner at its limit waits.
    """
    at = now()
    busy = (
        select(Task.owner, func.count().label("count"))
        .where(Task.state == "claimed", Task.owner.is_not(None))
        .group_by(Task.owner)
        .subquery()
    )
    count = func.coalesce(busy.c.count, 0)
    best = session.scalar(
        select(Task.id)
        .outerjoin(busy, busy.c.owner == Task.owner)
        .outerjoin(limits, limits.c.owner == Task.owner)
        .where(
            Task.state == "ready",
            Task.not_before <= at,
            Task.kind.in_(kinds),
            or_(limits.c.most.is_(None), count < limits.c.most),
        )
        .order_by(count, Task.weight.desc(), Task.id)
        .limit(1)
    )
    return None if best is None else claim(session, best, worker, lease)


def renew(session: Session, claim: Claim, lease: float) -> None:
    """Hold the claim for `lease` more seconds from now. Raises StaleWrite when it is lost."""
    _held(session, claim, lease_until=now() + timedelta(seconds=lease))


def finish(session: Session, claim: Claim, error: str | None = None) -> None:
    """The task is done (or given up, with the reason). Raises StaleWrite when the claim is lost."""
    _held(
        session,
        claim,
        state="failed" if error else "done",
        error=error,
        finished_at=now(),
        lease_until=None,
    )


def put_back(session: Session, claim: Claim, error: str, delay: float) -> None:
    """Return the task to be tried again in `delay` seconds. Raises StaleWrite when the claim is lost."""
    _held(
        session,
        claim,
        state="ready",
        attempts=claim.attempts + 1,
        error=error,
        worker=None,
        lease_until=None,
        not_before=now() + timedelta(seconds=delay),
        rung_at=None,
    )


def check(session: Session, claim: Claim) -> None:
    """Raises StaleWrite unless the claim is still ours; locks the row to the end of the transaction."""
    _held(session, claim, worker=Task.worker)


def _held(session: Session, claim: Claim, **values: object) -> None:
    changed = session.execute(
        update(Task)
        .where(Task.id == claim.task_id, Task.state == "claimed", Task.fence == claim.fence)
        .values(**values)
        .returning(Task.id)
    ).one_or_none()
    if changed is None:
        raise StaleWrite(f"task {claim.task_id} is no longer ours at fence {claim.fence}")


def cancel(session: Session, kind: str, subjects: Sequence[int]) -> None:
    """Drop tasks of that kind that nobody has taken yet."""
    session.execute(
        update(Task)
        .where(Task.kind == kind, Task.subject.in_(subjects), Task.state == "ready")
        .values(state="done", error="canceled", finished_at=now())
    )


def release_expired(session: Session, at: datetime) -> list[Ring]:
    """Make tasks whose holder went silent ready again, and ring them. The fence moves when they are taken."""
    return _release(session, at, Task.lease_until < at)


def release_of(session: Session, worker: str) -> list[Ring]:
    """Make the tasks of a worker that is known to be dead ready again, and ring them."""
    return _release(session, now(), Task.worker == worker)


def _release(session: Session, at: datetime, whose: ColumnElement[bool]) -> list[Ring]:
    freed = session.execute(
        update(Task)
        .where(Task.state == "claimed", whose)
        .values(state="ready", worker=None, lease_until=None, rung_at=at)
        .returning(Task.id, Task.kind)
    )
    rings = [Ring(*row) for row in freed]
    session.info.setdefault("rings", []).extend(rings)
    return rings


def due(session: Session, at: datetime, limit: int = 1000) -> list[Ring]:
    """Ready tasks that should be rung (again): never rung, or rung a while ago and not taken."""
    rows = session.execute(
        select(Task.id, Task.kind)
        .where(
            Task.state == "ready",
            Task.not_before <= at,
            or_(Task.rung_at.is_(None), Task.rung_at < at - RING_AGAIN),
        )
        .order_by(Task.id)
        .limit(limit)
    )
    return [Ring(*row) for row in rows]


def expired(session: Session, at: datetime) -> bool:
    """Whether any holder of a task went silent."""
    return session.scalar(select(Task.id).where(Task.state == "claimed", Task.lease_until < at).limit(1)) is not None


def mark_rung(session: Session, rings: Sequence[Ring], at: datetime) -> None:
    """Remember when these were rung, and ring them after this transaction."""
    session.execute(
        update(Task).where(Task.id.in_([ring.task_id for ring in rings]), Task.state == "ready").values(rung_at=at)
    )
    session.info.setdefault("rings", []).extend(rings)
