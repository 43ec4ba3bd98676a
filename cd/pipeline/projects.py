"""Projects: connected, listed, found, let go."""

from __future__ import annotations

import base64
import re
import secrets
from typing import Any, Protocol

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from cd.errors import Conflict, NotFound, UserError
from cd.identity import audit
from cd.pipeline.ending import GIVE_WAY
from cd.pipeline.git import check_url
from cd.pipeline.records import Project
from cd.store import events
from cd.store.base import now

#: Most builds and stages of one project at a time that can be set.
MAX_PARALLEL = 1000
SLUG = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
#: Forge of hosted repositories: their hook signs as Standard Webhooks.
HOSTED_FORGE = "generic"


class Vault(Protocol):
    """What this module needs of `cd.identity.vault.Vault`."""

    def encrypt(self, text: str, about: str) -> bytes:
        """Encrypted `text`, bound to `about`."""

    def decrypt(self, blob: bytes, about: str) -> str:
        """The text again; raises when `about` is another one."""


def create(
    session: Session, vault: Vault, *, slug: str, forge: str, clone_url: str | None, actor: str
) -> tuple[Project, str]:
    """Add a project; returns it with its webhook secret in clear, the only time that it is shown.

    Without `clone_url` it is hosted: the caller makes the repository, see `Repositories.create_hosted`.
    Whether `forge` is one that webhooks are understood of is the caller's to check.
    """
    _check_slug(slug)
    if clone_url is not None:
        check_url(clone_url)
    elif forge != HOSTED_FORGE:
        raise UserError(f"a hosted project has no forge {forge!r}", remedy=f"leave it out, or give {HOSTED_FORGE}")
    if session.scalar(select(Project.id).where(Project.slug == slug)) is not None:
        raise Conflict(f"there is a project {slug!r} already", remedy="choose another name")
    clear = new_secret(forge)
    project = Project(
        slug=slug,
        forge=forge,
        clone_url=clone_url,
        webhook_secret=vault.encrypt(clear, _about(slug)),
        created_at=now(),
    )
    session.add(project)
    session.flush()
    audit.append(session, actor, "project.create", slug, forge=forge, clone_url=clone_url)
    events.append(session, "project.created", project_id=project.id, subject=project.id)
    return project, clear


def find(session: Session, slug: str) -> Project:
    """The project of that name. Raises NotFound."""
    found = select(Project).where(Project.slug == slug, Project.deleted_at.is_(None))
    # PostgreSQL refuses some texts, such as those with NUL, instead of finding nothing.
    project = session.scalar(found) if SLUG.fullmatch(slug) else None
    if project is None:
        raise NotFound(f"there is no project {slug[:80]!r}")
    return project


def listing(session: Session) -> list[Project]:
    """All projects by name."""
    return list(session.scalars(select(Project).where(Project.deleted_at.is_(None)).order_by(Project.slug)))


def configure(
    session: Session,
    project: Project,
    actor: str,
    *,
    supersede: str | None = None,
    parallel: int | None = None,
    keep_failed: bool | None = None,
) -> None:
    """Change settings of a project; None leaves one as it is, 0 for `parallel` takes the limit away."""
    wanted = {"supersede": supersede, "parallel": parallel, "keep_failed": keep_failed}
    values = {name: value for name, value in wanted.items() if value is not None}
    if supersede is not None and supersede not in GIVE_WAY:
        raise UserError(f"{supersede!r} is no way to supersede", where="supersede", remedy=f"use {', '.join(GIVE_WAY)}")
    if parallel is not None and not 0 <= parallel <= MAX_PARALLEL:
        raise UserError(
            f"{parallel} is no number of stages at a time",
            where="parallel",
            remedy=f"use 1 to {MAX_PARALLEL}, or 0 for no limit",
        )
    for name, value in values.items():
        setattr(project, name, (value or None) if name == "parallel" else value)
    session.flush()
    audit.append(session, actor, "project.configure", project.slug, **values)
    events.append(session, "project.configured", project_id=project.id, subject=project.id)


def delete(session: Session, project: Project, actor: str) -> None:
    """Let a project go: its history stays, its name is free again, its webhooks are refused."""
    old = project.slug
    gone = session.execute(
        update(Project)
        .where(Project.id == project.id, Project.deleted_at.is_(None))
        .values(deleted_at=now(), slug=f"{old[:40]}~{project.id}")
        .returning(Project.id)
    ).one_or_none()
    if gone is None:
        raise NotFound(f"there is no project {old!r}")
    audit.append(session, actor, "project.delete", old)
    events.append(session, "project.deleted", project_id=project.id, subject=project.id)


def secret(vault: Vault, project: Project) -> str:
    """The project's webhook secret in clear."""
    return vault.decrypt(project.webhook_secret, _about(project.slug))


def new_secret(forge: str) -> str:
    """A fresh webhook secret; in the form of Standard Webhooks where the forge signs by it."""
    if forge == HOSTED_FORGE:
        return "whsec_" + base64.b64encode(secrets.token_bytes(24)).decode()
    return secrets.token_urlsafe(32)


def _check_slug(slug: Any) -> None:
    if not isinstance(slug, str) or not SLUG.fullmatch(slug):
        raise UserError(f"{slug!r} can't be a project's name", remedy="use a-z, 0-9 and -, at most 63 characters")


def _about(slug: str) -> str:
    return f"webhook/{slug}"
