"""What follows when a step has ended: stages are called for, stand by what is known, or are skipped; the run ends.

Only steps that are open or ended badly are read, as plain rows: what it costs does not grow with those that ended well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from sqlalchemy import and_, bindparam, case, or_, select, update
from sqlalchemy.orm import Session

from cd.pipeline import attempts, standing
from cd.pipeline.decide import Decision, StepView, decide
from cd.pipeline.records import Run, Step
from cd.pipeline.standing import Standing
from cd.pipeline.states import GOOD, RUN, STEP
from cd.pipeline.weights import weights
from cd.store import tasks
from cd.store.base import now
from cd.store.states import move, move_many

#: Called in the transaction that ends a run; what releases follow from it is not the pipeline's business.
Ended = Callable[[Session, Run], None]

#: Once some stages stand, how many that may come next are looked up with them; four times as many each time.
LOOK_AHEAD = 32
#: In larger runs every stage counts the same for the longest path: asking for times would cost more than it brings.
MAX_TIMED = 500


@dataclass(frozen=True)
class _Row:
    """What is read of an open or badly ended step besides its view."""

    id: int
    reason: str


@dataclass
class _Course:
    """A run's open and bad steps while it is worked out what becomes of them; `views` shrinks as they end well."""

    rows: dict[str, _Row]
    views: dict[str, StepView]
    reused: list[Standing] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    started: list[str] = field(default_factory=list)


def advance(session: Session, run: Run, ended: Ended) -> None:
    """Apply what `decide` says: call for stages that can start, skip those that can't, end the run.

    A stage that need not run needs no worker: it ends here, and what waits for it is looked at at once.
    """
    if run.state in RUN.terminal:
        return
    course = _read(session, run)
    decision = _work_out(session, run, course)
    _reuse(session, run, course)
    _skip(session, run, course)
    _start(session, run, course)
    if decision.run is not None:
        move(session, RUN, run, decision.run, finished_at=now(), reason=run.reason or _why(decision, course))
        ended(session, run)


#: What has been called for, or ended, needs no reading of what it needs: there may be thousands of those.
_PENDING = and_(Step.state == "waiting", Step.queued_at.is_(None))
_ROWS = (
    select(
        Step.id,
        Step.name,
        Step.state,
        Step.reason,
        Step.allow_failure,
        Step.cause,
        Step.queued_at.is_not(None).label("queued"),
        case((_PENDING, Step.needs)).label("needs"),
        case((_PENDING, Step.spec["when"]["status"])).label("status"),
    )
    .where(
        Step.run_id == bindparam("of_run"),
        Step.state.not_in(GOOD),
        or_(Step.state != "skipped", Step.cause.is_(None), Step.cause != "when"),
    )
    .order_by(Step.position)
)


def _read(session: Session, run: Run) -> _Course:
    session.flush()
    course = _Course({}, {})
    for key, name, state, reason, allowed, cause, queued, needs, status in session.connection().execute(
        _ROWS, {"of_run": run.id}
    ):
        course.rows[name] = _Row(key, reason)
        course.views[name] = StepView(
            name, state, tuple(needs or ()), allowed, queued, tuple(status or ("passed",)), cause
        )
    return course


def _work_out(session: Session, run: Run, course: _Course) -> Decision:
    """Decide until nothing ends any more that could let others start or keep them from it."""
    known: dict[int, Standing] = {}
    asked: set[int] = set()
    ahead = 0
    while True:
        decision = decide(list(course.views.values()))
        for name, reason in decision.skip:
            course.views[name] = replace(course.views[name], state="skipped")
            course.skipped.append((name, reason))
        ids = _to_ask(course, decision.start, asked, ahead)
        known |= standing.look_up(session, run, ids)
        asked.update(ids)
        stand = _standing(course, decision.start, known)
        if not stand and not decision.skip:
            course.started = list(decision.start)
            return decision
        for name in stand:
            course.reused.append(known[course.rows[name].id])
            del course.views[name]
        ahead = max(LOOK_AHEAD, ahead * 4) if stand else ahead


def _to_ask(course: _Course, start: Iterable[str], asked: set[int], ahead: int) -> list[int]:
    """Ids of the steps that can start, and of so many that may come after them, as far as they were not asked for."""
    now_ = [key for name in start if (key := course.rows[name].id) not in asked]
    if not now_ or not ahead:
        return now_
    taken = {*asked, *now_}
    later = (course.rows[name].id for name, view in course.views.items() if view.state == "waiting" and not view.queued)
    return now_ + [key for key in later if key not in taken][:ahead]


def _standing(course: _Course, start: Iterable[str], known: dict[int, Standing]) -> list[str]:
    """Those that can start and need not run, and those that could start after them and need not run either.

    One pass over the graph: a long chain of known stages must not ask `decide` for each of its links.
    """
    stand = [name for name in start if course.rows[name].id in known]
    if not stand:
        return []
    behind: dict[str, list[str]] = {}
    missing: dict[str, int] = {}
    for name, view in course.views.items():
        if view.state == "waiting" and not view.queued and "passed" in view.status and course.rows[name].id in known:
            wanted = {need for need in view.needs if need in course.views}
            missing[name] = len(wanted)
            for need in wanted:
                behind.setdefault(need, []).append(name)
    for name in stand:
        for follower in behind.get(name, ()):
            missing[follower] -= 1
            if missing[follower] == 0:
                stand.append(follower)
    return stand


def _reuse(session: Session, run: Run, course: _Course) -> None:
    at = now()
    rows = [
        {
            "id": one.step_id,
            "key": one.key,
            "verdict_id": one.verdict_id,
            "reason": one.reason,
            "queued_at": at,
            "finished_at": at,
        }
        for one in course.reused
    ]
    move_many(session, STEP, Step, "waiting", "reused", rows=rows, project_id=run.project_id, run_id=run.id)


def _skip(session: Session, run: Run, course: _Course) -> None:
    at = now()
    rows = [{"id": course.rows[name].id, "reason": reason, "finished_at": at} for name, reason in course.skipped]
    move_many(session, STEP, Step, "waiting", "skipped", rows=rows, project_id=run.project_id, run_id=run.id)


def _start(session: Session, run: Run, course: _Course) -> None:
    if not course.started:
        return
    opened = {name: view.needs for name, view in course.views.items() if view.state in ("waiting", "running")}
    timed = len(opened) <= MAX_TIMED
    weight = weights(opened, attempts.typical(session, run.project_id, opened) if timed else {})
    ids = [course.rows[name].id for name in course.started]
    session.connection().execute(
        update(Step.__table__).where(Step.__table__.c.id == bindparam("step")).values(queued_at=now()),  # type: ignore[arg-type]
        [{"step": key} for key in ids],
    )
    for name, key in zip(course.started, ids, strict=True):
        tasks.add(session, "stage", key, owner=run.project_id, weight=weight[name])


def _why(decision: Decision, course: _Course) -> str:
    if decision.run == "passed":
        return ""
    for name, view in course.views.items():
        if view.state == decision.run and not view.allow_failure:
            reason = course.rows[name].reason
            return f"{name}: {reason}" if reason else f"{name} {decision.run}"
    return ""
