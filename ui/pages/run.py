"""The page of a run: its picture, its steps, and the log of one of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from flask import Blueprint, render_template, request, url_for
from flask.typing import ResponseReturnValue
from sqlalchemy import select
from sqlalchemy.orm import Session

from cd.errors import NotFound
from cd.identity.people import Role
from cd.pipeline import kept, projects, queries, runs, waiting
from cd.pipeline.queries import RunDetail, StepRow
from cd.pipeline.records import Run
from cd.promote import queries as promoting
from cd.promote import releases
from cd.store import events
from cd.store.base import now
from cd.web.context import access, services, who
from ui import graph
from ui.pages import logs, tests
from ui.pages.common import argument, done


@dataclass(frozen=True)
class Bar:
    """When a step waited and ran, in percent of the whole run."""

    queued: float
    begin: float
    width: float


def register(pages: Blueprint) -> None:
    """The page and its forms."""
    base = "/projects/<slug>/runs/<int:number>"
    pages.add_url_rule(base, "run", access(Role.viewer)(show))
    pages.add_url_rule(f"{base}/cancel", "cancel_run", access(Role.developer)(cancel), methods=["POST"])
    pages.add_url_rule(f"{base}/retry", "retry_run", access(Role.developer)(retry), methods=["POST"])


def show(slug: str, number: int) -> ResponseReturnValue:
    """One run, with the log of the step in `?step=` or of the one that matters most."""
    with services().database.read() as session:
        cursor = events.newest(session)
        detail = queries.detail(session, slug, number)
        chosen = choose(detail.steps, request.args.get("step"))
        log = _window(session, chosen) if chosen else None
        files = kept.of_step(session, chosen.id, log.attempt) if chosen and log else None
        release = promoting.release_of_run(session, detail.run.id)
        promotions = promoting.promotions_of(session, release.id) if release else []
        left = tests.left(session, detail.run.id)
        waits = {} if detail.run.ended else waiting.look(session, detail, services().doorbell.workers())
    search = logs.search(chosen, log.attempt) if chosen and log else None
    return render_template(
        "ui/run.html",
        detail=detail,
        run=detail.run,
        picture=graph.draw(detail.steps),
        bars=bars(detail, now()),
        chosen=chosen,
        log=log,
        search=search,
        kept=files,
        release=release,
        promotions=promotions,
        cursor=cursor,
        waits=waits,
        **left,
    )


def _window(session: Session, step: StepRow) -> logs.Shown:
    times = argument("times") == 1
    return logs.window(session, step, argument("attempt"), argument("line"), times=times)


def choose(steps: Sequence[StepRow], name: str | None) -> StepRow | None:
    """The step of that name; without a name what failed first, then what runs, then what ended last."""
    for step in steps:
        if step.name == name:
            return step
    order = {"failed": 0, "errored": 0, "running": 1}
    begun = [step for step in steps if step.attempt or step.state in order]
    best = min((order.get(step.state, 2) for step in begun), default=2)
    fitting = [step for step in begun if order.get(step.state, 2) == best]
    return (fitting[0] if best < 2 else fitting[-1]) if fitting else None


def bars(detail: RunDetail, at: datetime) -> dict[int, Bar]:
    """The steps that ran, by their ids, over the time from the run's creation to its end, or to `at`."""
    start = detail.run.created_at
    whole = max(0.001, ((detail.run.finished_at or at) - start).total_seconds())

    def percent(time: datetime) -> float:
        return min(100.0, max(0.0, (time - start).total_seconds() / whole * 100))

    found = {}
    for step in detail.steps:
        if step.started_at is not None:
            begin = percent(step.started_at)
            end = percent(step.finished_at or at)
            queued = percent(step.queued_at or step.started_at)
            found[step.id] = Bar(min(queued, begin), begin, max(0.6, end - begin))
    return found


def cancel(slug: str, number: int) -> ResponseReturnValue:
    """End a run; its containers are stopped."""
    with services().database.write() as session:
        runs.cancel(session, find(session, slug, number), who().username, releases.run_ended)
    return done("The run is canceled.", url_for("ui.run", slug=slug, number=number))


def retry(slug: str, number: int) -> ResponseReturnValue:
    """A new run of the same commit; what passed is reused unless everything is asked for."""
    fresh = request.form.get("fresh") == "yes"
    with services().database.write() as session:
        project = projects.find(session, slug)
        again = runs.retry(session, project, find(session, slug, number), who().username, fresh=fresh)
    return done(f"Run #{again.number} tries it again.", url_for("ui.run", slug=slug, number=again.number))


def find(session: Session, slug: str, number: int) -> Run:
    """The run of that number. Raises NotFound."""
    project = projects.find(session, slug)
    run = session.scalar(select(Run).where(Run.project_id == project.id, Run.number == number))
    if run is None:
        raise NotFound(f"{slug} has no run #{number}", remedy="look at the project's page for the ones there are")
    return run
