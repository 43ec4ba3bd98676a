"""What pages and the API read of environments, releases and promotions: few statements, frozen rows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from sqlalchemy import Select, func, literal_column, select
from sqlalchemy.orm import Session, aliased

from cd.errors import NotFound
from cd.pipeline import queries as pipeline
from cd.pipeline.queries import ProjectRow
from cd.pipeline.records import Project
from cd.promote import rows
from cd.promote.records import Approval, Deployment, Environment, Promotion, Release
from cd.promote.rows import (
    BoardRow,
    DeploymentRow,
    PromotionDetail,
    PromotionRow,
    ReleaseRow,
    Slot,
    Vote,
)

#: At most this many commits are listed between two releases.
MAX_CHANGES = 100
#: Ends of a promotion that an environment shows until something better comes.
TROUBLE = ("failed", "errored", "aborted", "rolled_back", "rollback_failed", "rejected", "expired")

# Written out, not bound: only so a database knows that the partial indexes of `records` fit.
_OPENED = Promotion.state.in_(
    [
        literal_column(f"'{state}'")
        for state in ("waiting", "awaiting_approval", "queued", "deploying", "verifying", "rolling_back")
    ]
)
_AWAITING = _OPENED & (Promotion.state == "awaiting_approval")
_LIVE = Deployment.state == literal_column("'live'")


def board(session: Session) -> list[BoardRow]:
    """Every project with its last runs and its environments in order; eight statements however many there are."""
    runs = pipeline.recent(session)
    slots: dict[int, list[Slot]] = {}
    for slot in _slots(session):
        slots.setdefault(slot.project_id, []).append(slot)
    return [
        BoardRow(project, runs.get(project.id, ()), tuple(slots.get(project.id, ())))
        for project in pipeline.projects(session)
    ]


def environments(session: Session, project_id: int) -> list[Slot]:
    """The environments of one project in order, as on the board."""
    return _slots(session, project_id)


def history(session: Session, environment_id: int, before: int | None = None, limit: int = 10) -> list[DeploymentRow]:
    """Deployments into an environment below the id `before`, newest first."""
    query = _deployments(rows.STORY_COLUMNS).where(Deployment.environment_id == environment_id)
    if before is not None:
        query = query.where(Deployment.id < before)
    return [rows.deployment(row) for row in session.execute(query.order_by(Deployment.id.desc()).limit(limit))]


def releases(session: Session, project_id: int, before: int | None = None, limit: int = 20) -> list[ReleaseRow]:
    """Releases of a project below the number `before`, newest first."""
    query = _releases().where(Release.project_id == project_id).order_by(Release.number.desc()).limit(limit)
    found = session.execute(query if before is None else query.where(Release.number < before))
    return [ReleaseRow(*row) for row in found]


def release_of_run(session: Session, run_id: int) -> ReleaseRow | None:
    """The release that a run made."""
    row = session.execute(_releases().where(Release.run_id == run_id)).one_or_none()
    return ReleaseRow(*row) if row is not None else None


def promotions_of(session: Session, release_id: int) -> list[tuple[str, PromotionRow]]:
    """Name of the environment and the newest promotion of a release into it, in the order of environments."""
    newest = select(func.max(Promotion.id)).where(Promotion.release_id == release_id).group_by(Promotion.environment_id)
    query = (
        _promotions()
        .add_columns(Environment.name)
        .join(Environment, Environment.id == Promotion.environment_id)
        .where(Promotion.id.in_(newest))
        .order_by(Environment.position)
    )
    return [(row[-1], rows.promotion(row)) for row in session.execute(query)]


def waiting(session: Session, limit: int = 100) -> list[tuple[str, str, PromotionRow]]:
    """Promotions that wait for a person's vote: project, environment, promotion; the oldest first."""
    query = (
        _promotions()
        .add_columns(Project.slug, Environment.name)
        .join(Environment, Environment.id == Promotion.environment_id)
        .join(Project, Project.id == Promotion.project_id)
        .where(_AWAITING, Project.deleted_at.is_(None))
        .order_by(Promotion.id)
        .limit(limit)
    )
    return [(row[-2], row[-1], rows.promotion(row)) for row in session.execute(query)]


def waiting_count(session: Session) -> int:
    """How many promotions wait for a person's vote."""
    query = (
        select(func.count())
        .select_from(Promotion)
        .join(Project, Project.id == Promotion.project_id)
        .where(_AWAITING, Project.deleted_at.is_(None))
    )
    return session.scalar(query) or 0


def promotion(session: Session, promotion_id: int) -> PromotionDetail:
    """One promotion with its votes, its deployment and what it changes. Raises NotFound."""
    found = session.execute(_promotions().where(Promotion.id == promotion_id)).one_or_none()
    if found is None:
        raise NotFound(f"there is no promotion {promotion_id}", remedy="look at the board for the open ones")
    row = rows.promotion(found)
    environment = session.get_one(Environment, row.environment_id)
    project = session.get_one(Project, environment.project_id)
    story = session.execute(
        _deployments((*rows.STORY_COLUMNS, Deployment.previous_id)).where(Deployment.promotion_id == promotion_id)
    ).one_or_none()
    votes = tuple(_votes(session, row))
    current = _before(session, story[-1]) if story else _current(session, row)
    return PromotionDetail(
        promotion=replace(row, approvals=sum(vote.stands and vote.vote == "approve" for vote in votes)),
        project=ProjectRow(project.id, project.slug, project.forge, project.clone_url, project.created_at),
        environment=rows.slot(environment),
        current=current,
        changes=_changes(session, project.id, current, row.release),
        votes=votes,
        deployment=rows.deployment(story[:-1]) if story else None,
    )


def _before(session: Session, deployment_id: int | None) -> ReleaseRow | None:
    query = _releases().join(Deployment, Deployment.release_id == Release.id).where(Deployment.id == deployment_id)
    row = session.execute(query).one_or_none()
    return ReleaseRow(*row) if row is not None else None


def _current(session: Session, row: PromotionRow) -> ReleaseRow | None:
    query = _releases().join(Deployment, Deployment.release_id == Release.id)
    found = session.execute(query.where(Deployment.environment_id == row.environment_id, _LIVE)).one_or_none()
    return ReleaseRow(*found) if found is not None else None


def _changes(
    session: Session, project_id: int, current: ReleaseRow | None, wanted: ReleaseRow
) -> tuple[ReleaseRow, ...]:
    here = current.number if current else wanted.number - 1
    low, high = sorted((here, wanted.number))
    query = (
        _releases()
        .where(Release.project_id == project_id, Release.number > low, Release.number <= high)
        .order_by(Release.number.desc())
        .limit(MAX_CHANGES)
    )
    return tuple(ReleaseRow(*row) for row in session.execute(query))


def _votes(session: Session, row: PromotionRow) -> Iterable[Vote]:
    query = select(Approval).where(Approval.promotion_id == row.id).order_by(Approval.at, Approval.id)
    for vote in session.scalars(query):
        stands = vote.vote == "reject" or vote.fingerprint == row.fingerprint
        yield Vote(vote.username, vote.vote, vote.comment, vote.at, stands)


def _slots(session: Session, project_id: int | None = None) -> list[Slot]:
    query = (
        select(Environment)
        .join(Project, Project.id == Environment.project_id)
        .where(Environment.removed_at.is_(None), Project.deleted_at.is_(None))
        .order_by(Environment.project_id, Environment.position)
    )
    if project_id is not None:
        query = query.where(Environment.project_id == project_id)
    slots = [rows.slot(row) for row in session.scalars(query)]
    live, opened, last = _live(session, project_id), _open(session, project_id), _trouble(session, project_id)
    newest = _newest(session, project_id)
    full = [
        replace(slot, live=live.get(slot.id), open=opened.get(slot.id), trouble=last.get(slot.id)) for slot in slots
    ]
    by_name = {(slot.project_id, slot.name): slot for slot in full}
    return [replace(slot, next=_next(slot, by_name, newest.get(slot.project_id))) for slot in full]


def _next(slot: Slot, by_name: dict[tuple[int, str], Slot], newest: ReleaseRow | None) -> ReleaseRow | None:
    """What could be promoted here: the oldest of what runs in the environments before it."""
    before = [by_name[slot.project_id, name].live for name in slot.after if (slot.project_id, name) in by_name]
    if any(one is None for one in before):
        return None
    candidates = [one.release for one in before if one is not None]
    best = min(candidates, key=lambda one: one.number) if candidates else newest
    return best if best and (slot.live is None or best.number > slot.live.release.number) else None


def _live(session: Session, project_id: int | None) -> dict[int, DeploymentRow]:
    query = _deployments(rows.DEPLOYMENT_COLUMNS).where(_LIVE)
    if project_id is not None:
        query = query.where(Deployment.project_id == project_id)
    found = [rows.deployment(row) for row in session.execute(query)]
    return {row.environment_id: row for row in found}


def _open(session: Session, project_id: int | None) -> dict[int, PromotionRow]:
    """The open promotion of each environment: the one under way, else the newest."""
    query = _promotions().where(_OPENED).order_by(Promotion.id)
    if project_id is not None:
        query = query.where(Promotion.project_id == project_id)
    found: dict[int, PromotionRow] = {}
    for row in map(rows.promotion, session.execute(query)):
        known = found.get(row.environment_id)
        if known is None or known.pending:
            found[row.environment_id] = row
    return _counted(session, found)


def _counted(session: Session, found: dict[int, PromotionRow]) -> dict[int, PromotionRow]:
    ids = {row.id: row.fingerprint for row in found.values()}
    if not ids:
        return found
    query = select(Approval.promotion_id, Approval.fingerprint).where(
        Approval.promotion_id.in_(ids), Approval.vote == "approve"
    )
    counts: dict[int, int] = {}
    for promotion_id, fingerprint in session.execute(query):
        counts[promotion_id] = counts.get(promotion_id, 0) + (fingerprint == ids[promotion_id])
    return {key: replace(row, approvals=counts.get(row.id, 0)) for key, row in found.items()}


def _trouble(session: Session, project_id: int | None) -> dict[int, PromotionRow]:
    """Of each environment the newest promotion that was not just overtaken, if it ended badly."""
    newest = (
        select(Promotion.id)
        .where(Promotion.environment_id == Environment.id, Promotion.state.not_in(("superseded", "canceled")))
        .order_by(Promotion.id.desc())
        .limit(1)
        .scalar_subquery()
    )
    places = select(newest).select_from(Environment).where(Environment.removed_at.is_(None))
    if project_id is not None:
        places = places.where(Environment.project_id == project_id)
    query = _promotions().where(Promotion.id.in_(places), Promotion.state.in_(TROUBLE))
    found = [rows.promotion(row) for row in session.execute(query)]
    return {row.environment_id: row for row in found}


def _newest(session: Session, project_id: int | None) -> dict[int, ReleaseRow]:
    made = aliased(Release)
    newest = select(func.max(made.number)).where(made.project_id == Project.id).correlate(Project).scalar_subquery()
    query = (
        _releases()
        .add_columns(Release.project_id)
        # The sum keeps SQLite from going through all releases first.
        .join(Project, (Release.project_id == Project.id + 0) & (Release.number == newest))
    )
    if project_id is not None:
        query = query.where(Project.id == project_id)
    return {row[-1]: ReleaseRow(*row[:-1]) for row in session.execute(query)}


def _releases() -> Select[*tuple[Any, ...]]:
    return select(*rows.RELEASE)


def _promotions() -> Select[*tuple[Any, ...]]:
    return select(*rows.PROMOTION_COLUMNS).join(Release, Release.id == Promotion.release_id)


def _deployments(columns: tuple[Any, ...]) -> Select[*tuple[Any, ...]]:
    return (
        select(*columns)
        .join(Promotion, Promotion.id == Deployment.promotion_id)
        .join(Release, Release.id == Deployment.release_id)
    )
