"""Opening promotions: by policy as a release gets further, or because a person asks."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from cd.identity import audit
from cd.pipeline.records import Project
from cd.promote.gates import TOWPATH, fingerprint
from cd.promote.policy import stored
from cd.promote.progress import branch_of, leave, lock, pending, refresh, stays
from cd.promote.records import Environment, Promotion, Release
from cd.promote.states import PENDING
from cd.store import events
from cd.store.base import now

#: Promotion states after which an older release is not brought in by itself any more.
AHEAD = (*PENDING, "deploying", "verifying", "succeeded")


def follow(session: Session, release: Release) -> None:
    """Open the promotions that policy gives the release now: it was made, or went live somewhere."""
    if release.retired_at is not None:
        return
    environments = session.scalars(
        select(Environment)
        .where(Environment.project_id == release.project_id, Environment.removed_at.is_(None))
        .order_by(Environment.position, Environment.id)
    ).all()
    lived = {stay.environment for stay in stays(session, release, [one.name for one in environments])}
    opened = set(
        session.scalars(
            select(Promotion.environment_id).where(Promotion.release_id == release.id, Promotion.kind == "promote")
        )
    )
    for environment in environments:
        spec = stored(environment.spec)
        wanted = spec.takes(branch_of(release)) and lived.issuperset(spec.after)
        if wanted and environment.id not in opened and not _outdated(session, lock(session, environment.id), release):
            open_promotion(session, environment, release)


def _outdated(session: Session, environment: Environment, release: Release) -> bool:
    """Whether a release of a later run is there, or on its way, already."""
    newest = session.execute(
        select(Promotion.release_id)
        .where(
            Promotion.environment_id == environment.id,
            Promotion.kind == "promote",
            Promotion.state.in_(AHEAD),
        )
        .order_by(Promotion.id.desc())
        .limit(1)
    ).scalar_one_or_none()
    return newest is not None and session.get_one(Release, newest).run_number > release.run_number


def open_promotion(
    session: Session,
    environment: Environment,
    release: Release,
    *,
    kind: str = "promote",
    requested_by: str = "",
    reason: str = "",
) -> Promotion:
    """Add a promotion into the (locked) environment; one of an older release that still waits there ends."""
    if kind == "promote":
        _supersede(session, environment, release)
    spec = stored(environment.spec)
    promotion = Promotion(
        project_id=environment.project_id,
        environment_id=environment.id,
        release_id=release.id,
        kind=kind,
        state="waiting",
        reason=reason,
        fingerprint=fingerprint(release.image, release.deploy, environment.id, environment.version, spec),
        requested_by=requested_by,
        created_at=now(),
    )
    session.add(promotion)
    session.flush()
    events.append(session, "promotion.opened", project_id=promotion.project_id, subject=promotion.id)
    record(session, requested_by or TOWPATH, f"promotion.{kind}", environment, promotion, release=release.number)
    refresh(session, promotion, environment)
    return promotion


def _supersede(session: Session, environment: Environment, release: Release) -> None:
    for promotion in pending(session, environment.id):
        other = session.get_one(Release, promotion.release_id)
        if promotion.kind == "promote" and other.run_number < release.run_number:
            leave(session, promotion, "superseded", f"release #{release.number} is newer")


def record(
    session: Session, actor: str, action: str, environment: Environment, promotion: Promotion, **detail: object
) -> None:
    """One audit entry about a promotion."""
    slug = session.get_one(Project, environment.project_id).slug
    audit.append(session, actor, action, f"{slug}/{environment.name}", promotion=promotion.id, **detail)
