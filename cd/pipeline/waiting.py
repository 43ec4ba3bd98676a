"""Why a step waits, and about how long: what is at work and ready is played on, in the order that workers take tasks.

`forecast` is pure; `look` fills it from the database, in a few statements that do not grow with the history.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from math import inf
from statistics import median

from sqlalchemy import and_, select
from sqlalchemy.orm import Session

from cd.pipeline import attempts
from cd.pipeline.advance import MAX_TIMED
from cd.pipeline.queries import RunDetail
from cd.pipeline.records import Project, Step
from cd.pipeline.weights import weights
from cd.store.base import now
from cd.store.records import Task
from cd.units import format_seconds

#: Of so many other projects it is asked how long their steps take; those of further ones count as unknown.
MOST_OTHERS = 4
#: Seconds of Towpath's own tasks, such as cleaning.
OWN = 1.0


@dataclass(frozen=True)
class Work:
    """One task that is at work, or ready. `key` is its step's id; Towpath's own tasks have negative ones."""

    key: int
    name: str
    owner: int | None = None
    weight: float = 0.0
    #: Seconds that it usually takes; None when that is not known.
    typical: float | None = None
    #: Seconds that it has run for; 0 for a ready one.
    elapsed: float = 0.0
    #: Seconds until it may be taken: it is tried again after a pause.
    delay: float = 0.0


@dataclass(frozen=True)
class Pending:
    """A step that waits for others: `needs` are the keys of those that have not ended."""

    work: Work
    needs: tuple[int, ...]


@dataclass(frozen=True)
class Wait:
    """Why it waits, in words, and in about how many seconds it starts; None when nobody can tell."""

    reason: str
    seconds: float | None


@dataclass
class _Play:
    """What would happen from now on: `starts` and `ends` in seconds, by key, and the order of the starts."""

    limits: Mapping[int, int]
    free: int
    at_work: Counter[int | None]
    queues: dict[int | None, list[tuple[float, int, Work]]] = field(default_factory=dict)
    events: list[tuple[float, int, bool, Work]] = field(default_factory=list)
    starts: dict[int, float] = field(default_factory=dict)
    ends: dict[int, float] = field(default_factory=dict)
    counted: int = 0

    def ready(self, work: Work) -> None:
        """It may be taken from now on."""
        self.counted += 1
        heapq.heappush(self.queues.setdefault(work.owner, []), (-work.weight, self.counted, work))

    def later(self, at: float, work: Work, *, ends: bool) -> None:
        """It ends, or becomes ready, at that time."""
        self.counted += 1
        heapq.heappush(self.events, (at, self.counted, ends, work))

    def take(self) -> Work | None:
        """The next one as `cd.store.tasks.take` chooses it: fewest at work, then weight, then age."""
        best: tuple[int, float, int] | None = None
        owner = None
        for one, queue in self.queues.items():
            count = 0 if one is None else self.at_work[one]
            if not queue or (one in self.limits and count >= self.limits[one]):  # type: ignore[index]
                continue
            place = (count, queue[0][0], queue[0][1])
            if best is None or place < best:
                best, owner = place, one
        return None if best is None else heapq.heappop(self.queues[owner])[2]


def forecast(
    running: Sequence[Work],
    ready: Sequence[Work],
    pending: Sequence[Pending],
    limits: Mapping[int, int],
    workers: int | None,
) -> dict[int, Wait]:
    """By key why each of `ready` (oldest first) and `pending` waits. `limits`: of owners the most at work.

    `workers` is None when nobody can tell how many there are.
    """
    play = _play(running, ready, pending, limits, workers or 0)
    order = {key: place for place, key in enumerate(play.starts)}
    now_running = {work.key: work for work in running}
    at_work = Counter(work.owner for work in running)
    found = {}
    for work in ready:
        found[work.key] = Wait(
            _reason(work, at_work, limits, workers, len(running), order.get(work.key, len(order))),
            play.starts.get(work.key) if workers else None,
        )
    names = {one.key: one.name for one in (*ready, *(waits.work for waits in pending))}
    for waits in pending:
        last = max(waits.needs, key=lambda key: play.ends.get(key, inf), default=None)
        reason = "every need has ended; it is called for next"
        if last is not None:
            run = now_running.get(last)
            reason = f"needs {_runs(run)}" if run is not None else f"needs {names.get(last, 'a step')}, which waits too"
            reason += f"; and {len(waits.needs) - 1} more" if len(waits.needs) > 1 else ""
        if workers == 0 and (last is None or last not in now_running):
            reason += "; no worker is there: start one with `towpath worker`"
        found[waits.work.key] = Wait(reason, play.starts.get(waits.work.key) if workers else None)
    return found


def _runs(work: Work) -> str:
    usual = "" if work.typical is None else f" and usually takes {format_seconds(round(work.typical))}"
    return f"{work.name}, which runs since {format_seconds(round(work.elapsed))}{usual}"


def _reason(  # noqa: PLR0917 - all that a sentence may tell of
    work: Work, at_work: Counter[int | None], limits: Mapping[int, int], workers: int | None, busy: int, before: int
) -> str:
    if workers is None:
        return "waits for a worker; how many there are is unknown, as Redis does not answer"
    if workers == 0:
        return "no worker is there: start one with `towpath worker`"
    if work.delay > 0:
        return f"is tried again in {format_seconds(max(1, round(work.delay)))}"
    if work.owner in limits and at_work[work.owner] >= limits[work.owner]:  # type: ignore[index]
        return f"the project runs {at_work[work.owner]} of at most {limits[work.owner]}"  # type: ignore[index]
    many = f"{workers} worker{'s' if workers != 1 else ''}"
    if before == 0:
        return "the next worker takes it" if busy >= workers else "a worker takes it now"
    return f"{before} task{'s' if before != 1 else ''} before it, {many}"


def _play(  # noqa: C901, PLR0912 - one loop over time
    running: Sequence[Work],
    ready: Sequence[Work],
    pending: Sequence[Pending],
    limits: Mapping[int, int],
    workers: int,
) -> _Play:
    """Until all have started, or nothing is known to end any more: a task of unknown length keeps its worker."""
    play = _Play(limits, workers - len(running), Counter(work.owner for work in running))
    for work in running:
        left = inf if work.typical is None else max(0.0, work.typical - work.elapsed)
        play.ends[work.key] = left
        play.later(left, work, ends=True)
    for work in ready:
        if work.delay > 0:
            play.later(work.delay, work, ends=False)
        else:
            play.ready(work)
    missing = {waits.work.key: len(set(waits.needs)) for waits in pending}
    behind: dict[int, list[Work]] = {}
    for waits in pending:
        for need in set(waits.needs):
            behind.setdefault(need, []).append(waits.work)
        if not waits.needs:
            play.ready(waits.work)
    clock = 0.0
    while True:
        while play.free > 0 and (work := play.take()) is not None:  # type: ignore[assignment]
            play.free -= 1
            play.at_work[work.owner] += 1
            play.starts[work.key] = clock
            play.ends[work.key] = clock + (inf if work.typical is None else work.typical)
            play.later(play.ends[work.key], work, ends=True)
        if not play.events or play.events[0][0] == inf:
            return play
        clock, _, ended, work = heapq.heappop(play.events)
        if not ended:
            play.ready(work)
            continue
        play.free += 1
        play.at_work[work.owner] -= 1
        for follower in behind.get(work.key, ()):
            missing[follower.key] -= 1
            if missing[follower.key] == 0:
                play.ready(follower)


def look(session: Session, detail: RunDetail, workers: int | None, at: datetime | None = None) -> dict[int, Wait]:
    """Why the waiting steps of a run wait, by step id; empty, and nothing is asked, when none does."""
    waiting = [step for step in detail.steps if step.state == "waiting"]
    if not waiting or detail.run.ended:
        return {}
    at = at or now()
    own = detail.run.project_id
    rows = session.execute(
        select(
            Task.id, Task.kind, Task.subject, Task.owner, Task.weight, Task.state, Task.not_before,
            Step.name, Step.started_at, Step.project_id,
        )
        .outerjoin(Step, and_(Step.id == Task.subject, Task.kind.in_(("build", "stage", "audit"))))
        .where(Task.state.in_(("ready", "claimed")), Task.kind != "deploy")
        .order_by(Task.id)
    ).all()  # fmt: skip
    wanted = {own: [step.name for step in waiting][:MAX_TIMED]}
    for row in rows:
        if row.project_id is not None and (row.project_id in wanted or len(wanted) <= MOST_OTHERS):
            wanted.setdefault(row.project_id, []).append(row.name)
    usual = {project: _usual(session, project, names) for project, names in wanted.items()}
    running: list[Work] = []
    ready: list[Work] = []
    for row in rows:
        claimed = row.state == "claimed"
        work = Work(
            key=row.subject if row.kind in ("build", "stage") else -row.id,
            name=row.name or row.kind,
            owner=row.owner,
            weight=row.weight,
            typical=OWN if row.name is None else usual.get(row.project_id, {}).get(row.name),
            elapsed=max(0.0, (at - row.started_at).total_seconds()) if claimed and row.started_at else 0.0,
            delay=max(0.0, (row.not_before - at).total_seconds()),
        )
        (running if claimed else ready).append(work)
    most = select(Project.id, Project.parallel).where(Project.id.in_(wanted), Project.parallel.is_not(None))
    limits = {project: parallel for project, parallel in session.execute(most) if parallel is not None}
    called = {work.key for work in (*running, *ready)}
    found = forecast(running, ready, _pending(detail, called, usual[own]), limits, workers)
    return {step.id: found[step.id] for step in waiting if step.id in found}


def _pending(detail: RunDetail, called: set[int], usual: Mapping[str, float]) -> list[Pending]:
    """The steps that no task has been made for yet."""
    opened = {step.name: step for step in detail.steps if step.state in ("waiting", "running")}
    weight = weights({name: step.needs for name, step in opened.items()}, usual)
    return [
        Pending(
            Work(step.id, name, detail.run.project_id, weight.get(name, 0.0), usual.get(name)),
            tuple(opened[need].id for need in step.needs if need in opened),
        )
        for name, step in opened.items()
        if step.state == "waiting" and step.id not in called
    ]


def _usual(session: Session, project: int, names: Iterable[str]) -> dict[str, float]:
    """Seconds that the steps of a project take; builds have no attempts, their steps tell."""
    found = attempts.typical(session, project, names)
    if "build" in names:
        took = [
            (finished - started).total_seconds()
            for started, finished in session.execute(
                select(Step.started_at, Step.finished_at)
                .where(Step.project_id == project, Step.stage == "", Step.kind == "build", Step.state == "passed")
                .order_by(Step.finished_at.desc())
                .limit(attempts.RECENT)
            )
            if started is not None and finished is not None
        ]
        if took:
            found["build"] = median(took)
    return found
