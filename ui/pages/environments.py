"""An environment's history, and the forms to hold it and to roll it back."""

from __future__ import annotations

from flask import Blueprint, render_template, url_for
from flask.typing import ResponseReturnValue
from sqlalchemy.orm import Session

from cd.errors import NotFound
from cd.identity.people import Role
from cd.pipeline import projects, queries
from cd.promote import environments, promotions, releases
from cd.promote import queries as promoting
from cd.promote.records import Environment
from cd.store import events
from cd.web.context import access, services, who
from ui.pages import board
from ui.pages.common import argument, done, field, number

A_PAGE = 20


def register(pages: Blueprint) -> None:
    """History, hold, unhold, rollback."""
    base = "/projects/<slug>/environments/<name>"
    pages.add_url_rule(base, "environment", access(Role.viewer)(show))
    pages.add_url_rule(f"{base}/hold", "hold", access(Role.approver)(hold), methods=["POST"])
    pages.add_url_rule(f"{base}/unhold", "unhold", access(Role.approver)(unhold), methods=["POST"])
    pages.add_url_rule(f"{base}/rollback", "rollback", access(Role.developer)(rollback), methods=["POST"])


def show(slug: str, name: str) -> ResponseReturnValue:
    """What was deployed here and when."""
    with services().database.read() as session:
        cursor = events.newest(session)
        project = queries.project(session, slug)
        slot = next((one for one in promoting.environments(session, project.id) if one.name == name), None)
        if slot is None:
            raise NotFound(f"{slug} has no environment {name!r}", remedy="look at the project's page")
        history = promoting.history(session, slot.id, argument("before"), A_PAGE + 1)
    older = history[A_PAGE - 1].id if len(history) > A_PAGE else None
    return render_template(
        "ui/environment.html",
        project=project,
        place=board.Place(slot, board.upcoming(slot)),
        history=history[:A_PAGE],
        older=older,
        cursor=cursor,
    )


def hold(slug: str, name: str) -> ResponseReturnValue:
    """Pin what runs here: nothing but a rollback is promoted until somebody lets go."""
    reason = field("reason", 500)
    with services().database.write() as session:
        environments.hold(session, _find(session, slug, name), reason, who().username)
    return done(f"{name} is held.", url_for("ui.environment", slug=slug, name=name))


def unhold(slug: str, name: str) -> ResponseReturnValue:
    """Let promotions in again."""
    with services().database.write() as session:
        environments.unhold(session, _find(session, slug, name), who().username)
    return done(f"{name} takes promotions again.", url_for("ui.environment", slug=slug, name=name))


def rollback(slug: str, name: str) -> ResponseReturnValue:
    """Go back to an earlier release, without waiting for approval; puts a hold on the environment."""
    with services().database.write() as session:
        environment = _find(session, slug, name)
        release = releases.find(session, environment.project_id, number("release"))
        promotion = promotions.rollback(session, environment, release, who(), field("reason", 500))
    text = f"{name} goes back to release #{release.number}."
    return done(text, url_for("ui.promotion", promotion_id=promotion.id))


def _find(session: Session, slug: str, name: str) -> Environment:
    return environments.find(session, projects.find(session, slug).id, name)
