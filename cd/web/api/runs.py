"""Runs and their steps."""

from __future__ import annotations

from flask import Response
from sqlalchemy import select
from sqlalchemy.orm import Session

from cd.errors import NotFound
from cd.identity.people import Role
from cd.pipeline import projects, queries, runs, waiting
from cd.pipeline.records import Run
from cd.promote import queries as promote
from cd.promote import releases
from cd.web.api import models
from cd.web.api.common import part, shown
from cd.web.context import access, services, who

api = part("runs")


@api.get("/projects/<slug>/runs", responses={200: models.Runs})
@access(Role.viewer)
def list_runs(path: models.ProjectPath, query: models.Page) -> Response:
    """Runs of a project, newest first."""
    with services().database.read() as session:
        page = queries.page(session, queries.project(session, path.slug).id, query.before, query.limit)
    return shown(models.Runs(items=[models.Run.model_validate(row) for row in page.rows], next=page.older))


@api.get("/projects/<slug>/runs/<int:number>", responses={200: models.RunDetail})
@access(Role.viewer)
def show_run(path: models.RunPath) -> Response:
    """One run with its steps."""
    return _shown(path.slug, path.number)


def _shown(slug: str, number: int, status: int = 200) -> Response:
    with services().database.read() as session:
        detail = queries.detail(session, slug, number)
        release = promote.release_of_run(session, detail.run.id)
        waits = {} if detail.run.ended else waiting.look(session, detail, services().doorbell.workers())
    told = {
        **models.Run.model_validate(detail.run).model_dump(),
        "message": detail.message,
        "notes": detail.notes,
        "image": detail.image,
        "tree": detail.tree,
        "fresh": detail.fresh,
        "canceled_by": detail.canceled_by,
        "retry_of": detail.retry_of,
        "steps": [
            models.Step.model_validate(step).model_copy(
                update={"waits": models.Waits.model_validate(waits[step.id])} if step.id in waits else {}
            )
            for step in detail.steps
        ],
        "release": release.number if release is not None else None,
    }
    return shown(models.RunDetail.model_validate(told), status)


@api.post("/projects/<slug>/runs", responses={201: models.RunDetail})
@access(Role.developer)
def start_run(path: models.ProjectPath, body: models.NewRun) -> Response:
    """A run of what a branch or tag is now."""
    parts = services()
    with parts.database.read() as session:
        project = projects.find(session, path.slug)
    candidates = [body.ref] if body.ref.startswith("refs/") else [f"refs/heads/{body.ref}", f"refs/tags/{body.ref}"]
    for ref in candidates:
        sha = parts.repositories.resolve(project, ref)
        if sha is not None:
            with parts.database.write() as session:
                run = runs.start(session, projects.find(session, path.slug), ref, sha, who().username)
            return _shown(path.slug, run.number, 201)
    raise NotFound(f"the repository has no branch or tag {body.ref!r}", remedy="push it first")


@api.post("/projects/<slug>/runs/<int:number>/cancel", responses={200: models.RunDetail})
@access(Role.developer)
def cancel_run(path: models.RunPath) -> Response:
    """End a run; its containers are stopped."""
    with services().database.write() as session:
        runs.cancel(session, find(session, path), who().username, releases.run_ended)
    return _shown(path.slug, path.number)


@api.post("/projects/<slug>/runs/<int:number>/retry", responses={201: models.RunDetail})
@access(Role.developer)
def retry_run(path: models.RunPath, body: models.Retry) -> Response:
    """A new run of the same commit; what passed stands, so that only what failed runs again."""
    with services().database.write() as session:
        project = projects.find(session, path.slug)
        again = runs.retry(session, project, find(session, path), who().username, fresh=body.fresh, failed=body.failed)
    return _shown(path.slug, again.number, 201)


def find(session: Session, path: models.RunPath) -> Run:
    """The run of that number. Raises NotFound."""
    project = projects.find(session, path.slug)
    run = session.scalar(select(Run).where(Run.project_id == project.id, Run.number == path.number))
    if run is None:
        raise NotFound(f"{path.slug} has no run #{path.number}")
    return run
