"""Projects: repositories connected to Towpath."""

from __future__ import annotations

from pathlib import Path

from flask import Response

from cd.errors import TowpathError, UserError
from cd.identity.people import Role
from cd.pipeline import attempts, projects, queries, reuse
from cd.pipeline.records import Project
from cd.promote import environments
from cd.promote import queries as promote
from cd.web.api import models
from cd.web.api.common import part, shown
from cd.web.context import access, services, who
from cd.webhooks.forges import FORGES

api = part("projects")


@api.get("/board", responses={200: models.Board})
@access(Role.viewer)
def board() -> Response:
    """Every project with its last runs and its environments."""
    with services().database.read() as session:
        rows = promote.board(session)
    items = [
        models.BoardProject(
            slug=row.project.slug,
            runs=[models.Run.model_validate(run) for run in row.runs],
            environments=[models.Environment.model_validate(slot) for slot in row.slots],
        )
        for row in rows
    ]
    return shown(models.Board(items=items))


@api.get("/projects", responses={200: models.Projects})
@access(Role.viewer)
def list_projects() -> Response:
    """All projects by name."""
    with services().database.read() as session:
        rows = queries.projects(session)
    return shown(models.Projects(items=[models.Project.model_validate(row) for row in rows]))


@api.get("/projects/<slug>", responses={200: models.Project})
@access(Role.viewer)
def show_project(path: models.ProjectPath) -> Response:
    """One project."""
    with services().database.read() as session:
        return shown(models.Project.model_validate(queries.project(session, path.slug)))


@api.post("/projects", responses={201: models.CreatedProject})
@access(Role.admin)
def create_project(body: models.NewProject) -> Response:
    """Connect a repository, or make a hosted one."""
    if body.hosted == (body.clone_url is not None):
        raise UserError("a project has a clone URL or is hosted", remedy="give clone_url, or hosted: true")
    if body.forge not in FORGES:
        raise UserError(f"webhooks of {body.forge!r} are not understood", remedy=f"known: {', '.join(FORGES)}")
    parts = services()
    with parts.database.write() as session:
        project, secret = projects.create(
            session,
            parts.vault,
            slug=body.slug,
            forge=body.forge,
            clone_url=body.clone_url,
            actor=who().username,
        )
    push_url = str(_host(project, secret)) if body.hosted else None
    answer = models.CreatedProject(
        slug=project.slug,
        forge=project.forge,
        clone_url=project.clone_url,
        hosted=project.hosted,
        created_at=project.created_at,
        supersede=project.supersede,
        parallel=project.parallel,
        keep_failed=project.keep_failed,
        webhook_url=f"{parts.settings.url}/hooks/{project.slug}",
        webhook_secret=secret,
        push_url=push_url,
    )
    return shown(answer, 201)


def _host(project: Project, secret: str) -> Path:
    """The repository of a new hosted project; where it can't be made, the project is let go again."""
    parts = services()
    try:
        return parts.repositories.create_hosted(project, secret)
    except (OSError, TowpathError):
        with parts.database.write() as session:
            projects.delete(session, projects.find(session, project.slug), who().username)
        raise


@api.patch("/projects/<slug>", responses={200: models.Project})
@access(Role.admin)
def configure_project(path: models.ProjectPath, body: models.ProjectSettings) -> Response:
    """Change settings of a project; what is left out stays as it is."""
    with services().database.write() as session:
        projects.configure(session, projects.find(session, path.slug), who().username, **body.model_dump())
    with services().database.read() as session:
        return shown(models.Project.model_validate(queries.project(session, path.slug)))


@api.get("/projects/<slug>/flakes", responses={200: models.Flakes})
@access(Role.viewer)
def list_flakes(path: models.ProjectPath, query: models.FlakeQuery) -> Response:
    """Stages that both passed and failed for the same image and key, the latest first."""
    with services().database.read() as session:
        found = attempts.flakes(session, queries.project(session, path.slug).id, query.limit)
    return shown(models.Flakes(items=[models.Flake.model_validate(row) for row in found]))


@api.get("/projects/<slug>/reuse", responses={200: models.Reuse})
@access(Role.viewer)
def show_reuse(path: models.ProjectPath) -> Response:
    """What standing on earlier results spared, and how often it was wrong."""
    with services().database.read() as session:
        counted = reuse.counts(session, queries.project(session, path.slug).id)
    return shown(models.Reuse.model_validate(counted))


@api.delete("/projects/<slug>", responses={204: None})
@access(Role.admin)
def delete_project(path: models.ProjectPath) -> Response:
    """Let a project go: what runs in its environments is removed, its history stays."""
    with services().database.write() as session:
        project = projects.find(session, path.slug)
        environments.remove_all(session, project, who().username)
        projects.delete(session, project, who().username)
    return Response(status=204)
