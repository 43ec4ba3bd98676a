"""Logs of steps: to Redis while they are written, in compressed chunks for good, by line or by byte.

Redis is only the quick way to an open page. What a page shows after a reload, and what a worker that takes a
step over goes on from, is what the database says was stored.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from time import monotonic, sleep
from typing import Any

import fsspec
import redis
import zstandard
from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from cd.errors import ServiceError, StaleWrite
from cd.pipeline import logtimes
from cd.pipeline.logwindow import Cutter, Window
from cd.pipeline.logwriter import CHUNK_SECONDS, LogWriter
from cd.pipeline.records import LogChunk
from cd.store.database import Database

#: Of zstd: quick, since it stands in the way of the output.
LEVEL = 1
#: Redis keeps about this many pieces of a live log, for this many seconds after the last one.
LIVE_PIECES = 100
LIVE_TTL = 3600


class LogStore:
    """Reads and writes the logs of steps. `blobs` is an fsspec URL."""

    def __init__(self, database: Database, live: redis.Redis, blobs: str) -> None:
        self._database, self._live = database, live
        self._files, self._root = fsspec.core.url_to_fs(blobs)

    def writer(self, step_id: int, attempt: int, fence: int, secrets: Iterable[str] = ()) -> LogWriter:
        """Go on writing the log of this attempt where what is stored ends; `secrets` never get into it."""
        return LogWriter(self, step_id, attempt, fence, secrets)

    def read(self, session: Session, step_id: int, attempt: int, start: int = 0) -> Iterator[bytes]:
        """All stored bytes from `start` on, chunk by chunk."""
        chunks = session.scalars(
            select(LogChunk)
            .where(_of(step_id, attempt), LogChunk.start + LogChunk.size > start)
            .order_by(LogChunk.start)
        )
        for chunk in chunks:
            yield self.load(chunk)[max(0, start - chunk.start) :]

    def size(self, session: Session, step_id: int, attempt: int) -> tuple[int, int]:
        """Stored bytes and newlines."""
        row = session.execute(
            select(func.sum(LogChunk.size), func.sum(LogChunk.lines)).where(_of(step_id, attempt))
        ).one()
        return row[0] or 0, row[1] or 0

    def window(self, session: Session, step_id: int, attempt: int, first: int, count: int) -> Window:
        """`count` lines from line `first` on; a negative `first` counts from the end.

        Reads the chunks that these lines lie in, and of a line over many chunks only the beginning.
        """
        size, newlines = self.size(session, step_id, attempt)
        last = session.scalars(
            select(LogChunk).where(_of(step_id, attempt)).order_by(LogChunk.start.desc()).limit(1)
        ).one_or_none()
        open_line = last is not None and not self.load(last).endswith(b"\n")
        total = newlines + (1 if size and open_line else 0)
        first = max(0, total + first) if first < 0 else first
        chunks = session.scalars(
            select(LogChunk)
            .where(
                _of(step_id, attempt),
                LogChunk.first_line <= first + count,
                LogChunk.first_line + LogChunk.lines >= first,
            )
            .order_by(LogChunk.start)
        ).all()
        cutter = Cutter(first, min(count, max(0, total - first)))
        for chunk in chunks:
            if cutter.done:
                break
            # In the middle of a line that is cut already nothing needs to be read.
            if cutter.full and not chunk.lines:
                cutter.more += chunk.size
            else:
                cutter.take(chunk, self.load(chunk), self.times(chunk))
        cutter.end()
        return Window(first, tuple(cutter.lines), total, tuple(cutter.times))

    def times(self, chunk: LogChunk) -> list[tuple[int, int]]:
        """Position and ns, where the time moved on in this chunk; empty where times are not known."""
        if not chunk.times:
            return []
        packed: bytes = self._files.cat_file(f"{self._root}/{chunk.times}")
        return logtimes.unpack(packed, chunk.start, chunk.size)

    def chunks(self, session: Session, step_id: int, attempt: int, start: int, count: int) -> Sequence[LogChunk]:
        """At most `count` chunks from the one on that holds position `start`."""
        return session.scalars(
            select(LogChunk)
            .where(_of(step_id, attempt), LogChunk.start + LogChunk.size > start)
            .order_by(LogChunk.start)
            .limit(count)
        ).all()

    def resume(self, session: Session, step_id: int, attempt: int, position: int) -> tuple[int, int]:
        """The last known time not after `position`, and the position that it is of; zeros when there is none."""
        chunk = session.scalars(
            select(LogChunk)
            .where(_of(step_id, attempt), LogChunk.start <= position, LogChunk.times != "")
            .order_by(LogChunk.start.desc())
            .limit(1)
        ).one_or_none()
        known = [] if chunk is None else [one for one in self.times(chunk) if one[0] <= position]
        # What a chunk begins with is only what was in force before: the entry itself may lie further back.
        return (known[-1][1], known[-1][0]) if known and (len(known) > 1 or known[-1][0] == 0) else (0, 0)

    def follow(self, step_id: int, attempt: int, start: int, wait: float) -> Iterator[tuple[int, bytes]]:
        """New bytes from `start` on as (position, bytes), for about `wait` seconds without one; then returns.

        First what is stored, then what Redis has; a gap in Redis is filled from the store. When Redis is away,
        what is stored meanwhile is all there is.
        """
        for data in self._stored_after(step_id, attempt, start):
            yield start, data
            start += len(data)
        last, until = "0", monotonic() + wait
        while (left := until - monotonic()) > 0:
            last, pieces = self._pieces(step_id, attempt, last, left)
            for position, data in pieces:
                if position > start:
                    for stored in self._stored_after(step_id, attempt, start):
                        yield start, stored
                        start += len(stored)
                if position <= start < position + len(data):
                    fresh = data[start - position :]
                    yield start, fresh
                    start += len(fresh)
            if not pieces:
                for stored in self._stored_after(step_id, attempt, start):
                    yield start, stored
                    start += len(stored)
                return

    def _stored_after(self, step_id: int, attempt: int, start: int) -> list[bytes]:
        with self._database.read() as session:
            return [data for data in self.read(session, step_id, attempt, start) if data]

    def _pieces(self, step_id: int, attempt: int, last: str, wait: float) -> tuple[str, list[tuple[int, bytes]]]:
        try:
            answer: Any = self._live.xread({_stream(step_id, attempt): last}, count=50, block=max(1, int(wait * 1000)))
        except redis.RedisError:
            sleep(min(wait, CHUNK_SECONDS))  # until the next chunk may be stored
            return last, []
        entries = answer[0][1] if answer else []
        pieces = [(int(fields[b"at"]), fields[b"data"]) for _, fields in entries]
        return (entries[-1][0].decode() if entries else last), pieces

    def publish(self, step_id: int, attempt: int, position: int, data: bytes) -> None:
        """Show bytes to open pages; none mean that the store has all before `position`. Raises redis.RedisError."""
        stream = _stream(step_id, attempt)
        pipe = self._live.pipeline(transaction=False)
        pipe.xadd(stream, {"at": position, "data": data}, maxlen=LIVE_PIECES, approximate=True)
        pipe.expire(stream, LIVE_TTL)
        pipe.execute()

    def store(self, writer: LogWriter, start: int, first_line: int, data: bytes, times: logtimes.Times) -> int:
        """Keep bytes for good; returns the newlines in them. A second writer at the same place is refused."""
        blob = f"log/{writer.step_id}/{writer.attempt}/{start}-{writer.fence}.zst"
        path = f"{self._root}/{blob}"
        try:
            self._files.makedirs(path.rsplit("/", 1)[0], exist_ok=True)
            self._files.pipe_file(path, zstandard.compress(data, LEVEL))
            if times:
                self._files.pipe_file(f"{path}.times", logtimes.pack(times, start))
        except OSError as error:
            raise ServiceError(
                f"the log can't be stored: {error.strerror or error}", remedy="see to the place of TOWPATH_BLOBS_URL"
            ) from error
        lines = data.count(b"\n")
        with self._database.write() as session, _one_writer(writer):
            session.add(
                LogChunk(
                    step_id=writer.step_id,
                    attempt=writer.attempt,
                    start=start,
                    size=len(data),
                    first_line=first_line,
                    lines=lines,
                    blob=blob,
                    times=f"{blob}.times" if times else "",
                )
            )
            session.flush()
        return lines

    def load(self, chunk: LogChunk) -> bytes:
        """The bytes of a chunk."""
        packed: bytes = self._files.cat_file(f"{self._root}/{chunk.blob}")
        return zstandard.decompress(packed, max_output_size=chunk.size)


@contextmanager
def _one_writer(writer: LogWriter) -> Iterator[None]:
    """The unique place of a chunk lets one writer in; a worker that lost the step finds it taken."""
    try:
        yield
    except IntegrityError as error:
        raise StaleWrite(f"the log of step {writer.step_id} has another writer") from error


def _of(step_id: int, attempt: int) -> Any:
    return (LogChunk.step_id == step_id) & (LogChunk.attempt == attempt)


def _stream(step_id: int, attempt: int) -> str:
    return f"towpath:log:{step_id}:{attempt}"
