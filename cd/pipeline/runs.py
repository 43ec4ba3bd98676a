"""The life of a run: created by a push, moved by what its steps came to, ended once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import NamedTuple

from sqlalchemy import bindparam, insert, select, update
from sqlalchemy.orm import Session

from cd.errors import Conflict, StaleWrite
from cd.identity import audit
from cd.pipeline import advance as advancing
from cd.pipeline import ending, verdicts
from cd.pipeline.plan import Planned
from cd.pipeline.records import Project, Run, Step
from cd.pipeline.states import RUN, STEP
from cd.store import events, tasks
from cd.store.base import now
from cd.store.states import move, move_many

Ended = advancing.Ended
advance = advancing.advance

NOTHING: Mapping[str, str] = {}
NOSERVICES: Mapping[str, Mapping[str, str]] = {}


class Created(NamedTuple):
    """A run that was just added."""

    id: int
    number: int


# Made once and run without the ORM: these stand in the way of every push.
_NUMBER = (
    update(Project)
    .where(Project.id == bindparam("project"))
    .values(next_run=Project.next_run + 1)
    .returning(Project.next_run, Project.supersede, ending.ANY_OLDER)
)
_RUN = insert(Run).returning(Run.id)
_STEP = insert(Step).returning(Step.id)


def create(
    session: Session,
    project: Project,
    *,
    event: str,
    ref: str,
    sha: str,
    before: str | None = None,
    message: str = "",
    author: str = "",
    pusher: str = "",
    trusted: bool = True,
    retry_of: int | None = None,
    fresh: bool = False,
) -> Run:
    """Add a run with its build and call for the work, all in the running transaction."""
    created = enqueue(
        session,
        project.id,
        event=event,
        ref=ref,
        sha=sha,
        before=before,
        message=message,
        author=author,
        pusher=pusher,
        trusted=trusted,
        retry_of=retry_of,
        fresh=fresh,
    )
    session.expire(project, ["next_run"])
    return session.get_one(Run, created.id)


def enqueue(
    session: Session, project_id: int, *, superseding: bool = True, **values: str | bool | int | None
) -> Created:
    """The same in few statements, for the way of a push. `values` are columns of Run: event, ref, sha, ...

    With `superseding`, older runs of the same ref give way to it as the project is set.
    """
    connection, at = session.connection(), now()
    following, supersede, older = connection.execute(_NUMBER, ending.older(project_id, values)).one()
    number: int = following - 1
    if superseding and older:
        ending.supersede(session, project_id, number, supersede, values)
    told = {"project_id": project_id, "number": number, "state": "queued", "created_at": at, **values}
    run_id: int = connection.execute(_RUN, told).scalar_one()
    build: int = connection.execute(
        _STEP,
        {
            "run_id": run_id,
            "project_id": project_id,
            "name": "build",
            "kind": "build",
            "state": "waiting",
            "queued_at": at,
        },
    ).scalar_one()
    tasks.add(session, "build", build, owner=project_id)
    events.append(session, "run.queued", project_id=project_id, run_id=run_id, subject=run_id)
    return Created(run_id, number)


def lock(session: Session, run_id: int) -> Run:
    """The run, with its row locked to the end of the transaction: decisions about one run take turns."""
    return session.scalars(
        select(Run).where(Run.id == run_id).with_for_update().execution_options(populate_existing=True)
    ).one()


def steps_of(session: Session, run_id: int) -> list[Step]:
    """All steps of a run, the build first, then as in the file."""
    return list(session.scalars(select(Step).where(Step.run_id == run_id).order_by(Step.position)))


def add_stages(
    session: Session,
    run: Run,
    planned: Sequence[Planned],
    images: Mapping[str, str] = NOTHING,
    services: Mapping[str, Mapping[str, str]] = NOSERVICES,
) -> None:
    """Give the run its stages; a second call for the same run changes nothing.

    `images` and `services` give by step name the image that it tests, and the image of each of its services.
    A stage that its own conditions leave out is skipped at once.
    """
    known = set(session.scalars(select(Step.name).where(Step.run_id == run.id)))
    rows = [
        {
            "run_id": run.id,
            "project_id": run.project_id,
            "name": one.name,
            "stage": one.stage,
            "cell": dict(one.cell),
            "kind": "stage",
            "position": position,
            "state": "waiting",
            "needs": list(one.needs),
            "spec": one.spec.model_dump(mode="json", by_alias=True),
            "allow_failure": one.spec.allow_failure,
            "image": images.get(one.name),
            "services": dict(services.get(one.name, NOTHING)),
        }
        for position, one in enumerate(planned, start=1)
        if one.name not in known
    ]
    if rows:
        session.connection().execute(insert(Step), rows)
        _leave_out(session, run, {one.name: one.skip for one in planned if one.skip and one.name not in known})


def _leave_out(session: Session, run: Run, reasons: Mapping[str, str]) -> None:
    """Skip the stages whose conditions do not hold; for those who need them that is as good as passed."""
    added = session.execute(select(Step.id, Step.name).where(Step.run_id == run.id)).all() if reasons else []
    at = now()
    rows = [
        {"id": key, "reason": reasons[name], "cause": "when", "finished_at": at}
        for key, name in added
        if name in reasons
    ]
    move_many(session, STEP, Step, "waiting", "skipped", rows=rows, project_id=run.project_id, run_id=run.id)


def start_step(session: Session, step_id: int, fence: int) -> tuple[Run, Step] | None:
    """Take a step for the holder of `fence`: begin it, or go on with one whose worker was lost.

    Returns None when there is nothing left to do for it.
    """
    step = session.get_one(Step, step_id)
    run = lock(session, step.run_id)
    if step.state in STEP.terminal or run.state in RUN.terminal:
        return None
    if run.state == "queued":
        move(session, RUN, run, "running", started_at=now())
    if step.state == "waiting":
        move(
            session,
            STEP,
            step,
            "running",
            held=step.fence,
            fence=fence,
            key=_key(session, step),
            attempt=step.attempt + 1,
            reason="",
            started_at=now(),
        )
    else:
        _take_over(session, step, fence)
    return run, step


def _key(session: Session, step: Step) -> str | None:
    """What a stage's result will stand under: with the secrets as they are when it begins."""
    return verdicts.keys(session, step.project_id, [step])[step.id] if step.kind == "stage" else None


def _take_over(session: Session, step: Step, fence: int) -> None:
    """A running step gets the fence of its new holder, so that the old one can't write any more."""
    taken = session.execute(
        update(Step)
        .where(Step.id == step.id, Step.state == "running", Step.fence < fence)
        .values(fence=fence)
        .returning(Step.id)
    ).one_or_none()
    if taken is None:
        raise StaleWrite(f"step {step.id} is held by a newer fence than {fence}")
    session.refresh(step)


def try_again(session: Session, step: Step, reason: str, delay: float = 0.0) -> None:
    """Send a running step back to wait for another attempt; its task calls for it in `delay` seconds."""
    move(session, STEP, step, "waiting", held=step.fence, reason=reason, queued_at=now() + timedelta(seconds=delay))


def end_step(session: Session, step: Step, state: str, ended: Ended, **values: object) -> None:
    """End a running step with `state` and do what follows for its run."""
    run = lock(session, step.run_id)
    move(session, STEP, step, state, held=step.fence, finished_at=now(), **values)
    advance(session, run, ended)


def end_run(session: Session, run: Run, state: str, reason: str, ended: Ended) -> None:
    """End a run from outside its graph. Its open steps end with it. Raises Conflict when it has ended."""
    if run.state in RUN.terminal:
        raise Conflict(f"run #{run.number} has ended already: {run.state}")
    session.flush()
    ending.close(session, run.project_id, run.id, reason)
    move(session, RUN, run, state, reason=reason, finished_at=now())
    ended(session, run)


def cancel(session: Session, run: Run, username: str, ended: Ended) -> None:
    """End a run because a person says so. Raises Conflict when it has ended."""
    locked = lock(session, run.id)
    locked.canceled_by = username
    end_run(session, locked, "canceled", f"canceled by {username}", ended)
    audit.append(session, username, "run.cancel", f"run/{locked.id}", number=locked.number)


def retry(
    session: Session, project: Project, run: Run, username: str, *, fresh: bool = False, failed: bool = False
) -> Run:
    """A new run of the same commit. What stands is reused, and what passed in a run that did not pass is kept.

    `fresh` builds and runs everything anew. `failed` only says what is expected: Conflict when nothing failed.
    """
    if run.state not in RUN.terminal:
        raise Conflict(f"run #{run.number} is still {run.state}", remedy="wait for its end, or cancel it")
    if failed and run.state == "passed":
        raise Conflict(f"run #{run.number} passed: there is nothing to try again", remedy="retry it fresh")
    again = create(
        session,
        project,
        event=run.event,
        ref=run.ref,
        sha=run.sha,
        before=run.before,
        message=run.message,
        author=run.author,
        pusher=run.pusher,
        trusted=run.trusted,
        retry_of=run.id,
        fresh=fresh,
    )
    audit.append(session, username, "run.retry", f"run/{run.id}", number=again.number, fresh=fresh)
    return again


def start(session: Session, project: Project, ref: str, sha: str, username: str) -> Run:
    """A run of `sha` because a person asks for it; `ref` is the full ref that it was resolved from."""
    run = create(session, project, event="manual", ref=ref, sha=sha, pusher=username)
    audit.append(session, username, "run.start", f"run/{run.id}", number=run.number, ref=ref, sha=sha)
    return run
