"""Files of failed stages that are kept for a look: which there are, and their end."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, or_, select, update
from sqlalchemy.orm import Session

from cd.errors import NotFound
from cd.pipeline.collection import is_snapshot
from cd.pipeline.definition import StageSpec
from cd.pipeline.records import Project, Run, Snapshot, Step
from cd.pipeline.stages import STANDARD_ENV
from cd.sandbox import shell
from cd.sandbox.base import Limits, Sandbox
from cd.sandbox.stock import Stock, Stored
from cd.store.base import now
from cd.store.database import Database

#: An image without a row is of a worker that died in between, or that is about to write it.
FRESH = timedelta(hours=1)
#: A row whose image is on no engine any more.
LOST = timedelta(days=1)


@dataclass(frozen=True)
class Kept:
    """Files that are there, and how the stage ran that left them."""

    step_id: int
    step: str
    attempt: int
    image: str
    #: Bytes.
    size: int
    expires_at: datetime
    limits: Limits
    env: dict[str, str]


def find(session: Session, slug: str, number: int, step: str, attempt: int | None = None) -> Kept:
    """What a stage's attempt left, by default the last that left something. Raises NotFound with the remedy."""
    row = session.execute(
        select(Step)
        .join(Run, Run.id == Step.run_id)
        .join(Project, Project.id == Run.project_id)
        .where(Project.slug == slug, Project.deleted_at.is_(None), Run.number == number, Step.name == step)
    ).scalar_one_or_none()
    if row is None:
        raise NotFound(f"run #{number} of {slug[:80]} has no stage {step[:80]!r}", remedy="see `towpath run show`")
    query = select(Snapshot).where(Snapshot.step_id == row.id).order_by(Snapshot.attempt.desc()).limit(1)
    found = session.scalar(query if attempt is None else query.where(Snapshot.attempt == attempt))
    which = f"stage {step} of run #{number}" + ("" if attempt is None else f", attempt {attempt},")
    again = f"`towpath run retry {slug} {number}` to have it fail once more"
    if found is None:
        raise NotFound(
            f"no files of {which} were kept", remedy=f"`towpath project set {slug} --keep-failed`, then {again}"
        )
    if found.removed_at is not None or found.expires_at <= now():
        raise NotFound(f"the files of {which} were kept until {found.expires_at:%Y-%m-%d %H:%M} UTC", remedy=again)
    return _kept(row, found)


def of_step(session: Session, step_id: int, attempt: int) -> Snapshot | None:
    """What is kept of an attempt now; None when nothing is."""
    return session.scalar(select(Snapshot).where(Snapshot.step_id == step_id, Snapshot.attempt == attempt, _there()))


def _there() -> ColumnElement[bool]:
    return Snapshot.removed_at.is_(None) & (Snapshot.expires_at > now())


def _kept(step: Step, found: Snapshot) -> Kept:
    spec = StageSpec.model_validate(step.spec)
    told = spec.limits
    limits = Limits(told.memory, told.cpus, told.pids, told.disk, shell.LONGEST)
    env = {**STANDARD_ENV, **spec.env}
    return Kept(step.id, step.name, found.attempt, found.image, found.size, found.expires_at, limits, env)


def clean(database: Database, stock: Stock, sandbox: Sandbox, instance: str) -> int:
    """Remove what has expired from this engine, and shells that nobody ends any more; how many images went."""
    for one in sandbox.find({"towpath.instance": instance, "towpath.kind": shell.KIND}):
        if shell.is_over(one, now()):
            sandbox.remove(one.name)
    here = [one for one in stock.images() if is_snapshot(one) and one.labels.get("towpath.instance") == instance]
    with database.read() as session:
        expired = [one for one in here if _is_over(session, one)]
    gone = [one.id for one in expired if stock.remove(one)]
    with database.write() as session:
        session.execute(
            update(Snapshot)
            .where(
                Snapshot.removed_at.is_(None),
                or_(Snapshot.image.in_(gone), Snapshot.expires_at < now() - LOST),
            )
            .values(removed_at=now())
        )
    return len(gone)


def _is_over(session: Session, image: Stored) -> bool:
    row = session.scalar(
        select(Snapshot)
        .where(Snapshot.image == image.id, Snapshot.step_id == int(image.labels.get("towpath.step", 0)))
        .order_by(Snapshot.expires_at.desc())
        .limit(1)
    )
    return row.expires_at <= now() if row is not None else image.created < now() - FRESH
