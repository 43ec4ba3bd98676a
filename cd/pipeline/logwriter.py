"""The one who writes the log of an attempt: masked, live within a tenth of a second, for good within one."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING

import redis
import structlog

from cd.pipeline.masking import Masker

if TYPE_CHECKING:
    from cd.pipeline.logs import LogStore

log = structlog.get_logger()

#: A chunk holds at most this many bytes before compression, and is at most this many seconds late.
CHUNK_BYTES = 1 << 20
CHUNK_SECONDS = 1.0
#: How late a line may reach Redis, in seconds; what comes faster than pieces of so many bytes is read from the store.
LIVE_SECONDS = 0.1
LIVE_BYTES = 1 << 16


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
