"""Deliveries: read and checked outside of any transaction, then stored with the run they call for in one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import structlog
from sqlalchemy import select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from cd.errors import Conflict, NotFound, UserError
from cd.identity import audit
from cd.identity.vault import Vault
from cd.pipeline import projects, runs
from cd.pipeline.hosted import Spooled
from cd.pipeline.records import Project
from cd.pipeline.runs import Created
from cd.store.base import now
from cd.store.database import Database
from cd.webhooks import statements
from cd.webhooks.events import Change, Event, Ignored
from cd.webhooks.forges import FORGES
from cd.webhooks.order import continues, overtaken
from cd.webhooks.records import Delivery, RejectedCount
from cd.webhooks.signature import Headers
from cd.webhooks.statements import Known

log = structlog.get_logger()

MAX_HEADER = 1024


@dataclass(frozen=True)
class Incoming:
    """A delivery whose signature is right."""

    delivery_id: str
    event: Event
    #: Those of its headers that are stored.
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class Received:
    """What became of a delivery. `outcome` is run, ignored or duplicate."""

    delivery: int
    outcome: str
    reason: str = ""
    #: The run that it started, or that the same commit has already: its id and number.
    run_id: int | None = None
    run: int | None = None


def read(forge: str, secret: str, headers: Headers, body: bytes, at: float) -> Incoming:
    """Check the signature, then understand the payload. Header names in lower case, `at` is Unix time now.

    Raises Unauthorized for the signature, UserError for anything else that is wrong with it.
    """
    module = FORGES.get(forge)
    if module is None:
        raise UserError(f"webhooks of {forge!r} are not understood", remedy=f"known: {', '.join(FORGES)}")
    module.verify(secret, headers, body, at)
    kept = {name: value[:MAX_HEADER] for name, value in headers.items() if name.startswith(module.KEPT)}
    return Incoming(module.delivery_id(headers), module.event(headers, body), kept, body)


def receive(session: Session, project_id: int, incoming: Incoming) -> Received:
    """Store a delivery and call for its run, in the running transaction; the project is locked by the caller.

    A second copy of a delivery is not stored again.
    """
    known = statements.look_up(session, project_id, incoming.delivery_id, incoming.event)
    if known.copy is not None:
        reason = "this delivery was received before"
        return Received(known.copy.id, "duplicate", reason, known.copy.run_id, known.copy.run)
    decided = _decide(session, project_id, incoming.event, known)
    return _store(session, project_id, incoming, decided)


def count_rejected(session: Session, project_id: int) -> None:
    """One more request was refused today; nothing else of it is kept."""
    dialect = postgresql if session.get_bind().dialect.name == "postgresql" else sqlite
    session.execute(
        dialect.insert(RejectedCount)
        .values(project_id=project_id, day=now().date(), count=1)
        .on_conflict_do_update(index_elements=["project_id", "day"], set_={"count": RejectedCount.count + 1})
    )


def rejected(session: Session, project_id: int) -> int:
    """How many requests were refused today."""
    count = session.scalar(
        select(RejectedCount.count).where(RejectedCount.project_id == project_id, RejectedCount.day == now().date())
    )
    return count or 0


def replay(session: Session, delivery: Delivery, actor: str) -> Received:
    """Do again what a stored delivery calls for, because a person says so: whatever else has run since.

    Raises Conflict when the project is gone, UserError when it still calls for nothing.
    """
    project = session.scalars(select(Project).where(Project.id == delivery.project_id).with_for_update()).one()
    if project.deleted_at is not None:
        raise Conflict("the project of this delivery was deleted")
    event = FORGES[project.forge].event(delivery.headers, delivery.body)
    audit.append(session, actor, "delivery.replay", f"delivery/{delivery.id}", project=project.slug)
    if isinstance(event, Ignored):
        return Received(delivery.id, "ignored", event.reason)
    run = _start(session, project.id, event, superseding=False)
    delivery.outcome, delivery.reason, delivery.run_id = "run", f"replayed by {actor}", run.id
    session.flush()
    return Received(delivery.id, "run", delivery.reason, run.id, run.number)


@dataclass(frozen=True)
class _Decided:
    outcome: str
    reason: str = ""
    run_id: int | None = None
    run: int | None = None


def _decide(session: Session, project_id: int, event: Event, known: Known) -> _Decided:
    if isinstance(event, Ignored):
        return _Decided("ignored", event.reason)
    if not continues(event, known.newest):
        if known.same is not None:
            reason = f"run #{known.same.run} is of this commit and ref already"
            return _Decided("duplicate", reason, known.same.run_id, known.same.run)
        older = overtaken(event, known.newest, known.left_behind)
        if older:
            return _Decided("ignored", older)
    run = _start(session, project_id, event)
    return _Decided("run", "", run.id, run.number)


def _start(session: Session, project_id: int, change: Change, *, superseding: bool = True) -> Created:
    return runs.enqueue(
        session,
        project_id,
        superseding=superseding,
        event=change.event,
        ref=change.ref,
        sha=change.sha,
        before=change.since,
        message=change.message,
        author=change.author,
        pusher=change.pusher,
        trusted=change.trusted,
    )


def _store(session: Session, project_id: int, incoming: Incoming, decided: _Decided) -> Received:
    event = incoming.event
    values = {
        "project_id": project_id,
        "delivery_id": incoming.delivery_id,
        "event": event.event[:64],
        "headers": dict(incoming.headers),
        "body": incoming.body,
        "received_at": now(),
        "before": event.before,
        "outcome": decided.outcome,
        "reason": decided.reason,
        "run_id": decided.run_id,
        **(
            {"ref": event.ref, "sha": event.sha, "pushed_at": event.pushed_at}
            if isinstance(event, Change)
            else {"ref": event.gone, "sha": None, "pushed_at": None}
        ),
    }
    number = statements.add(session, values)
    return Received(number, decided.outcome, decided.reason, decided.run_id, decided.run)


def receive_spooled(database: Database, vault: Vault, spooled: Spooled) -> None:
    """Take a push that the hook of a hosted repository kept while Towpath was away.

    What can never be taken is put aside and said in the log; ServiceError leaves it for the next time.
    """
    try:
        received = _receive_spooled(database, vault, spooled)
    except UserError as error:
        log.warning("delivery.refused", project=spooled.project_id, path=str(spooled.path), reason=str(error))
        spooled.refuse()
        return
    log.info("delivery.recovered", project=spooled.project_id, outcome=received.outcome, run=received.run)
    spooled.done()


def _receive_spooled(database: Database, vault: Vault, spooled: Spooled) -> Received:
    with database.read() as session:
        project = session.get(Project, spooled.project_id)
    if project is None or project.deleted_at is not None:
        raise NotFound("the project of this repository was deleted")
    secret = projects.secret(vault, project)
    incoming = read(project.forge, secret, spooled.headers, spooled.body, now().timestamp())
    with database.write() as session:
        return receive(session, statements.lock(session, project.slug).id, incoming)
