"""The audit log: each entry's hash covers its content and the hash before it, so that no entry can be changed,
removed or put between without `verify` finding it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from cd.identity.records import AuditEntry
from cd.store.base import now
from cd.store.database import lock_events
from cd.store.records import Fact

FIRST = "0" * 64
#: Fact that holds id and hash of the newest entry, so that cutting off the end is seen.
END = "audit.end"


def append(session: Session, actor: str, action: str, subject: str, **detail: Any) -> None:
    """Add one decision to the running transaction. `detail` must be JSON."""
    # The chain has one end, so writers take turns; one lock for both, or audit and events could wait for each other.
    lock_events(session)
    previous = session.scalar(select(AuditEntry.hash).order_by(AuditEntry.id.desc()).limit(1)) or FIRST
    entry = AuditEntry(
        at=now().replace(microsecond=0),  # so that every database gives back the very same time
        actor=_text(actor)[:64],
        action=action,
        subject=_text(subject),
        detail=json.loads(_text(json.dumps(detail, ensure_ascii=False))),
        previous=previous,
    )
    entry.hash = _hash(entry)
    session.add(entry)
    session.flush()
    session.merge(Fact(name=END, value=f"{entry.id} {entry.hash}"))


def _text(value: str) -> str:
    """PostgreSQL takes no NUL, in JSON neither, and half a surrogate pair is no text at all."""
    value = value.encode(errors="replace").decode()
    return value.replace("\0", "\N{REPLACEMENT CHARACTER}").replace("\\u0000", "\\ufffd")


def _hash(entry: AuditEntry) -> str:
    told = [entry.previous, entry.at.isoformat(), entry.actor, entry.action, entry.subject, entry.detail]
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def verify(session: Session) -> str | None:
    """Follow the chain from its beginning to the end that was noted: what is broken, or None."""
    previous, last = FIRST, 0
    with session.scalars(select(AuditEntry).order_by(AuditEntry.id).execution_options(yield_per=500)) as entries:
        for entry in entries:
            if entry.previous != previous:
                return f"entry {entry.id} does not follow the one before it: something was removed or put between"
            if entry.hash != _hash(entry):
                return f"entry {entry.id} was changed after it was written"
            previous, last = entry.hash, entry.id
    noted = session.get(Fact, END)
    if (noted.value if noted else "") != (f"{last} {previous}" if last else ""):
        return f"the log does not end as it should after entry {last}: entries were cut off, or its end was changed"
    return None


def entries(session: Session, before: int | None = None, limit: int = 100) -> Sequence[AuditEntry]:
    """The newest entries with an id below `before`, newest first."""
    query = select(AuditEntry).order_by(AuditEntry.id.desc()).limit(limit)
    return session.scalars(query if before is None else query.where(AuditEntry.id < before)).all()
