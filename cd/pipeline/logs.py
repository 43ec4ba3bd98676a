"""Logs of steps: to Redis while they are written, in compressed chunks for good, by line or by byte.

Redis is only the quick way to an open page. What a page shows after a reload, and what a worker that takes a
step over goes on from, is what the database says was stored.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from time import monotonic, sleep
from types import TracebackType
from typing import Any

import fsspec
import redis
import structlog
import zstandard
from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from cd.errors import ServiceError, StaleWrite
from cd.pipeline import logtimes
from cd.pipeline.masking import Masker
from cd.pipeline.records import LogChunk
from cd.store.database import Database

log = structlog.get_logger()

#: A chunk holds at most this many bytes before compression, and is at most this many seconds late.
CHUNK_BYTES = 1 << 20
CHUNK_SECONDS = 1.0
#: Of zstd: quick, since it stands in the way of the output.
LEVEL = 1
#: How late a line may reach Redis, in seconds.
LIVE_SECONDS = 0.1
#: Redis keeps about this many pieces of a live log, for this many seconds after the last one. What comes faster than
#: pieces of so many bytes is read from the store.
LIVE_PIECES = 100
LIVE_BYTES = 1 << 16
LIVE_TTL = 3600


#: Of a longer line only the beginning is shown; a window ends early when its lines are larger than this together.
LINE_BYTES = 1 << 16
WINDOW_BYTES = 4 << 20


@dataclass(frozen=True)
class Window:
    """Some lines of a log, without their newlines. `first` counts from 0; `total` lines are stored by now.

    A line over LINE_BYTES is cut, and says so. `times` has the engine's time of each line in ns, 0 where it is unknown.
    """

    first: int
    lines: Sequence[bytes]
    total: int
    times: Sequence[int] = ()


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
        cutter = _Cutter(first, min(count, max(0, total - first)))
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


class _Cutter:
    """Cuts lines out of chunks that lie end to end."""

    def __init__(self, first: int, count: int) -> None:
        self.lines: list[bytes] = []
        self.times: list[int] = []
        #: Bytes of the present line that are not kept.
        self.more = 0
        self._first, self._count = first, count
        self._open = b""
        self._began = 0
        self._size = 0
        self._number = -1

    @property
    def done(self) -> bool:
        """Whether all lines are there, or as many as fit."""
        return len(self.lines) >= self._count or self._size >= WINDOW_BYTES

    @property
    def full(self) -> bool:
        """Whether more of the present line would not be shown."""
        return len(self._open) >= LINE_BYTES

    def take(self, chunk: LogChunk, data: bytes, times: logtimes.Times) -> None:
        """One more chunk."""
        if self._number < 0:
            self._number, self._began = chunk.first_line, logtimes.at(times, chunk.start)
        at = 0
        while not self.done:
            end = data.find(b"\n", at)
            self._add(data[at : end if end >= 0 else len(data)])
            if end < 0:
                return
            self._close()
            at = end + 1
            self._began = logtimes.at(times, chunk.start + at)

    def end(self) -> None:
        """Nothing follows: what is open is a line without its newline."""
        if not self.done and (self._open or self.more):
            self._close()

    def _add(self, data: bytes) -> None:
        if self._number >= self._first:
            room = max(0, LINE_BYTES - len(self._open))
            self._open += data[:room]
            self.more += max(0, len(data) - room)

    def _close(self) -> None:
        if self._number >= self._first:
            told = f" … {self.more:,} more bytes, see the raw log".encode() if self.more else b""
            self.lines.append(self._open + told)
            self.times.append(self._began)
            self._size += len(self._open)
        self._open, self.more = b"", 0
        self._number += 1


class LogWriter:
    """Takes the bytes of one attempt in order; a thread of its own brings them out in time, masked.

    Use it as a context manager: leaving it stores what is left. It is a `cd.sandbox.base.Sink`: when this attempt has a
    log already, `position` lies as far before its end as a secret could reach, so that one cut in two is still seen.
    """

    def __init__(self, store: LogStore, step_id: int, attempt: int, fence: int, secrets: Iterable[str] = ()) -> None:
        self.step_id, self.attempt, self.fence = step_id, attempt, fence
        self._store = store
        self._masker = Masker(secrets)
        with store._database.read() as session:
            stored, self._lines = store.size(session, step_id, attempt)
            #: Bytes stored before this writer began.
            self.resumed = stored
            self.position = max(0, stored - self._masker.reach)
            self.since, self.since_at = store.resume(session, step_id, attempt, self.position)
        #: Bytes that were stored before and come again.
        self._again = stored - self.position
        self._stored = self._shown = stored
        self._buffer = bytearray()
        self._times: list[tuple[int, int]] = []
        self._last_time = self.since
        self._changed = threading.Condition()
        self._closing = False
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._work, name=f"log-{step_id}", daemon=True)

    def __enter__(self) -> LogWriter:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self._put(self._masker.flush())
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join()
        if self._failure is not None and error is None:
            raise self._failure

    def append(self) -> None:
        """What comes is new, whatever is stored: for output that nobody can read again from its beginning."""
        self.position, self._again = self.resumed, 0

    def write(self, data: bytes, times: Sequence[tuple[int, int]] = ()) -> None:
        """Add bytes. Waits while two chunks' worth is not stored yet, so that memory stays bounded."""
        if times:
            told = [(self.position + offset, time) for offset, time in times]
            self.since_at, self.since = told[-1]
            with self._changed:
                self._times += told
        self.position += len(data)
        self._put(self._masker.feed(data))

    def _put(self, data: bytes) -> None:
        again = min(self._again, len(data))
        self._again -= again
        view = memoryview(data)[again:]
        while view:
            with self._changed:
                self._changed.wait_for(lambda: len(self._buffer) < 2 * CHUNK_BYTES or self._failure)
                if self._failure is not None:
                    raise self._failure
                self._buffer += view[:CHUNK_BYTES]
                view = view[CHUNK_BYTES:]
                self._changed.notify_all()

    def _work(self) -> None:
        try:
            self._run()
        except Exception as error:  # noqa: BLE001 - raised again in the writing thread
            with self._changed:
                self._failure = error
                self._changed.notify_all()

    def _run(self) -> None:
        due = monotonic() + CHUNK_SECONDS
        closing = False
        while not closing:
            with self._changed:
                fresh = self._stored + len(self._buffer) > self._shown
                if not fresh and not self._buffer:
                    self._changed.wait_for(lambda: self._closing or self._buffer)
                    due = monotonic() + CHUNK_SECONDS
                self._changed.wait_for(self._urgent, LIVE_SECONDS)
                closing, urgent = self._closing, self._urgent()
            if not urgent:
                self._show()
            if urgent or monotonic() >= due:
                self._keep()
                due = monotonic() + CHUNK_SECONDS

    def _urgent(self) -> bool:
        return self._closing or len(self._buffer) >= CHUNK_BYTES

    def _show(self) -> None:
        """Show what is new, unless it is so much that nobody could read it: that is seen when it is stored."""
        with self._changed:
            new = len(self._buffer) - (self._shown - self._stored)
            data = bytes(self._buffer[-new:]) if 0 < new <= LIVE_BYTES else b""
        if data:
            self._publish(self._shown, data)
            self._shown += len(data)

    def _publish(self, position: int, data: bytes) -> None:
        try:
            self._store.publish(self.step_id, self.attempt, position, data)
        except redis.RedisError as error:
            log.debug("log.not_live", step=self.step_id, error=str(error))

    def _keep(self) -> None:
        size = CHUNK_BYTES
        while size == CHUNK_BYTES:
            with self._changed:
                data = bytes(memoryview(self._buffer)[:CHUNK_BYTES])
                times = self._times_of(self._stored, len(data))
            size = len(data)
            if not size:
                break
            self._lines += self._store.store(self, self._stored, self._lines, data, times)
            with self._changed:
                del self._buffer[:size]
                self._stored += size
                self._changed.notify_all()
        if self._stored > self._shown:
            self._shown = self._stored
            self._publish(self._stored, b"")

    def _times_of(self, start: int, size: int) -> list[tuple[int, int]]:
        """Takes out the times of a chunk; the one in force at its beginning comes first."""
        before = bisect_left(self._times, (start, 0))
        within = bisect_left(self._times, (start + size, 0))
        if before:
            self._last_time = self._times[before - 1][1]
        times = self._times[before:within]
        del self._times[:within]
        if self._last_time and (not times or times[0][0] > start):
            times.insert(0, (start, self._last_time))
        if times:
            self._last_time = times[-1][1]
        return times


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
