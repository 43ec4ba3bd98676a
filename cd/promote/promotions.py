"""What people do with promotions: ask for them, vote, cancel, roll back. All take an open session."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import and_, or_, select
from sqlalchemy.orm import Session

from cd.errors import Conflict, Forbidden, NotFound
from cd.identity.people import Person, Role
from cd.pipeline.records import Project
from cd.promote import environments, progress, votes
from cd.promote.gates import TOWPATH, Facts, Gate, evaluate
from cd.promote.opening import open_promotion, record
from cd.promote.policy import stored
from cd.promote.progress import branch_of, leave, lock, refresh
from cd.promote.records import Deployment, Environment, Promotion, Release
from cd.promote.states import PENDING, PROMOTION
from cd.store import events
from cd.store.base import now
from cd.units import format_seconds


def request(
    session: Session, project: Project, environment: Environment, release: Release, person: Person
) -> Promotion:
    """Ask for a release in an environment; its gates apply. Raises Conflict when it is there or on its way."""
    _needs(person, Role.developer)
    environment = _open_environment(session, environment, project.id, release)
    _refuse_retired(session, release)
    live = _live(session, environment)
    if live and live.release_id == release.id and live.environment_version == environment.version:
        raise Conflict(f"release #{release.number} is live in {environment.name} already")
    _refuse_twice(session, environment, release, "promote")
    branches = stored(environment.spec).source
    if branches is not None and not branches.takes(branch_of(release)):
        raise Conflict(
            f"release #{release.number} is not from a branch that may come to {environment.name}",
            remedy="merge it first; the policy of the environment says which branches",
        )
    return open_promotion(session, environment, release, requested_by=person.username)


def rollback(
    session: Session, environment: Environment, release: Release, person: Person, reason: str = ""
) -> Promotion:
    """Bring back a release that was live there, past soak and approvals, and hold the environment.

    For approvers where promotions need approvals, else for developers.
    """
    environment = _open_environment(session, environment, release.project_id, release)
    _needs(person, Role.approver if stored(environment.spec).approvals_required else Role.developer)
    lived = select(Deployment.id).where(
        Deployment.environment_id == environment.id,
        Deployment.release_id == release.id,
        Deployment.state.in_(progress.LIVED),
    )
    if session.scalar(lived.limit(1)) is None:
        raise Conflict(f"release #{release.number} was never live in {environment.name}", remedy="promote it instead")
    live = _live(session, environment)
    if live and live.release_id == release.id:
        raise Conflict(f"release #{release.number} is live in {environment.name} now")
    _refuse_retired(session, release)
    _refuse_twice(session, environment, release, "rollback")
    why = f"rolled back to release #{release.number}"
    environments.hold(session, environment, f"{why}: {reason.strip()}" if reason.strip() else why, person.username)
    return open_promotion(
        session, environment, release, kind="rollback", requested_by=person.username, reason=reason.strip()
    )


def approve(session: Session, promotion_id: int, person: Person, fingerprint: str, comment: str = "") -> Promotion:
    """Agree to what the person saw, as its fingerprint says.

    Raises Conflict when it has changed, ended, or has its approvals; Forbidden when the person may not.
    """
    promotion, environment, release, facts = _locked(session, promotion_id)
    problem = votes.objection(facts, promotion, release, person)
    if problem:
        raise problem
    _check_seen(facts, promotion, fingerprint)
    votes.write(session, promotion, person, "approve", comment)
    record(session, person.username, "promotion.approve", environment, promotion, fingerprint=fingerprint)
    # The state may stay: one of several approvals is news as well.
    events.append(session, "promotion.approved", project_id=promotion.project_id, subject=promotion.id)
    refresh(session, promotion, environment)
    return promotion


def reject(session: Session, promotion_id: int, person: Person, fingerprint: str, comment: str = "") -> Promotion:
    """End a pending promotion; for whoever may approve there, for one's own as well. Raises as `approve` does."""
    promotion, environment, _, facts = _locked(session, promotion_id)
    _pending(promotion, "rejected")
    if not (votes.is_approver(facts.spec.approvals, person) or person.role.allows(Role.admin)):
        raise Forbidden(f"only {', '.join(facts.spec.approvals.allowed)} may reject here")
    _check_seen(facts, promotion, fingerprint)
    votes.write(session, promotion, person, "reject", comment)
    record(session, person.username, "promotion.reject", environment, promotion, fingerprint=fingerprint)
    by = f"rejected by {person.username}"
    leave(session, promotion, "rejected", f"{by}: {comment.strip()}" if comment.strip() else by)
    return promotion


def cancel(session: Session, promotion_id: int, person: Person) -> Promotion:
    """Withdraw a pending promotion. Raises Conflict once it is being deployed."""
    _needs(person, Role.developer)
    promotion, environment, release, _ = _locked(session, promotion_id)
    _pending(promotion, "canceled")
    leave(session, promotion, "canceled", f"canceled by {person.username}")
    record(session, person.username, "promotion.cancel", environment, promotion, release=release.number)
    return promotion


def gates(session: Session, promotion: Promotion) -> tuple[Gate, ...]:
    """The gates of the promotion, as they are now."""
    return evaluate(_facts(session, promotion)[2])


def may_approve(session: Session, promotion: Promotion, person: Person) -> str:
    """Why the person can't approve the promotion now; empty when the person can."""
    _, release, facts = _facts(session, promotion)
    problem = votes.objection(facts, promotion, release, person)
    return problem.message if problem else ""


def sweep(session: Session, at: datetime) -> None:
    """What time brings: soaks that are over, approvals that nobody gave, deployments whose call was lost."""
    due = and_(Promotion.state.in_(("waiting", "awaiting_approval")), Promotion.due_at <= at)
    found = session.execute(
        select(Promotion.id, Promotion.environment_id)
        .where(progress.opened(), or_(due, Promotion.state == "queued"))
        .order_by(Promotion.environment_id, Promotion.id)
    ).all()
    for promotion_id, environment_id in found:
        environment = lock(session, environment_id)
        promotion = _fresh(session, promotion_id)
        if promotion.state == "awaiting_approval" and promotion.due_at and promotion.due_at <= at:
            _expire(session, promotion, environment)
        else:
            refresh(session, promotion, environment, at)


def _expire(session: Session, promotion: Promotion, environment: Environment) -> None:
    expire = stored(environment.spec).approvals.expire
    leave(session, promotion, "expired", f"not approved within {format_seconds(expire)}" if expire else "not approved")
    record(session, TOWPATH, "promotion.expire", environment, promotion)


def find(session: Session, promotion_id: int) -> Promotion:
    """The promotion. Raises NotFound."""
    promotion = session.get(Promotion, promotion_id)
    if promotion is None:
        raise NotFound(f"there is no promotion {promotion_id}")
    return promotion


def _fresh(session: Session, promotion_id: int) -> Promotion:
    return session.get_one(Promotion, promotion_id, populate_existing=True)


def _facts(session: Session, promotion: Promotion) -> tuple[Environment, Release, Facts]:
    environment = session.get_one(Environment, promotion.environment_id)
    release = session.get_one(Release, promotion.release_id)
    return environment, release, progress.facts(session, promotion, environment, release, now())


def _locked(session: Session, promotion_id: int) -> tuple[Promotion, Environment, Release, Facts]:
    environment = lock(session, find(session, promotion_id).environment_id)
    promotion = _fresh(session, promotion_id)
    _, release, facts = _facts(session, promotion)
    return promotion, environment, release, facts


def _check_seen(facts: Facts, promotion: Promotion, fingerprint: str) -> None:
    if fingerprint != facts.fingerprint:
        raise Conflict("what would be deployed has changed since you looked", remedy="look again, then decide")
    promotion.fingerprint = facts.fingerprint


def _needs(person: Person, role: Role) -> None:
    if not person.role.allows(role):
        raise Forbidden(f"this takes the role {role.value}; yours is {person.role.value}")


def _pending(promotion: Promotion, verb: str) -> None:
    if promotion.state not in PENDING:
        word = "is" if promotion.state not in PROMOTION.terminal else "has ended:"
        raise Conflict(f"it {word} {promotion.state.replace('_', ' ')}, and can't be {verb} any more")


def _open_environment(session: Session, environment: Environment, project_id: int, release: Release) -> Environment:
    environment = lock(session, environment.id)
    if environment.removed_at is not None or environment.project_id != project_id:
        raise NotFound(f"there is no environment {environment.name!r} in this project")
    if release.project_id != project_id:
        raise NotFound("the release is of another project")
    return environment


def _live(session: Session, environment: Environment) -> Deployment | None:
    return session.scalars(
        select(Deployment).where(Deployment.environment_id == environment.id, Deployment.state == "live")
    ).one_or_none()


def _refuse_retired(session: Session, release: Release) -> None:
    # The environment is locked: what lets images go takes turns with us, and may have been first.
    session.refresh(release)
    if release.retired_at is not None:
        slug = session.get_one(Project, release.project_id).slug
        raise Conflict(
            f"release #{release.number} is retired: its image was let go to keep the disk within its bound",
            remedy=f"run its commit again: `towpath run retry {slug} {release.run_number}` makes a new release of it",
        )


def _refuse_twice(session: Session, environment: Environment, release: Release, kind: str) -> None:
    twin = session.scalar(
        select(Promotion.id).where(
            progress.opened(),
            Promotion.environment_id == environment.id,
            Promotion.release_id == release.id,
            Promotion.kind == kind,
        )
    )
    if twin is not None:
        raise Conflict(f"promotion {twin} of release #{release.number} is on its way already")
