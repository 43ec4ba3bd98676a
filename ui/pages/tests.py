"""Pages of tests: those of a stage of a run, those of a project that fail or are slow, and the history of one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from flask import Blueprint, render_template, request
from flask.typing import ResponseReturnValue
from sqlalchemy.orm import Session

from cd.errors import NotFound
from cd.identity.people import Role
from cd.pipeline import artifacts, queries, testhistory
from cd.pipeline.testhistory import BAD, PastRow, StepTests
from cd.web.context import access, services
from ui.pages.common import argument

ROWS = 100
RANKED = 15
#: Files of a run that its page lists one by one.
FILES = 50
STATES = ("failed", "error", "skipped", "passed")


@dataclass(frozen=True)
class Totals:
    """Counts over all stages of a run."""

    tests: int
    passed: int
    failed: int
    skipped: int
    seconds: float


@dataclass(frozen=True)
class Bar:
    """One result in the chart of a test: how long it took, from 0 to 100 of the longest one."""

    height: float
    past: PastRow


def register(pages: Blueprint) -> None:
    """The three pages."""
    pages.add_url_rule("/projects/<slug>/tests", "tests", access(Role.viewer)(ranked))
    pages.add_url_rule("/projects/<slug>/tests/<int:test>", "test", access(Role.viewer)(history))
    pages.add_url_rule(
        "/projects/<slug>/runs/<int:number>/steps/<step>/tests", "step_tests", access(Role.viewer)(of_step)
    )


def left(session: Session, run_id: int) -> dict[str, Any]:
    """For the page of a run: what its stages reported and left."""
    tests = testhistory.of_run(session, run_id)
    failed = [case.case_id for one in tests for case in one.failures]
    return {
        "tests": tests,
        "test_totals": totals(tests),
        "flaky": testhistory.flakes_among(session, failed) if failed else set(),
        "artifacts": artifacts.of_run(session, run_id),
        "FILES": FILES,
    }


def totals(tests: Sequence[StepTests]) -> Totals:
    """The sum of all stages; errors count as failed."""
    sums = [one.summary for one in tests]
    return Totals(
        tests=sum(one.tests for one in sums),
        passed=sum(one.passed for one in sums),
        failed=sum(one.failed + one.errors for one in sums),
        skipped=sum(one.skipped for one in sums),
        seconds=sum(one.seconds for one in sums),
    )


def ranked(slug: str) -> ResponseReturnValue:
    """Which tests of a project's last runs are flaky, fail, or are slow."""
    with services().database.read() as session:
        project = queries.project(session, slug)
        lists = testhistory.ranked(session, project.id, RANKED)
    return render_template("ui/tests.html", project=project, lists=lists, titles=_ORDERS, window=testhistory.WINDOW)


_ORDERS: dict[testhistory.Order, str] = {"flaky": "Flaky", "failing": "Failing most", "slowest": "Slowest"}


def history(slug: str, test: int) -> ResponseReturnValue:
    """One test over time."""
    with services().database.read() as session:
        project = queries.project(session, slug)
        found = testhistory.history(session, project.id, test)
    longest = max((one.seconds for one in found.past), default=0.0) or 1.0
    bars = [Bar(max(3.0, one.seconds / longest * 100), one) for one in reversed(found.past)]
    ran = [one for one in found.past if one.state != "skipped"]
    return render_template(
        "ui/test.html",
        project=project,
        test=found,
        bars=bars,
        failures=sum(one.state in BAD for one in ran),
        ran=len(ran),
        mean=sum(one.seconds for one in ran) / len(ran) if ran else 0.0,
        flaky=any(one.flaky for one in found.past),
    )


def of_step(slug: str, number: int, step: str) -> ResponseReturnValue:
    """All tests of one stage of a run, by state or by a part of their name."""
    state, search = request.args.get("state", ""), request.args.get("q", "").strip()[:200]
    with services().database.read() as session:
        detail = queries.detail(session, slug, number)
        after = argument("after") or 0
        rows, more = testhistory.results(
            session,
            detail.run.id,
            step,
            states=(state,) if state in STATES else (),
            search=search,
            after=min(after, 1 << 31),
            limit=ROWS,
        )
        mine = next((one for one in testhistory.of_run(session, detail.run.id, 0, 0) if one.step == step), None)
    if mine is None:
        raise NotFound(f"{step} of run #{number} left no report", remedy="look at the run for the stages that did")
    return render_template(
        "ui/steptests.html",
        run=detail.run,
        mine=mine,
        rows=rows,
        more=more,
        after=after,
        state=state,
        search=search,
        states=STATES,
    )
