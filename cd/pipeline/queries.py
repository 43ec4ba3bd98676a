"""What pages and the API read of runs: frozen rows, few statements, no lazy loading."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Row, Select, func, select
from sqlalchemy.orm import Session, aliased

from cd.errors import NotFound
from cd.pipeline.records import Project, Run, Step, Verdict
from cd.pipeline.states import RUN

#: Of a commit message only its beginning is read for lists.
SUBJECT_CHARS = 400

#: The columns of ProjectRow, in its order.
_PROJECT = (
    Project.id,
    Project.slug,
    Project.forge,
    Project.clone_url,
    Project.created_at,
    Project.supersede,
    Project.parallel,
    Project.keep_failed,
)

#: The columns of RunRow, in its order.
_RUN = (
    Run.id,
    Run.project_id,
    Project.slug,
    Run.number,
    Run.state,
    Run.reason,
    Run.event,
    Run.ref,
    Run.sha,
    func.substr(Run.message, 1, SUBJECT_CHARS),
    Run.author,
    Run.pusher,
    Run.trusted,
    Run.created_at,
    Run.started_at,
    Run.finished_at,
)


@dataclass(frozen=True)
class ProjectRow:
    """A project, without its secret."""

    id: int
    slug: str
    forge: str
    clone_url: str | None
    created_at: datetime
    #: Which runs of a branch a newer push ends: waiting, running or never.
    supersede: str = "waiting"
    #: Builds and stages at the same time at most; None for no limit.
    parallel: int | None = None
    keep_failed: bool = False

    @property
    def hosted(self) -> bool:
        """Whether Towpath itself holds the repository."""
        return self.clone_url is None


@dataclass(frozen=True)
class RunRow:
    """One run as a line of a list."""

    id: int
    project_id: int
    slug: str
    number: int
    state: str
    reason: str
    event: str
    ref: str
    sha: str
    message: str
    author: str
    pusher: str
    trusted: bool
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None

    @property
    def subject(self) -> str:
        """First line of the commit message."""
        return self.message.strip().split("\n", 1)[0][:200]

    @property
    def branch(self) -> str:
        """The branch's or the tag's name."""
        return self.ref.removeprefix("refs/heads/").removeprefix("refs/tags/")

    @property
    def ended(self) -> bool:
        """Whether nothing follows any more."""
        return self.state in RUN.terminal


@dataclass(frozen=True)
class RunPage:
    """Some runs, newest first. `older` is the number to ask for the next page with, None at the end."""

    rows: tuple[RunRow, ...]
    older: int | None
    total: int


@dataclass(frozen=True)
class Reused:
    """The run that earned a verdict which a stage stands on. `seconds` is what it took then."""

    run_number: int
    step: str
    at: datetime
    seconds: float


@dataclass(frozen=True)
class StepRow:
    """The build or one stage of a run."""

    id: int
    name: str
    kind: str
    state: str
    reason: str
    needs: tuple[str, ...]
    allow_failure: bool
    image: str | None
    attempt: int
    exit_code: int | None
    cause: str | None
    command: tuple[str, ...]
    queued_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    reused: Reused | None
    #: The stage's name in the file, and name and value of each axis for a cell of its matrix.
    stage: str = ""
    cell: Mapping[str, str] = field(default_factory=dict)
    #: Name and image, as the file has it, of each service.
    services: Mapping[str, str] = field(default_factory=dict)
    #: The file's conditions: branches, paths, events, status; only those that are set.
    when: Mapping[str, Sequence[str]] = field(default_factory=dict)
    #: none, services or internet.
    network: str = "none"
    #: Stage key that it ran under, or stands on.
    key: str | None = None

    @property
    def left_out(self) -> bool:
        """Whether the file's own conditions kept it out of this run."""
        return self.state == "skipped" and self.cause == "when"


@dataclass(frozen=True)
class RunDetail:
    """All that the page of a run shows of it."""

    run: RunRow
    message: str
    notes: tuple[str, ...]
    image: str | None
    tree: str | None
    fresh: bool
    canceled_by: str | None
    #: Number of the run that this one tries again.
    retry_of: int | None
    #: Whether the repository says how to deploy; without it a passed run makes no release.
    deploys: bool
    steps: tuple[StepRow, ...]

    @property
    def saved(self) -> float:
        """Seconds of tests that reuse spared this run."""
        return sum(step.reused.seconds for step in self.steps if step.reused)


def projects(session: Session) -> list[ProjectRow]:
    """All projects by name."""
    rows = session.execute(select(*_PROJECT).where(Project.deleted_at.is_(None)).order_by(Project.slug))
    return [ProjectRow(*row) for row in rows]


def project(session: Session, slug: str) -> ProjectRow:
    """One project by its slug. Raises NotFound."""
    row = session.execute(select(*_PROJECT).where(Project.slug == slug, Project.deleted_at.is_(None))).one_or_none()
    if row is None:
        raise NotFound(f"there is no project {slug!r}", remedy="look at the board for the ones there are")
    return ProjectRow(*row)


def recent(session: Session, per_project: int = 6) -> dict[int, tuple[RunRow, ...]]:
    """The last runs of every project, oldest first; by number, so that the cost doesn't grow with history."""
    # The sum keeps SQLite from going through all runs first and looking up the project of each.
    query = select(*_RUN).join(Project, Run.project_id == Project.id + 0)
    rows = session.execute(
        query.where(Project.deleted_at.is_(None), Run.number >= Project.next_run - per_project).order_by(
            Run.project_id, Run.number
        )
    )
    found: dict[int, list[RunRow]] = {}
    for row in _rows(rows):
        found.setdefault(row.project_id, []).append(row)
    return {key: tuple(value) for key, value in found.items()}


def page(session: Session, project_id: int, before: int | None = None, limit: int = 20) -> RunPage:
    """`limit` runs of a project below the number `before`, newest first."""
    query = _runs().where(Run.project_id == project_id).order_by(Run.number.desc()).limit(limit + 1)
    rows = _rows(session.execute(query if before is None else query.where(Run.number < before)))
    total = session.scalar(select(Project.next_run).where(Project.id == project_id)) or 1
    return RunPage(tuple(rows[:limit]), rows[limit - 1].number if len(rows) > limit else None, total - 1)


def by_ids(session: Session, ids: Sequence[int]) -> dict[int, RunRow]:
    """Runs by their ids."""
    return {row.id: row for row in _rows(session.execute(_runs().where(Run.id.in_(ids))))} if ids else {}


def detail(session: Session, slug: str, number: int) -> RunDetail:
    """One run with its steps. Raises NotFound."""
    earlier = aliased(Run)
    query = (
        _runs()
        .add_columns(
            Run.message, Run.notes, Run.image, Run.tree, Run.fresh, Run.canceled_by, earlier.number, Run.deploy
        )
        .outerjoin(earlier, earlier.id == Run.retry_of)
        .where(Project.slug == slug, Project.deleted_at.is_(None), Run.number == number)
    )
    row = session.execute(query).one_or_none()
    if row is None:
        raise NotFound(f"{slug} has no run #{number}", remedy="look at the project's page for the ones there are")
    width = len(RunRow.__dataclass_fields__)
    run = RunRow(*row[:width])
    message, notes, image, tree, fresh, canceled_by, retry_of, deploy = row[width:]
    return RunDetail(
        run,
        message,
        tuple(notes),
        image,
        tree,
        fresh,
        canceled_by,
        retry_of,
        deploy is not None,
        tuple(_steps(session, run.id, retries=retry_of is not None)),
    )


def _kept(session: Session, run_id: int) -> dict[str, Reused]:
    """Stages that stand on the run which this one tries again, by name: the run of the chain that they passed in."""
    kept: dict[str, Reused] = {}
    wanted = set(
        session.scalars(
            select(Step.name).where(
                Step.run_id == run_id, Step.state == "reused", Step.kind == "stage", Step.verdict_id.is_(None)
            )
        )
    )
    columns = (Run.id, Run.retry_of, Run.number)
    here = session.execute(select(*columns).where(Run.id == run_id)).one()
    while wanted and here.retry_of is not None:
        here = session.execute(select(*columns).where(Run.id == here.retry_of)).one()
        rows = session.execute(
            select(Step.name, Step.started_at, Step.finished_at).where(
                Step.run_id == here.id, Step.state == "passed", Step.name.in_(wanted)
            )
        )
        for name, started, finished in rows:
            if started is not None and finished is not None:
                kept[name] = Reused(here.number, name, finished, (finished - started).total_seconds())
            wanted.discard(name)
    return kept


def _steps(session: Session, run_id: int, *, retries: bool) -> Iterable[StepRow]:
    earner, earned = aliased(Step), aliased(Run)
    query = (
        select(Step, earned.number, earner.name, Verdict.created_at, Verdict.seconds)
        .outerjoin(Verdict, Verdict.id == Step.verdict_id)
        .outerjoin(earned, earned.id == Verdict.run_id)
        .outerjoin(earner, earner.id == Verdict.step_id)
        .where(Step.run_id == run_id)
        .order_by(Step.position, Step.id)
    )
    kept = _kept(session, run_id) if retries else {}
    for step, number, name, at, seconds in session.execute(query):
        reused = kept.get(step.name) if number is None else Reused(number, name or step.name, at, seconds)
        yield StepRow(
            id=step.id,
            name=step.name,
            kind=step.kind,
            state=step.state,
            reason=step.reason,
            needs=tuple(step.needs),
            allow_failure=step.allow_failure,
            image=step.image,
            attempt=step.attempt,
            exit_code=step.exit_code,
            cause=step.cause,
            command=tuple(str(part) for part in step.spec.get("run", ())) if step.kind == "stage" else (),
            queued_at=step.queued_at,
            started_at=step.started_at,
            finished_at=step.finished_at,
            reused=reused if step.state == "reused" else None,
            stage=step.stage,
            cell=step.cell or {},
            services={name: told["image"] for name, told in step.spec.get("services", {}).items()},
            when={name: values for name, values in step.spec.get("when", {}).items() if values},
            key=step.key,
            network=step.spec.get("network") or ("services" if step.spec.get("services") else "none"),
        )


def _runs() -> Select[*tuple[Any, ...]]:
    return select(*_RUN).join(Project, Project.id == Run.project_id)


def _rows(rows: Iterable[Row[*tuple[Any, ...]]]) -> list[RunRow]:
    return [RunRow(*row) for row in rows]
