"""Environments, releases and promotions."""

from __future__ import annotations

from collections.abc import Iterable

from flask import Response, request
from sqlalchemy import select

from cd.errors import Conflict
from cd.identity.people import Role
from cd.pipeline import projects
from cd.pipeline import queries as pipeline
from cd.promote import environments, policy, promotions, queries, releases
from cd.promote.records import Deployment, Environment, Promotion, Release
from cd.promote.rows import PROMOTION_COLUMNS, PromotionRow, promotion
from cd.web.api import models
from cd.web.api.common import part, shown
from cd.web.context import access, services, who

api = part("promotions")


@api.get("/projects/<slug>/environments", responses={200: models.Environments})
@access(Role.viewer)
def list_environments(path: models.ProjectPath) -> Response:
    """The environments of a project, with what runs there and what wants to."""
    return _environments(path.slug)


def _environments(slug: str) -> Response:
    with services().database.read() as session:
        slots = queries.environments(session, pipeline.project(session, slug).id)
    return shown(models.Environments(items=[models.Environment.model_validate(slot) for slot in slots]))


@api.put("/projects/<slug>/environments", responses={200: models.Environments})
@access(Role.admin)
def apply_environments(path: models.ProjectPath) -> Response:
    """Put the environments of a file (YAML or JSON, as the body) in place of those there are."""
    specs = policy.parse(request.get_data(), "environments.yml")
    with services().database.write() as session:
        environments.apply(session, projects.find(session, path.slug), specs, who().username)
    return _environments(path.slug)


@api.post("/projects/<slug>/environments/<name>/hold", responses={200: models.Environments})
@access(Role.approver)
def hold(path: models.EnvironmentPath, body: models.Hold) -> Response:
    """Pin what runs there: nothing is promoted by itself until it is let go."""
    with services().database.write() as session:
        found = environments.find(session, projects.find(session, path.slug).id, path.name)
        environments.hold(session, found, body.reason, who().username)
    return _environments(path.slug)


@api.delete("/projects/<slug>/environments/<name>/hold", responses={200: models.Environments})
@access(Role.approver)
def unhold(path: models.EnvironmentPath) -> Response:
    """Let go."""
    with services().database.write() as session:
        found = environments.find(session, projects.find(session, path.slug).id, path.name)
        environments.unhold(session, found, who().username)
    return _environments(path.slug)


@api.post("/projects/<slug>/environments/<name>/rollback", responses={201: models.PromotionDetail})
@access(Role.developer)
def rollback(path: models.EnvironmentPath, body: models.Rollback) -> Response:
    """Go back to an earlier release; the environment is held, so that nothing undoes it.

    Takes the role approver where promotions take approvals.
    """
    with services().database.write() as session:
        project = projects.find(session, path.slug)
        environment = environments.find(session, project.id, path.name)
        if body.release is None:
            before = session.scalars(
                select(Deployment)
                .where(Deployment.environment_id == environment.id, Deployment.state == "retired")
                .order_by(Deployment.id.desc())
                .limit(1)
            ).one_or_none()
            if before is None:
                raise Conflict(f"nothing was live in {path.name} before", remedy="name a release")
            release = session.get_one(Release, before.release_id)
        else:
            release = releases.find(session, project.id, body.release)
        made = promotions.rollback(session, environment, release, who(), body.reason)
    return _promotion(made.id, 201)


@api.get("/projects/<slug>/releases", responses={200: models.Releases})
@access(Role.viewer)
def list_releases(path: models.ProjectPath, query: models.Page) -> Response:
    """Releases of a project, newest first."""
    with services().database.read() as session:
        project = pipeline.project(session, path.slug)
        rows = queries.releases(session, project.id, query.before, query.limit)
    older = rows[-1].number if len(rows) == query.limit and rows[-1].number > 1 else None
    return shown(models.Releases(items=[models.Release.model_validate(row) for row in rows], next=older))


@api.get("/promotions", responses={200: models.Promotions})
@access(Role.viewer)
def list_waiting() -> Response:
    """Promotions that wait for a person's vote, in all projects."""
    with services().database.read() as session:
        rows = queries.waiting(session)
    return shown(models.Promotions(items=_placed(rows)))


@api.get("/projects/<slug>/promotions", responses={200: models.Promotions})
@access(Role.viewer)
def list_promotions(path: models.ProjectPath, query: models.PromotionQuery) -> Response:
    """Promotions of a project or of one environment, newest first."""
    with services().database.read() as session:
        project = pipeline.project(session, path.slug)
        wanted = (
            select(*PROMOTION_COLUMNS, Environment.name)
            .join(Release, Release.id == Promotion.release_id)
            .join(Environment, Environment.id == Promotion.environment_id)
            .where(Promotion.project_id == project.id)
            .order_by(Promotion.id.desc())
            .limit(query.limit)
        )
        if query.before is not None:
            wanted = wanted.where(Promotion.id < query.before)
        if query.environment is not None:
            wanted = wanted.where(
                Promotion.environment_id == environments.find(session, project.id, query.environment).id
            )
        rows = [(project.slug, str(row[-1]), promotion(row)) for row in session.execute(wanted)]
    older = rows[-1][2].id if len(rows) == query.limit else None
    return shown(models.Promotions(items=_placed(rows), next=older))


def _placed(rows: Iterable[tuple[str, str, PromotionRow]]) -> list[models.PlacedPromotion]:
    return [
        models.PlacedPromotion(
            **models.Promotion.model_validate(row).model_dump(), project=project, environment=environment
        )
        for project, environment, row in rows
    ]


@api.post("/projects/<slug>/promotions", responses={201: models.PromotionDetail})
@access(Role.developer)
def request_promotion(path: models.ProjectPath, body: models.NewPromotion) -> Response:
    """Ask for a release to be brought into an environment."""
    with services().database.write() as session:
        project = projects.find(session, path.slug)
        environment = environments.find(session, project.id, body.environment)
        release = releases.find(session, project.id, body.release)
        made = promotions.request(session, project, environment, release, who())
    return _promotion(made.id, 201)


@api.get("/promotions/<int:promotion>", responses={200: models.PromotionDetail})
@access(Role.viewer)
def show_promotion(path: models.PromotionPath) -> Response:
    """One promotion with its gates: what it waits for, and who can help."""
    return _promotion(path.promotion)


def _promotion(promotion_id: int, status: int = 200) -> Response:
    with services().database.read() as session:
        detail = queries.promotion(session, promotion_id)
        row = promotions.find(session, promotion_id)
        gates = promotions.gates(session, row) if detail.promotion.pending else ()
        why_not = promotions.may_approve(session, row, who())
    deployment = detail.deployment
    answer = models.PromotionDetail(
        **models.Promotion.model_validate(detail.promotion).model_dump(),
        project=detail.project.slug,
        environment=detail.environment.name,
        gates=[models.Gate.model_validate(gate) for gate in gates],
        why_not=why_not,
        votes=[models.Vote.model_validate(vote) for vote in detail.votes],
        timeline=[models.Moment.model_validate(one) for one in deployment.timeline] if deployment else [],
        evidence=dict(deployment.evidence) if deployment else {},
    )
    return shown(answer, status)


@api.post("/promotions/<int:promotion>/approve", responses={200: models.PromotionDetail})
@access(Role.viewer)
def approve(path: models.PromotionPath, body: models.VoteBody) -> Response:
    """Vote for it. Who may is said by the environment's policy."""
    with services().database.write() as session:
        promotions.approve(session, path.promotion, who(), body.fingerprint, body.comment)
    return _promotion(path.promotion)


@api.post("/promotions/<int:promotion>/reject", responses={200: models.PromotionDetail})
@access(Role.viewer)
def reject(path: models.PromotionPath, body: models.VoteBody) -> Response:
    """Vote against it, which ends it."""
    with services().database.write() as session:
        promotions.reject(session, path.promotion, who(), body.fingerprint, body.comment)
    return _promotion(path.promotion)


@api.post("/promotions/<int:promotion>/cancel", responses={200: models.PromotionDetail})
@access(Role.developer)
def cancel(path: models.PromotionPath) -> Response:
    """Take it back while nothing is deployed yet."""
    with services().database.write() as session:
        promotions.cancel(session, path.promotion, who())
    return _promotion(path.promotion)
