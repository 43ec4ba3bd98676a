"""Environments of a project: applied from a file, held and let go by people."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from cd.errors import Conflict, NotFound, UserError
from cd.identity import audit
from cd.identity.people import Role
from cd.identity.records import User
from cd.pipeline.records import Project
from cd.promote.policy import EnvironmentSpec, dump
from cd.promote.progress import leave, lock, pending, refresh_all
from cd.promote.records import Deployment, Environment
from cd.promote.states import DEPLOYMENT
from cd.store import events
from cd.store.base import now
from cd.store.database import lock_events
from cd.store.states import move


def listing(session: Session, project_id: int) -> list[Environment]:
    """The project's environments in their order, without removed ones."""
    query = select(Environment).where(Environment.project_id == project_id, Environment.removed_at.is_(None))
    return list(session.scalars(query.order_by(Environment.position, Environment.id)))


def find(session: Session, project_id: int, name: str) -> Environment:
    """The environment of that name. Raises NotFound."""
    for environment in listing(session, project_id):
        if environment.name == name:
            return environment
    raise NotFound(f"there is no environment {name!r}", remedy="`towpath environment list` shows them")


def apply(session: Session, project: Project, specs: Sequence[EnvironmentSpec], actor: str) -> list[Environment]:
    """Make the project's environments those of the file, in its order; what the file leaves out is removed.

    A change voids the approvals of what waits there. Raises UserError for approvers that do not exist, Conflict
    when an environment that would be removed is being deployed to.
    """
    lock_events(session)
    _check_approvers(session, specs)
    known = {row.name: row for row in session.scalars(select(Environment).where(Environment.project_id == project.id))}
    for name in known.keys() - {spec.name for spec in specs}:
        _remove(session, project, known[name], actor)
    return [
        _put(session, project, known.get(spec.name), spec, position=position, actor=actor)
        for position, spec in enumerate(specs)
    ]


def _check_approvers(session: Session, specs: Sequence[EnvironmentSpec]) -> None:
    known = {role.value for role in Role} | set(session.scalars(select(User.username)))
    for spec in specs:
        for name in spec.approvals.allowed:
            if name not in known:
                raise UserError(
                    f"{name!r} is neither a role nor a user",
                    where=f"{spec.name}.approvals.from",
                    remedy=f"name a user or one of {', '.join(role.value for role in Role)}",
                )


def _put(
    session: Session, project: Project, row: Environment | None, spec: EnvironmentSpec, *, position: int, actor: str
) -> Environment:
    wanted = dump(spec)
    if row is None:
        row = Environment(project_id=project.id, name=spec.name, position=position, spec=wanted, version=1)
        session.add(row)
        session.flush()
    else:
        row = lock(session, row.id)
        row.position = position
        if row.spec == wanted and row.removed_at is None:
            return row
        row.spec, row.version, row.removed_at = wanted, row.version + 1, None
        session.flush()
        refresh_all(session, row)
    _tell(session, project, row, "applied", actor, version=row.version)
    return row


def _remove(session: Session, project: Project, row: Environment, actor: str) -> None:
    if row.removed_at is not None:
        return
    row = lock(session, row.id)
    busy = select(Deployment.id).where(Deployment.environment_id == row.id, Deployment.state == "deploying")
    if session.scalar(busy) is not None:
        raise Conflict(f"{row.name} is being deployed to", remedy="wait for its end, then apply the file again")
    for promotion in pending(session, row.id):
        leave(session, promotion, "canceled", "the environment was removed")
    live = session.scalars(
        select(Deployment).where(Deployment.environment_id == row.id, Deployment.state == "live")
    ).one_or_none()
    if live is not None:
        move(session, DEPLOYMENT, live, "retired", retired_at=now())
    row.removed_at = now()
    _tell(session, project, row, "removed", actor)


def remove_all(session: Session, project: Project, actor: str) -> None:
    """Remove every environment, for a project that is deleted. Raises Conflict as `apply` does."""
    for environment in listing(session, project.id):
        _remove(session, project, environment, actor)


def hold(session: Session, environment: Environment, reason: str, actor: str) -> None:
    """Pin the environment: nothing but a rollback is deployed there until `unhold`."""
    if not reason.strip():
        raise UserError("a hold needs a reason", where="reason", remedy="say why, for whoever finds it")
    environment = lock(session, environment.id)
    environment.hold, environment.held_by = reason.strip(), actor
    session.flush()
    refresh_all(session, environment)
    _tell(session, session.get_one(Project, environment.project_id), environment, "held", actor, reason=reason.strip())


def unhold(session: Session, environment: Environment, actor: str) -> None:
    """End a hold; what waits there goes on. Raises Conflict when it is not held."""
    environment = lock(session, environment.id)
    if environment.hold is None:
        raise Conflict(f"{environment.name} is not held")
    environment.hold = environment.held_by = None
    session.flush()
    refresh_all(session, environment)
    _tell(session, session.get_one(Project, environment.project_id), environment, "unheld", actor)


def _tell(session: Session, project: Project, row: Environment, verb: str, actor: str, **detail: object) -> None:
    events.append(session, f"environment.{verb}", project_id=project.id, subject=row.id)
    audit.append(session, actor, f"environment.{verb}", f"{project.slug}/{row.name}", **detail)
