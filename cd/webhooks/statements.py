"""The SQL of the way of a push: made once, run without the ORM, one look for all that is known before."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import String, bindparam, exists, insert, literal, literal_column, or_, select, true
from sqlalchemy.orm import Session

from cd.errors import NotFound
from cd.pipeline.records import Project, Run
from cd.store.records import Id
from cd.webhooks.events import Change, Event
from cd.webhooks.order import Newest
from cd.webhooks.records import Delivery


class Locked(NamedTuple):
    """A project, locked to the end of the transaction. `secret` as it is stored."""

    id: int
    forge: str
    secret: bytes


@dataclass(frozen=True)
class Earlier:
    """A delivery or run that came before: ids, and the run's number."""

    id: int
    run_id: int | None
    run: int | None


@dataclass(frozen=True)
class Known:
    """All that is known of a delivery's id, commit and ref."""

    #: The first copy of this delivery.
    copy: Earlier | None
    #: The newest run that a delivery of this commit and ref started.
    same: Earlier | None
    newest: Newest | None
    #: Whether some change of the ref began at this commit.
    left_behind: bool


_project, _name = bindparam("of_project", type_=Id), bindparam("with_id", type_=String())
_sha, _ref = bindparam("of_sha", type_=String()), bindparam("of_ref", type_=String())

_LOCK = (
    select(Project.id, Project.forge, Project.webhook_secret)
    .where(Project.slug == bindparam("with_slug"), Project.deleted_at.is_(None))
    .with_for_update()
)
_copy = (
    select(Delivery.id, Delivery.run_id, Run.number)
    .outerjoin(Run, Run.id == Delivery.run_id)
    .where(Delivery.project_id == _project, Delivery.delivery_id == _name)
    .limit(1)
    .subquery("copy")
)
_same = (
    select(Run.id, Run.number)
    .where(Run.project_id == _project, Run.sha == _sha, Run.ref == _ref, Run.event != "manual")
    .order_by(Run.id.desc())
    .limit(1)
    .subquery("same")
)
_of_ref = (Delivery.project_id == _project) & (Delivery.ref == _ref)
_newest = (
    select(Delivery.id, Delivery.sha, Delivery.before, Delivery.pushed_at)
    # Written as the index has it, or the index would not be used.
    .where(_of_ref, or_(Delivery.outcome == literal_column("'run'"), Delivery.sha.is_(None)))
    .order_by(Delivery.id.desc())
    .limit(1)
    .subquery("newest")
)
_one = select(literal(1).label("one")).subquery("one")
_LOOK_UP = (
    select(
        _copy.c.id,
        _copy.c.run_id,
        _copy.c.number,
        _same.c.id,
        _same.c.number,
        _newest.c.id,
        _newest.c.sha,
        _newest.c.before,
        _newest.c.pushed_at,
        exists().where(_of_ref, Delivery.before == _sha, Delivery.outcome == "run"),
    )
    .select_from(_one)
    .outerjoin(_copy, true())
    .outerjoin(_same, true())
    .outerjoin(_newest, true())
)
_ADD = insert(Delivery).returning(Delivery.id)


def lock(session: Session, slug: str) -> Locked:
    """Lock the project: deliveries of one project take turns. Raises NotFound."""
    row = session.connection().execute(_LOCK, {"with_slug": slug}).one_or_none()
    if row is None:
        raise NotFound("there is no such project", remedy="check the URL of the webhook")
    return Locked(*row)


def look_up(session: Session, project_id: int, delivery_id: str, event: Event) -> Known:
    """What is known before this delivery is stored; see Known."""
    change = event if isinstance(event, Change) else None
    copy, copy_run, copy_number, same, number, newest, sha, before, pushed_at, left_behind = (
        session.connection()
        .execute(
            _LOOK_UP,
            {
                "of_project": project_id,
                "with_id": delivery_id,
                "of_sha": change.sha if change else "",
                "of_ref": change.ref if change else "",
            },
        )
        .one()
    )
    return Known(
        Earlier(copy, copy_run, copy_number) if copy is not None else None,
        Earlier(same, same, number) if same is not None else None,
        Newest(sha, before, pushed_at) if newest is not None else None,
        bool(left_behind),
    )


def add(session: Session, values: Mapping[str, Any]) -> int:
    """Store a delivery; its id. `values` by the names of Delivery's columns."""
    number: int = session.connection().execute(_ADD, dict(values)).scalar_one()
    return number
