"""The audit log: each entry's hash covers its content and the hash before it, so that no entry can be changed,
removed or put between without `verify` finding it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from cd.identity.records import AuditEntry
from cd.store.base import now

FIRST = "0" * 64
#: Advisory lock of writers on PostgreSQL: the chain has one end.
AUDIT_LOCK = 0x70777475


def append(session: Session, actor: str, action: str, subject: str, **detail: Any) -> None:
    """Add one decision to the running transaction. `detail` must be JSON."""
    if session.get_bind().dialect.name == "postgresql":
        session.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": AUDIT_LOCK})
    previous = session.scalar(select(AuditEntry.hash).order_by(AuditEntry.id.desc()).limit(1)) or FIRST
    entry = AuditEntry(
        at=now().replace(microsecond=0),  # so that every database gives back the very same time
        actor=_text(actor)[:64],
        action=action,
        subject=_text(subject),
        detail=json.loads(_text(json.dumps(detail))),
        previous=previous,
    )
    entry.hash = _hash(entry)
    session.add(entry)
    session.flush()


def _text(value: str) -> str:
    """PostgreSQL takes no NUL, in JSON neither."""
    return value.replace("\0", "\N{REPLACEMENT CHARACTER}").replace("\\u0000", "\\ufffd")


def _hash(entry: AuditEntry) -> str:
    told = [entry.previous, entry.at.isoformat(), entry.actor, entry.action, entry.subject, entry.detail]
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def verify(session: Session) -> str | None:
    """Follow the chain from its beginning: what is broken, or None. Entries cut off at the end can't be seen."""
    previous = FIRST
    for entry in session.scalars(select(AuditEntry).order_by(AuditEntry.id).execution_options(yield_per=500)):
        if entry.previous != previous:
            return f"entry {entry.id} does not follow the one before it: something was removed or put between"
        if entry.hash != _hash(entry):
            return f"entry {entry.id} was changed after it was written"
        previous = entry.hash
    return None


def entries(session: Session, before: int | None = None, limit: int = 100) -> Sequence[AuditEntry]:
    """The newest entries with an id below `before`, newest first."""
    query = select(AuditEntry).order_by(AuditEntry.id.desc()).limit(limit)
    return session.scalars(query if before is None else query.where(AuditEntry.id < before)).all()
