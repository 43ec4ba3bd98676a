"""What pages and the API read of tests: those of a run, the history of one, and which are slow, failing or flaky."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from heapq import nsmallest
from typing import Any, Literal

from sqlalchemy import Select, case, func, or_, select, tuple_
from sqlalchemy.orm import Session

from cd.errors import NotFound
from cd.pipeline.artifacts import Source, sources
from cd.pipeline.records import Attempt, Project, Run, Step, TestCase, TestResult
from cd.pipeline.reports import Summary

Order = Literal["failing", "slowest", "flaky"]
ORDERS: tuple[Order, ...] = ("failing", "slowest", "flaky")
#: Runs of a project that `ranked` looks at.
WINDOW = 50
BAD = ("failed", "error")


@dataclass(frozen=True)
class ResultRow:
    """How one test came out."""

    case_id: int
    classname: str
    name: str
    state: str
    seconds: float
    text: str


@dataclass(frozen=True)
class StepTests:
    """Tests of one stage of a run. `reused` is the number of the run that earned its verdict, None where it ran."""

    step: str
    attempt: int
    reused: int | None
    summary: Summary
    failures: tuple[ResultRow, ...]
    slowest: tuple[ResultRow, ...]


@dataclass(frozen=True)
class PastRow:
    """One result in the history of a test. `flaky`: with the same image and stage key it also came out otherwise."""

    run_number: int
    ref: str
    sha: str
    step: str
    attempt: int
    shadow: bool
    state: str
    seconds: float
    text: str
    at: datetime
    flaky: bool

    @property
    def branch(self) -> str:
        """The branch's or the tag's name."""
        return self.ref.removeprefix("refs/heads/").removeprefix("refs/tags/")


@dataclass(frozen=True)
class History:
    """A test with its latest results, newest first."""

    case_id: int
    stage: str
    classname: str
    name: str
    past: tuple[PastRow, ...]


@dataclass(frozen=True)
class RankedRow:
    """A test over the last runs. Seconds are of the results that are no skips; `last_run` is that of the last result.

    `flips` counts the pairs of image and stage key with which it both passed and failed: each is a proof of a flake.
    """

    case_id: int
    stage: str
    classname: str
    name: str
    runs: int
    failures: int
    mean_seconds: float
    max_seconds: float
    flips: int
    last_run: int


def of_run(session: Session, run_id: int, failures: int = 50, slowest: int = 10) -> list[StepTests]:
    """Of each stage of a run that had reports; of its last attempt, or of the run whose verdict it reuses."""
    places = {(one.step_id, one.attempt): one for one in sources(session, run_id)}
    if not places:
        return []
    rows = session.execute(
        select(Attempt.step_id, Attempt.number, Attempt.report, Attempt.run_id, Run.number)
        .join(Run, Run.id == Attempt.run_id)
        .where(tuple_(Attempt.step_id, Attempt.number).in_(list(places)), Attempt.report.is_not(None))
    )
    found = {}
    for step_id, number, report, earned, run_number in rows:
        if report:
            reused = run_number if earned != run_id else None
            found[step_id, number] = _step_tests(
                session, places[step_id, number], report, reused, failures=failures, slowest=slowest
            )
    return [found[key] for key in places if key in found]


def _step_tests(
    session: Session, place: Source, report: dict[str, Any], reused: int | None, *, failures: int, slowest: int
) -> StepTests:
    mine = _results(place.step_id, place.attempt)
    bad = mine.where(TestResult.state.in_(BAD)).order_by(TestResult.id).limit(failures)
    slow = mine.where(TestResult.seconds > 0).order_by(TestResult.seconds.desc(), TestResult.id).limit(slowest)
    return StepTests(
        step=place.step,
        attempt=place.attempt,
        reused=reused,
        summary=Summary(**report),
        failures=_rows(session, bad),
        slowest=_rows(session, slow),
    )


def results(
    session: Session,
    run_id: int,
    step: str,
    *,
    states: Sequence[str] = (),
    search: str = "",
    after: int = 0,
    limit: int,
) -> tuple[list[ResultRow], int | None]:
    """Results of a stage in the order of its report, and the number to ask for more with. Raises NotFound."""
    place = next((one for one in sources(session, run_id) if one.step == step), None)
    if place is None:
        raise NotFound(f"the run has no stage {step!r}")
    query = _results(place.step_id, place.attempt).order_by(TestResult.id).offset(after).limit(limit + 1)
    if states:
        query = query.where(TestResult.state.in_(states))
    if search:
        query = query.where(
            or_(TestCase.name.contains(search, autoescape=True), TestCase.classname.contains(search, autoescape=True))
        )
    rows = list(_rows(session, query))
    return rows[:limit], after + limit if len(rows) > limit else None


def history(session: Session, project_id: int, case_id: int, limit: int = 100) -> History:
    """The latest results of a test. Raises NotFound."""
    one = session.scalar(select(TestCase).where(TestCase.project_id == project_id, TestCase.id == case_id))
    if one is None:
        raise NotFound("the project has no such test", remedy="look at its list of tests")
    rows = session.execute(
        select(
            Run.number,
            Run.ref,
            Run.sha,
            Step.name,
            TestResult.attempt,
            Attempt.shadow,
            TestResult.state,
            TestResult.seconds,
            TestResult.text,
            Attempt.created_at,
            Run.created_at,
            Attempt.image,
            Attempt.key,
        )
        .select_from(TestResult)
        .join(Step, Step.id == TestResult.step_id)
        .join(Run, Run.id == Step.run_id)
        .outerjoin(Attempt, (Attempt.step_id == TestResult.step_id) & (Attempt.number == TestResult.attempt))
        .where(TestResult.case_id == one.id)
        .order_by(TestResult.id.desc())
        .limit(limit)
    ).all()
    outcomes: dict[tuple[str, str], set[bool]] = {}
    for row in rows:
        if row.image is not None and row.state != "skipped":
            outcomes.setdefault((row.image, row.key), set()).add(row.state in BAD)
    past = tuple(
        PastRow(*row[:5], bool(row[5]), *row[6:9], row[9] or row[10], len(outcomes.get((row.image, row.key), ())) > 1)
        for row in rows
    )
    return History(one.id, one.stage, one.classname, one.name, past)


def ranked(session: Session, project_id: int, limit: int = 20) -> dict[Order, list[RankedRow]]:
    """The tests of the last runs that fail most often, take longest, or came out both ways for the same image."""
    start = _window(session, project_id)
    if start is None:
        return {"failing": [], "slowest": [], "flaky": []}
    flips = _flips(session, start, project_id)
    counts: list[Any] = list(session.execute(_counts(start, project_id)))
    chosen = {
        "failing": _best(counts, limit, lambda row: row.failures),
        "slowest": _best(counts, limit, lambda row: row.mean),
        "flaky": _best(counts, limit, lambda row: flips.get(row.case_id, 0)),
    }
    wanted = {row.case_id: row for rows in chosen.values() for row in rows}
    names = {one.id: one for one in session.scalars(select(TestCase).where(TestCase.id.in_(wanted)))}
    numbers = _run_numbers(session, {row.last for row in wanted.values()})
    told = {
        key: RankedRow(
            case_id=key,
            stage=names[key].stage,
            classname=names[key].classname,
            name=names[key].name,
            runs=row.runs,
            failures=row.failures,
            mean_seconds=row.mean or 0.0,
            max_seconds=row.longest or 0.0,
            flips=flips.get(key, 0),
            last_run=numbers[row.last],
        )
        for key, row in wanted.items()
    }
    return {order: [told[row.case_id] for row in chosen[order]] for order in ORDERS}


def _best(rows: Sequence[Any], limit: int, value: Callable[[Any], float | None]) -> list[Any]:
    """Those of the largest values, none of which is nothing."""
    return nsmallest(limit, (row for row in rows if value(row)), key=lambda row: (-(value(row) or 0), row.case_id))


def _counts(start: int, project_id: int) -> Select[*tuple[Any, ...]]:
    """Of each test: in how many attempts it was, how often it failed, what it took, and the last step it was in."""
    took = case((TestResult.state != "skipped", TestResult.seconds))
    sums = (
        select(
            TestResult.case_id,
            func.count().label("runs"),
            func.sum(case((TestResult.state.in_(BAD), 1), else_=0)).label("failures"),
            func.avg(took).label("mean"),
            func.max(took).label("longest"),
            func.max(TestResult.step_id).label("last"),
        )
        .where(TestResult.step_id >= start)
        .group_by(TestResult.case_id)
        .subquery()
    )
    return select(sums).join(TestCase, TestCase.id == sums.c.case_id).where(TestCase.project_id == project_id)


def _flips(session: Session, start: int, project_id: int) -> dict[int, int]:
    """Of each test that is a flake, with how many pairs of image and key it both passed and failed."""
    passed = func.max(case((TestResult.state == "passed", 1), else_=0))
    failed = func.max(case((TestResult.state.in_(BAD), 1), else_=0))
    pairs = (
        select(TestResult.case_id)
        .join(Attempt, (Attempt.step_id == TestResult.step_id) & (Attempt.number == TestResult.attempt))
        .where(TestResult.step_id >= start, Attempt.project_id == project_id)
        # What never failed is no flake; most tests are left out by this.
        .where(TestResult.case_id.in_(_failing(start)))
        .group_by(TestResult.case_id, Attempt.image, Attempt.key)
        .having(passed + failed == 2)
        .subquery()
    )
    rows = session.execute(select(pairs.c.case_id, func.count()).group_by(pairs.c.case_id))
    return {row[0]: row[1] for row in rows}


def flakes_among(session: Session, case_ids: Iterable[int]) -> set[int]:
    """Which of these tests ever both passed and failed with the same image and stage key."""
    passed = func.max(case((TestResult.state == "passed", 1), else_=0))
    failed = func.max(case((TestResult.state.in_(BAD), 1), else_=0))
    query = (
        select(TestResult.case_id)
        .join(Attempt, (Attempt.step_id == TestResult.step_id) & (Attempt.number == TestResult.attempt))
        .where(TestResult.case_id.in_(list(case_ids)))
        .group_by(TestResult.case_id, Attempt.image, Attempt.key)
        .having(passed + failed == 2)
    )
    return set(session.scalars(query))


def _failing(start: int) -> Select[*tuple[Any, ...]]:
    return select(TestResult.case_id).where(TestResult.step_id >= start, TestResult.state.in_(BAD)).distinct()


def _window(session: Session, project_id: int) -> int | None:
    """Id of the first step of the last runs."""
    newest = select(Project.next_run - WINDOW).where(Project.id == project_id).scalar_subquery()
    return session.scalar(
        select(func.min(Step.id))
        .join(Run, Run.id == Step.run_id)
        .where(Run.project_id == project_id, Run.number >= newest)
    )


def _run_numbers(session: Session, step_ids: Iterable[int]) -> dict[int, int]:
    rows = session.execute(select(Step.id, Run.number).join(Run, Run.id == Step.run_id).where(Step.id.in_(step_ids)))
    return {row[0]: row[1] for row in rows}


def _results(step_id: int, attempt: int) -> Select[*tuple[Any, ...]]:
    return (
        select(TestCase.id, TestCase.classname, TestCase.name, TestResult.state, TestResult.seconds, TestResult.text)
        .join(TestCase, TestCase.id == TestResult.case_id)
        .where(TestResult.step_id == step_id, TestResult.attempt == attempt)
    )


def _rows(session: Session, query: Select[*tuple[Any, ...]]) -> tuple[ResultRow, ...]:
    return tuple(ResultRow(*row) for row in session.execute(query))
