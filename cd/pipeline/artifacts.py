"""Artifacts: files that stages left to be kept, in the blob store, until they expire."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta

import fsspec
import structlog
from sqlalchemy import func, select, tuple_, update
from sqlalchemy.orm import Session

from cd.errors import NotFound, ServiceError
from cd.pipeline.records import Artifact, Run, Step, Verdict
from cd.store.base import now
from cd.store.database import Database

log = structlog.get_logger()

#: Bytes that are read and sent at a time.
PIECE = 1 << 20
#: Expired artifacts that one round of cleaning looks at.
ROUND = 500


@dataclass(frozen=True)
class Stored:
    """A blob that was written. `size` in bytes."""

    blob: str
    size: int
    sha256: str


class ArtifactStore:
    """Reads and writes the blobs. `url` is an fsspec URL. All raise ServiceError when the store fails."""

    def __init__(self, url: str) -> None:
        self._files, self._root = fsspec.core.url_to_fs(url)

    def write(self, blob: str, pieces: Iterable[bytes]) -> Stored:
        """Write a blob; what stood under its name is replaced. What `pieces` raises leaves nothing behind."""
        digest, size = hashlib.sha256(), 0
        path = f"{self._root}/{blob}"
        with _translated():
            self._files.makedirs(path.rsplit("/", 1)[0], exist_ok=True)
            try:
                with self._files.open(path, "wb") as file:
                    for piece in pieces:
                        digest.update(piece)
                        size += len(piece)
                        file.write(piece)
            except BaseException:
                with suppress(OSError):
                    self._files.rm(path)
                raise
        return Stored(blob, size, digest.hexdigest())

    def read(self, blob: str, start: int = 0) -> Iterator[bytes]:
        """Its content from byte `start` on, in pieces."""
        with _translated(), self._files.open(f"{self._root}/{blob}", "rb") as file:
            if start:
                file.seek(start)
            while piece := file.read(PIECE):
                yield piece

    def remove(self, blob: str) -> None:
        """Remove a blob, or all below a name; content when nothing is there."""
        with _translated(), suppress(FileNotFoundError):
            self._files.rm(f"{self._root}/{blob}", recursive=True)


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ServiceError(
            f"the store of artifacts failed: {error.strerror or error}", remedy="see to the place of TOWPATH_BLOBS_URL"
        ) from error


@dataclass(frozen=True)
class ArtifactRow:
    """One artifact of a run. A reused stage has those of the run that earned its verdict, whose number is given."""

    id: int
    step: str
    run_number: int
    path: str
    size: int
    sha256: str
    blob: str
    created_at: datetime
    expires_at: datetime
    removed_at: datetime | None


def of_run(session: Session, run_id: int) -> list[ArtifactRow]:
    """What the stages of a run left in their last attempts, by step and path."""
    places = {(place.step_id, place.attempt): place for place in sources(session, run_id)}
    if not places:
        return []
    rows = session.execute(
        select(Artifact, Run.number)
        .join(Run, Run.id == Artifact.run_id)
        .where(tuple_(Artifact.step_id, Artifact.attempt).in_(list(places)))
        .order_by(Artifact.path)
    ).all()
    found = [_row(one, places[one.step_id, one.attempt].step, number) for one, number in rows]
    order = [place.step for place in places.values()]
    return sorted(found, key=lambda row: order.index(row.step))


def find(session: Session, run_id: int, artifact_id: int) -> ArtifactRow:
    """One of them that is still there. Raises NotFound."""
    for row in of_run(session, run_id):
        if row.id == artifact_id:
            if row.removed_at is not None:
                raise NotFound(f"{row.path} expired {row.expires_at:%Y-%m-%d}", remedy="run the stage again to have it")
            return row
    raise NotFound("this run has no such artifact", remedy="list the ones that it has")


@dataclass(frozen=True)
class Source:
    """Where the results of a step of a run lie: in that step itself, or in the one whose verdict it reuses."""

    step: str
    step_id: int
    attempt: int


def sources(session: Session, run_id: int) -> Sequence[Source]:
    """Of each stage of a run, in the order of the file."""
    earner = Step.__table__.alias("earner")
    rows = session.execute(
        select(Step.name, Step.state, Step.id, Step.attempt, earner.c.id, earner.c.attempt)
        .outerjoin(Verdict, Verdict.id == Step.verdict_id)
        .outerjoin(earner, earner.c.id == Verdict.step_id)
        .where(Step.run_id == run_id, Step.kind == "stage")
        .order_by(Step.position, Step.id)
    )
    return [
        Source(name, earned, earned_attempt) if state == "reused" and earned is not None else Source(name, own, attempt)
        for name, state, own, attempt, earned, earned_attempt in rows
    ]


def _row(one: Artifact, step: str, number: int) -> ArtifactRow:
    return ArtifactRow(
        id=one.id,
        step=step,
        run_number=number,
        path=one.path,
        size=one.size,
        sha256=one.sha256,
        blob=one.blob,
        created_at=one.created_at,
        expires_at=one.expires_at,
        removed_at=one.removed_at,
    )


def clean(database: Database, store: ArtifactStore, days: float) -> int:
    """Remove the blobs of artifacts that expired; how many. What a later run reused counts from that run on."""
    with database.read() as session:
        due = session.scalars(
            select(Artifact)
            .where(Artifact.expires_at < now(), Artifact.removed_at.is_(None))
            .order_by(Artifact.expires_at)
            .limit(ROUND)
        ).all()
        used = _last_use(session, {one.step_id for one in due})
    later = {one.id: used[one.step_id] + timedelta(days=days) for one in due if one.step_id in used}
    later = {key: until for key, until in later.items() if until > now()}
    gone = [one for one in due if one.id not in later]
    for one in gone:
        store.remove(one.blob)
    if due:
        with database.write() as session:
            for key, until in later.items():
                session.execute(update(Artifact).where(Artifact.id == key).values(expires_at=until))
            session.execute(update(Artifact).where(Artifact.id.in_([one.id for one in gone])).values(removed_at=now()))
    return len(gone)


def _last_use(session: Session, step_ids: set[int]) -> dict[int, datetime]:
    if not step_ids:
        return {}
    rows = session.execute(
        select(Verdict.step_id, func.max(Step.finished_at))
        .join(Step, Step.verdict_id == Verdict.id)
        .where(Verdict.step_id.in_(step_ids), Step.finished_at.is_not(None))
        .group_by(Verdict.step_id)
    )
    return {step_id: at for step_id, at in rows if at is not None}
