"""Releases: what a passed run leaves to be promoted."""

from __future__ import annotations

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from cd.errors import NotFound
from cd.pipeline.records import Run
from cd.promote.opening import follow
from cd.promote.records import Release
from cd.store import events
from cd.store.base import now
from cd.store.database import lock_events


def run_ended(session: Session, run: Run) -> None:
    """In the transaction that ends a run: make its release and open the promotions that follow by policy.

    Only a passed, trusted run whose repository says how to run the image makes one.
    """
    if run.state != "passed" or not run.trusted or run.event == "pull_request" or not run.image or run.deploy is None:
        return
    if session.scalar(select(Release.id).where(Release.run_id == run.id)) is not None:
        return
    lock_events(session)  # numbers are given in turn
    newest = session.scalar(select(func.max(Release.number)).where(Release.project_id == run.project_id)) or 0
    release = Release(
        project_id=run.project_id,
        number=newest + 1,
        run_id=run.id,
        run_number=run.number,
        image=run.image,
        sha=run.sha,
        ref=run.ref,
        subject=run.subject,
        author=run.author,
        pusher=run.pusher,
        deploy=run.deploy,
        created_at=now(),
    )
    session.add(release)
    session.flush()
    events.append(session, "release.created", project_id=run.project_id, run_id=run.id, subject=release.id)
    follow(session, release)


def find(session: Session, project_id: int, number: int) -> Release:
    """The project's release of that number. Raises NotFound."""
    release = session.scalars(
        select(Release).where(Release.project_id == project_id, Release.number == number)
    ).one_or_none()
    if release is None:
        raise NotFound(f"there is no release #{number}", remedy="`towpath project show` lists them")
    return release


def listing(session: Session, project_id: int, *, before: int | None = None, limit: int = 50) -> list[Release]:
    """Releases of a project, newest first, with numbers under `before`."""
    query = select(Release).where(Release.project_id == project_id)
    if before is not None:
        query = query.where(Release.number < before)
    return list(session.scalars(query.order_by(Release.number.desc()).limit(limit)))
