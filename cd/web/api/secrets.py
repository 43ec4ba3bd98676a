"""Secrets of a project. Their values go in and never come out."""

from __future__ import annotations

from flask import Response

from cd.identity.people import Role
from cd.pipeline import projects, queries, secrets
from cd.web.api import models
from cd.web.api.common import part, shown
from cd.web.context import access, services, who

api = part("secrets")


@api.get("/projects/<slug>/secrets", responses={200: models.Secrets})
@access(Role.admin)
def list_secrets(path: models.ProjectPath) -> Response:
    """All secrets by name, without their values."""
    with services().database.read() as session:
        rows = secrets.listing(session, queries.project(session, path.slug).id)
    return shown(models.Secrets(items=[models.Secret.model_validate(row) for row in rows]))


@api.put("/projects/<slug>/secrets/<name>", responses={200: models.StoredSecret})
@access(Role.admin)
def put_secret(path: models.SecretPath, body: models.SecretValue) -> Response:
    """Store a secret, in the place of one of that name. What is running has the old value still."""
    parts = services()
    with parts.database.write() as session:
        version = secrets.put(
            session,
            parts.vault,
            projects.find(session, path.slug),
            path.name,
            value=body.value.get_secret_value(),
            actor=who().username,
        )
    return shown(models.StoredSecret(name=path.name, version=version))


@api.delete("/projects/<slug>/secrets/<name>", responses={204: None})
@access(Role.admin)
def delete_secret(path: models.SecretPath) -> Response:
    """Forget a secret's value: stages that ask for it fail from then on."""
    with services().database.write() as session:
        secrets.delete(session, projects.find(session, path.slug), path.name, who().username)
    return Response(status=204)
