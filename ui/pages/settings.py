"""For admins: connecting a project, its environments as a file, its secrets, letting it go."""

from __future__ import annotations

from dataclasses import dataclass

from flask import Blueprint, render_template, request, url_for
from flask.typing import ResponseReturnValue

from cd.documents import DocumentError
from cd.errors import TowpathError, UserError
from cd.identity.people import Role
from cd.pipeline import projects, queries, secrets
from cd.pipeline.records import Project
from cd.promote import environments, policy
from cd.web.context import access, services, who
from cd.webhooks.forges import FORGES
from ui import policyfile
from ui.pages.common import done, field


@dataclass(frozen=True)
class Connected:
    """What is shown once of a new project."""

    slug: str
    webhook_url: str
    secret: str
    push_url: str


def register(pages: Blueprint) -> None:
    """New project, settings, environments, secrets, deletion."""
    pages.add_url_rule("/projects/new", "new_project", access(Role.admin)(new))
    pages.add_url_rule("/projects/new", "create_project", access(Role.admin)(create), methods=["POST"])
    pages.add_url_rule("/projects/<slug>/settings", "settings", access(Role.admin)(show))
    pages.add_url_rule("/projects/<slug>/settings", "apply", access(Role.admin)(apply), methods=["POST"])
    pages.add_url_rule("/projects/<slug>/secrets", "set_secret", access(Role.admin)(set_secret), methods=["POST"])
    pages.add_url_rule(
        "/projects/<slug>/secrets/delete", "delete_secret", access(Role.admin)(delete_secret), methods=["POST"]
    )
    pages.add_url_rule("/projects/<slug>/delete", "delete_project", access(Role.admin)(delete), methods=["POST"])


def new() -> ResponseReturnValue:
    """The form."""
    return render_template("ui/new_project.html", forges=list(FORGES), fault="", form={})


def create() -> ResponseReturnValue:
    """Connect the repository and show its webhook's secret, this once."""
    try:
        made = _create()
    except UserError as error:
        page = render_template("ui/new_project.html", forges=list(FORGES), fault=str(error), form=request.form)
        return page, error.status
    return render_template("ui/connected.html", made=made)


def _create() -> Connected:
    hosted = request.form.get("where") == "hosted"
    forge = projects.HOSTED_FORGE if hosted else field("forge", 32)
    clone_url = None if hosted else field("clone_url")
    if not hosted and not clone_url:
        raise UserError("the clone URL is missing", remedy="give it, or let Towpath host the repository")
    if forge not in FORGES:
        raise UserError(f"webhooks of {forge!r} are not understood", remedy=f"known: {', '.join(FORGES)}")
    parts = services()
    with parts.database.write() as session:
        project, secret = projects.create(
            session, parts.vault, slug=field("slug", 63), forge=forge, clone_url=clone_url, actor=who().username
        )
    push_url = _host(project, secret) if hosted else ""
    return Connected(project.slug, f"{parts.settings.url}/hooks/{project.slug}", secret, push_url)


def _host(project: Project, secret: str) -> str:
    """The repository of a new hosted project; where it can't be made, the project is let go again."""
    try:
        return str(services().repositories.create_hosted(project, secret))
    except (OSError, TowpathError):
        with services().database.write() as session:
            projects.delete(session, projects.find(session, project.slug), who().username)
        raise


def show(slug: str) -> ResponseReturnValue:
    """The settings of a project."""
    return _page(slug)


def _page(
    slug: str,
    text: str | None = None,
    marks: list[policyfile.Marked] | None = None,
    fault: str = "",
    **more: str,
) -> str:
    with services().database.read() as session:
        project = queries.project(session, slug)
        rows = environments.listing(session, project.id)
        kept = secrets.listing(session, project.id)
    return render_template(
        "ui/settings.html",
        project=project,
        text=policyfile.text(rows) if text is None else text,
        fresh=not rows,
        marks=marks or [],
        fault=fault,
        webhook_url=f"{services().settings.url}/hooks/{slug}",
        secrets=kept,
        **more,
    )


def apply(slug: str) -> ResponseReturnValue:
    """Put the environments of the file in place of those there are."""
    text = request.form.get("text", "").replace("\r\n", "\n")
    try:
        specs = policy.parse(text.encode())
        with services().database.write() as session:
            environments.apply(session, projects.find(session, slug), specs, who().username)
    except DocumentError as error:
        return _page(slug, text, policyfile.marked(error.faults, text)), error.status
    except UserError as error:
        return _page(slug, text, fault=str(error)), error.status
    return done("The environments are applied.", url_for("ui.project", slug=slug))


def set_secret(slug: str) -> ResponseReturnValue:
    """Store a secret. Whatever comes of it, the page does not have the value."""
    name, parts = field("name", 200), services()
    try:
        with parts.database.write() as session:
            project = projects.find(session, slug)
            value = request.form.get("value", "")
            secrets.put(session, parts.vault, project, name, value=value, actor=who().username)
    except UserError as error:
        return _page(slug, secret_fault=str(error), secret_name=name), error.status
    return done(f"{name} is stored.", url_for("ui.settings", slug=slug, _anchor="secrets"))


def delete_secret(slug: str) -> ResponseReturnValue:
    """Forget a secret."""
    name = field("name", 200)
    with services().database.write() as session:
        secrets.delete(session, projects.find(session, slug), name, who().username)
    return done(f"{name} is forgotten.", url_for("ui.settings", slug=slug, _anchor="secrets"))


def delete(slug: str) -> ResponseReturnValue:
    """Let a project go, for who typed its name."""
    if field("slug", 63) != slug:
        raise UserError("the name that you typed is not the project's", remedy=f"type {slug} to delete it")
    with services().database.write() as session:
        project = projects.find(session, slug)
        environments.remove_all(session, project, who().username)
        projects.delete(session, project, who().username)
    return done(f"{slug} is deleted; its history stays in the audit log.", url_for("ui.board"))
