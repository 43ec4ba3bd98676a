"""The page of a project: where its releases run, what is waiting, its runs and releases, and forms to act."""

from __future__ import annotations

from flask import Blueprint, render_template, url_for
from flask.typing import ResponseReturnValue

from cd.errors import NotFound
from cd.identity.people import Role
from cd.pipeline import projects, queries, runs
from cd.promote import environments, promotions, releases
from cd.promote import queries as promoting
from cd.promote.rows import ReleaseRow, Slot
from cd.store import events
from cd.web.context import access, services, who
from ui.pages import board
from ui.pages.common import argument, done, field, number

RUNS_A_PAGE = 20


def register(pages: Blueprint) -> None:
    """The project's page and its forms."""
    pages.add_url_rule("/projects/<slug>", "project", access(Role.viewer)(show))
    pages.add_url_rule("/projects/<slug>/runs", "start_run", access(Role.developer)(start), methods=["POST"])
    pages.add_url_rule("/projects/<slug>/promote", "promote", access(Role.developer)(promote), methods=["POST"])


def show(slug: str) -> ResponseReturnValue:
    """One project."""
    with services().database.read() as session:
        cursor = events.newest(session)
        project = queries.project(session, slug)
        slots = promoting.environments(session, project.id)
        listed = queries.page(session, project.id, argument("before"), RUNS_A_PAGE)
        made = promoting.releases(session, project.id, limit=10)
    places = [board.Place(slot, board.upcoming(slot)) for slot in slots]
    return render_template(
        "ui/project.html",
        project=project,
        places=places,
        runs=listed,
        releases=[(one, _live_in(slots, one)) for one in made],
        takers=slots,
        cursor=cursor,
        push_url=_push_url(slug) if project.hosted else "",
    )


def _live_in(slots: list[Slot], release: ReleaseRow) -> list[str]:
    return [slot.name for slot in slots if slot.live and slot.live.release.id == release.id]


def _push_url(slug: str) -> str:
    with services().database.read() as session:
        return str(services().repositories.path(projects.find(session, slug)))


def start(slug: str) -> ResponseReturnValue:
    """Run the pipeline now, for what the repository has at a branch or a tag."""
    name = field("ref", 250) or "main"
    parts = services()
    with parts.database.read() as session:
        project = projects.find(session, slug)
    for ref in [name] if name.startswith("refs/") else [f"refs/heads/{name}", f"refs/tags/{name}"]:
        sha = parts.repositories.resolve(project, ref)
        if sha is not None:
            with parts.database.write() as session:
                run = runs.start(session, projects.find(session, slug), ref, sha, who().username)
            return done(f"Run #{run.number} is on its way.", url_for("ui.run", slug=slug, number=run.number))
    raise NotFound(f"the repository has no branch or tag {name!r}", remedy="push it first, or name another one")


def promote(slug: str) -> ResponseReturnValue:
    """Ask for a release to come into an environment."""
    person = who()
    with services().database.write() as session:
        project = projects.find(session, slug)
        environment = environments.find(session, project.id, field("environment", 63))
        release = releases.find(session, project.id, number("release"))
        promotion = promotions.request(session, project, environment, release, person)
    text = f"Release #{release.number} is asked for in {environment.name}."
    return done(text, url_for("ui.promotion", promotion_id=promotion.id))
