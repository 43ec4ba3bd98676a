"""Deliveries: read and checked outside of any transaction, then stored with the run they call for in one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import structlog
from sqlalchemy import Select, exists, insert, or_, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from cd.errors import Conflict, NotFound, UserError
from cd.identity import audit
from cd.identity.vault import Vault
from cd.pipeline import projects, runs
from cd.pipeline.hosted import Spooled
from cd.pipeline.records import Project, Run
from cd.store.base import now
from cd.store.database import Database
from cd.webhooks.events import Change, Event, Ignored
from cd.webhooks.forges import FORGES
from cd.webhooks.order import Known, continues, overtaken
from cd.webhooks.records import Delivery, RejectedCount
from cd.webhooks.signature import Headers

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


def receive(session: Session, project: Project, incoming: Incoming) -> Received:
    """Store a delivery and call for its run, in the running transaction; `project` is locked by the caller.

    A second copy of a delivery is not stored again.
    """
    copy = _first_copy(session, project.id, incoming.delivery_id)
    if copy is not None:
        return copy
    decided = _decide(session, project, incoming.event)
    return _store(session, project.id, incoming, decided)


def locked(session: Session, slug: str) -> Project:
    """The project, its row locked: deliveries of one project take turns. Raises NotFound."""
    project = session.scalar(
        select(Project).where(Project.slug == slug, Project.deleted_at.is_(None)).with_for_update()
    )
    if project is None:
        raise NotFound("there is no such project", remedy="check the URL of the webhook")
    return project


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
    run = _start(session, project, event)
    delivery.outcome, delivery.reason, delivery.run_id = "run", f"replayed by {actor}", run.id
    session.flush()
    return Received(delivery.id, "run", delivery.reason, run.id, run.number)


def _first_copy(session: Session, project_id: int, delivery_id: str) -> Received | None:
    row = session.execute(
        select(Delivery.id, Delivery.run_id, Run.number)
        .outerjoin(Run, Run.id == Delivery.run_id)
        .where(Delivery.project_id == project_id, Delivery.delivery_id == delivery_id)
    ).one_or_none()
    if row is None:
        return None
    return Received(row.id, "duplicate", "this delivery was received before", row.run_id, row.number)


@dataclass(frozen=True)
class _Decided:
    outcome: str
    reason: str = ""
    run_id: int | None = None
    run: int | None = None


def _decide(session: Session, project: Project, event: Event) -> _Decided:
    if isinstance(event, Ignored):
        return _Decided("ignored", event.reason)
    newest, left_behind = _newest(session, project.id, event)
    if not continues(event, newest):
        same = session.execute(_same_commit(project.id, event)).first()
        if same is not None:
            return _Decided("duplicate", f"run #{same.number} is of this commit and ref already", same.id, same.number)
        older = overtaken(event, newest, left_behind)
        if older:
            return _Decided("ignored", older)
    run = _start(session, project, event)
    return _Decided("run", "", run.id, run.number)


def _same_commit(project_id: int, change: Change) -> Select[int, int]:
    return (
        select(Run.id, Run.number)
        .where(Run.project_id == project_id, Run.sha == change.sha, Run.ref == change.ref, Run.event != "manual")
        .order_by(Run.id.desc())
        .limit(1)
    )


def _newest(session: Session, project_id: int, change: Change) -> tuple[Known | None, bool]:
    """The newest change of the ref that is known, and whether some change of it began at this one's commit."""
    of_ref = (Delivery.project_id == project_id) & (Delivery.ref == change.ref)
    newest = session.execute(
        select(
            Delivery.sha,
            Delivery.before,
            Delivery.pushed_at,
            exists().where(of_ref, Delivery.before == change.sha, Delivery.outcome == "run").label("left_behind"),
        )
        .where(of_ref, or_(Delivery.outcome == "run", Delivery.sha.is_(None)))
        .order_by(Delivery.id.desc())
        .limit(1)
    ).first()
    if newest is None:
        return None, False
    return Known(newest.sha, newest.before, newest.pushed_at), newest.left_behind


def _start(session: Session, project: Project, change: Change) -> Run:
    return runs.create(
        session,
        project,
        event=change.event,
        ref=change.ref,
        sha=change.sha,
        message=change.message,
        author=change.author,
        pusher=change.pusher,
        trusted=change.trusted,
    )


def _store(session: Session, project_id: int, incoming: Incoming, decided: _Decided) -> Received:
    event = incoming.event
    change = event if isinstance(event, Change) else None
    gone = event if isinstance(event, Ignored) else None
    number = session.execute(
        insert(Delivery)
        .values(
            project_id=project_id,
            delivery_id=incoming.delivery_id,
            event=event.event[:64],
            headers=dict(incoming.headers),
            body=incoming.body,
            received_at=now(),
            ref=change.ref if change else gone and gone.gone,
            sha=change.sha if change else None,
            before=event.before,
            pushed_at=change.pushed_at if change else None,
            outcome=decided.outcome,
            reason=decided.reason,
            run_id=decided.run_id,
        )
        .returning(Delivery.id)
    ).scalar_one()
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
        return receive(session, locked(session, project.slug), incoming)
