"""Where a pending promotion stands: its facts from the database, and the one function that moves it on."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from sqlalchemy import TextClause, select, text
from sqlalchemy.orm import Session

from cd.promote.gates import Facts, Stay, Vote, decide, evaluate, fingerprint, soaked_at
from cd.promote.policy import stored
from cd.promote.records import OPEN, Approval, Deployment, Environment, Promotion, Release
from cd.promote.states import PENDING, PROMOTION
from cd.store import tasks
from cd.store.base import now
from cd.store.database import lock_events
from cd.store.states import move

#: Kinds of tasks; both are about a promotion.
TASK, RETIRE = "deploy", "retire"
#: States of deployments that took traffic.
LIVED = ("live", "retired")


def lock(session: Session, environment_id: int) -> Environment:
    """The environment as it is now; all decisions about it take turns until the transaction ends.

    The lock of events comes first, as in every transaction that ends a run: else two could wait for each other.
    """
    lock_events(session)
    return session.scalars(
        select(Environment)
        .where(Environment.id == environment_id)
        .with_for_update()
        .execution_options(populate_existing=True)
    ).one()


def branch_of(release: Release) -> str | None:
    """The branch's name, None for a tag."""
    return release.ref.removeprefix("refs/heads/") if release.ref.startswith("refs/heads/") else None


def facts(session: Session, promotion: Promotion, environment: Environment, release: Release, at: datetime) -> Facts:
    """What the gates of the promotion depend on, as it is at this moment."""
    spec = stored(environment.spec)
    busy = session.scalar(
        select(Release.number)
        .join(Deployment, Deployment.release_id == Release.id)
        .where(
            Deployment.environment_id == environment.id,
            Deployment.state == "deploying",
            Deployment.promotion_id != promotion.id,
        )
    )
    return Facts(
        spec=spec,
        rollback=promotion.kind == "rollback",
        branch=branch_of(release),
        fingerprint=fingerprint(release.image, release.deploy, environment.id, environment.version, spec),
        at=at,
        stays=stays(session, release, spec.after) if spec.after else (),
        votes=_votes(session, promotion) if spec.approvals_required else (),
        hold=environment.hold,
        held_by=environment.held_by,
        busy=f"release #{busy}" if busy is not None else "",
    )


def stays(session: Session, release: Release, names: Iterable[str]) -> list[Stay]:
    """When the release was live in the environments of these names, oldest first."""
    rows = session.execute(
        select(Environment.name, Deployment.finished_at, Deployment.retired_at)
        .outerjoin(Environment, Environment.id == Deployment.environment_id)
        .where(Deployment.release_id == release.id, Deployment.state.in_(LIVED))
        .order_by(Deployment.id)
    )
    wanted = set(names)
    return [Stay(name, since, until) for name, since, until in rows if name in wanted and since is not None]


def _votes(session: Session, promotion: Promotion) -> tuple[Vote, ...]:
    rows = session.scalars(select(Approval).where(Approval.promotion_id == promotion.id).order_by(Approval.id))
    return tuple(Vote(row.username, row.vote, row.fingerprint) for row in rows)


def refresh(session: Session, promotion: Promotion, environment: Environment, at: datetime | None = None) -> None:
    """Bring a pending promotion to the state that its gates give it, and call for its deployment when all are passed.

    The environment must be locked. Nothing happens to a promotion that is not pending.
    """
    if promotion.state not in PENDING:
        return
    release = session.get_one(Release, promotion.release_id)
    seen = facts(session, promotion, environment, release, at or now())
    promotion.fingerprint = seen.fingerprint
    wanted = decide(evaluate(seen))
    due = _due(promotion, wanted, seen)
    if wanted != promotion.state:
        if promotion.state == "queued":
            tasks.cancel(session, TASK, [promotion.id])
        move(session, PROMOTION, promotion, wanted, due_at=due)
    elif due != promotion.due_at:
        promotion.due_at = due
    session.flush()
    if wanted == "queued" and not seen.busy:
        tasks.add(session, TASK, promotion.id)


def _due(promotion: Promotion, wanted: str, seen: Facts) -> datetime | None:
    if wanted == "waiting":
        return soaked_at(seen)
    expire = seen.spec.approvals.expire
    if wanted != "awaiting_approval" or expire is None:
        return None
    if wanted == promotion.state and promotion.due_at is not None:
        return promotion.due_at
    return seen.at + timedelta(seconds=expire)


def opened() -> TextClause:
    """Promotions that have not ended, found by their own small index however many have."""
    return text(f"promotion.{OPEN}")


def pending(session: Session, environment_id: int) -> list[Promotion]:
    """Promotions into the environment that nothing was done for yet, oldest first."""
    return list(
        session.scalars(
            select(Promotion)
            .where(opened(), Promotion.environment_id == environment_id, Promotion.state.in_(PENDING))
            .order_by(Promotion.id)
        )
    )


def refresh_all(session: Session, environment: Environment, at: datetime | None = None) -> None:
    """`refresh` each pending promotion into the (locked) environment: something that they depend on has changed."""
    for promotion in pending(session, environment.id):
        refresh(session, promotion, environment, at)


def leave(session: Session, promotion: Promotion, state: str, reason: str) -> None:
    """End a pending promotion without a deployment."""
    move(session, PROMOTION, promotion, state, reason=reason, due_at=None, finished_at=now())
    tasks.cancel(session, TASK, [promotion.id])
