"""Leftovers on targets: what crashes, removed environments and deleted projects leave behind."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from cd.promote import attempts
from cd.promote.policy import EnvironmentSpec, stored
from cd.promote.records import Deployment, Environment
from cd.promote.targets import FindTarget
from cd.promote.targets.base import App, Found, Place, Target
from cd.store.base import now
from cd.store.database import Database

#: A deployment that ended this recently is still being looked after by its own task.
FRESH = timedelta(seconds=60)


def clean(database: Database, targets: FindTarget, instance: str) -> int:
    """Remove what nobody needs from every engine that is deployed to; how many things that were.

    Raises ServiceError when an engine is away.
    """
    with database.read() as session:
        engines = list(_engines(session, targets))
    removed = 0
    for target in engines:
        # Listed before the rows are read: all that is listed has a row by then.
        found = target.found(instance)
        with database.read() as session:
            live, leftovers = _leftovers(session, found, instance)
        for app in live:
            if not target.serves(app):
                target.switch_back(app.place, app.target, app, lambda what, ok: None)
        for place, deployment in leftovers:
            target.clear(place, deployment)
        removed += len(leftovers)
    return removed


def _engines(session: Session, targets: FindTarget) -> Iterator[Target]:
    specs: dict[tuple[str, str], EnvironmentSpec] = {}
    live = select(Deployment.spec).where(Deployment.state == "live")
    for value in (*session.scalars(select(Environment.spec)), *session.scalars(live)):
        spec = stored(value)
        specs[spec.target.kind, spec.target.engine] = spec
    yield from {id(target): target for target in map(targets, specs.values())}.values()


def _leftovers(
    session: Session, found: Sequence[Found], instance: str
) -> tuple[list[App], list[tuple[Place, int | None]]]:
    """Places, with a deployment or None for all of it, to be cleared; before that the live apps have to serve."""
    apps: list[App] = []
    clear: list[tuple[Place, int | None]] = []
    for environment_id in {one.environment_id for one in found}:
        environment = session.get(Environment, environment_id)
        if environment is None:
            continue  # not of this database, whatever its label says
        place = attempts.place_of(session, environment, instance)
        if environment.removed_at is not None:
            clear.append((place, None))
            continue
        there = {one.deployment for one in found if one.environment_id == environment_id}
        dead = [one for one in there if one is not None and _is_leftover(session, environment_id, one)]
        if dead and (app := attempts.live_app(session, environment, place)) is not None:
            apps.append(app)
        clear += [(place, one) for one in dead]
    return apps, clear


def _is_leftover(session: Session, environment_id: int, deployment_id: int) -> bool:
    """Whether no deployment that is live, or on its way, or has just ended is served by the containers of this one."""
    ids = Deployment.serving_id == deployment_id, Deployment.id == deployment_id
    rows = session.scalars(select(Deployment).where(Deployment.environment_id == environment_id, ids[0] | ids[1])).all()
    busy = select(Deployment.id).where(Deployment.environment_id == environment_id, Deployment.state == "deploying")
    if session.scalar(busy) is not None:
        return False  # the next time
    ended = [row.retired_at or row.finished_at for row in rows if row.state != "live"]
    serving = any(row.state == "live" and row.serving_id == deployment_id for row in rows)
    return not serving and all(at is not None and at < now() - FRESH for at in ended)
