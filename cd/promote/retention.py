"""Which images releases need, and what becomes of a release whose image was let go."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session, aliased

from cd.pipeline.records import Project
from cd.promote.progress import opened
from cd.promote.records import Deployment, Environment, Promotion, Release
from cd.store import events
from cd.store.base import now

#: So many releases that were live before in an environment can be rolled back to at once.
ROLLBACKS = 2
LIVE, COMING = "a live release", "a promotion"
BEFORE, NEWEST = "a release to roll back to", "one of the newest releases"


def held(session: Session, keep: int) -> dict[str, str]:
    """By image why it must stay; `keep` is the number of newest releases of each project that do."""
    newest = aliased(Release)
    last = (
        select(newest.project_id, func.max(newest.number).label("number"))
        .join(Project, Project.id == newest.project_id)
        .where(Project.deleted_at.is_(None))
        .group_by(newest.project_id)
        .subquery()
    )
    recent = (
        select(Release.image)
        .join(last, last.c.project_id == Release.project_id)
        .where(Release.number > last.c.number - keep)
    )
    coming = select(Release.image).join(Promotion, Promotion.release_id == Release.id).where(opened())
    active = select(Deployment.image).where(Deployment.state.in_(("deploying", "live")))
    # The strongest reason is written last.
    return {
        **dict.fromkeys(session.scalars(recent), NEWEST),
        **dict.fromkeys(_before(session), BEFORE),
        **dict.fromkeys(session.scalars(coming), COMING),
        **dict.fromkeys(session.scalars(active), LIVE),
    }


def _before(session: Session) -> list[str]:
    """Images of the last releases of each environment that were live before the one that is."""
    live = select(Deployment.environment_id, Deployment.release_id).where(Deployment.state == "live")
    now_live = {(environment, release) for environment, release in session.execute(live)}
    rows = session.execute(
        select(Deployment.environment_id, Deployment.release_id, Release.image)
        .join(Release, Release.id == Deployment.release_id)
        .join(Environment, Environment.id == Deployment.environment_id)
        .where(Deployment.state == "retired", Environment.removed_at.is_(None))
        .group_by(Deployment.environment_id, Deployment.release_id, Release.image)
        .order_by(Deployment.environment_id, func.max(Deployment.id).desc())
    )
    images, counts = [], dict[int, int]()
    for environment, release, image in rows:
        if (environment, release) not in now_live and counts.setdefault(environment, 0) < ROLLBACKS:
            counts[environment] += 1
            images.append(image)
    return images


def retire(session: Session, images: Collection[str]) -> None:
    """These images are gone for good: their releases can't be promoted any more."""
    gone = session.execute(
        update(Release)
        .where(Release.image.in_(images), Release.retired_at.is_(None))
        .values(retired_at=now())
        .returning(Release.id, Release.project_id, Release.run_id)
        .execution_options(synchronize_session=False)
    ).all()
    for release_id, project_id, run_id in gone:
        events.append(session, "release.retired", project_id=project_id, run_id=run_id, subject=release_id)
