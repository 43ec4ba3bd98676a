"""State changes as server-sent events: one thread a process reads them, all open streams share what it found.

Redis says when to look; without it the thread looks once a second. It runs only while somebody listens.
"""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from time import monotonic
from typing import Any

import redis
import structlog
from flask import Response, current_app, request

from cd.errors import ServiceError, UserError
from cd.queue.doorbell import EVENTS_CHANNEL
from cd.store import events
from cd.store.database import Database
from cd.store.records import Event

log = structlog.get_logger()

HUB = "towpath_live"
#: A stream's life in seconds; the browser then comes again with the id of the last event.
LIFE = 55.0
#: Something is sent at least this often, so that a dead connection is noticed; seconds.
BEAT = 15.0
#: How often the thread looks without being told, in seconds.
LOOK = 1.0
#: Many commits in this many seconds are one look.
TOGETHER = 0.05
#: Newest events kept for all streams; who is further behind reads the database itself.
KEPT = 2000

Wanted = Callable[[Event], bool]


class Hub:
    """What happened lately, and who waits for more."""

    def __init__(self, database: Database, connection: redis.Redis) -> None:
        self._database, self._redis = database, connection
        self._changed = threading.Condition()
        self._recent: deque[Event] = deque(maxlen=KEPT)
        #: Id of the newest event that was read; all after the first kept one are kept.
        self._newest = 0
        self._listeners = 0
        self._thread: threading.Thread | None = None
        self._closed = threading.Event()

    def stream(self, cursor: int, wanted: Wanted, life: float = LIFE) -> Iterator[str]:
        """Frames of the events after `cursor`, for `life` seconds."""
        until, beat = monotonic() + life, monotonic() + BEAT
        self._join()
        try:
            cursor = min(cursor, self.last())
            while True:
                found = self._after(cursor)
                frames = [frame(event) for event in found if wanted(event)]
                cursor = found[-1].id if found else cursor
                at = monotonic()
                if frames:
                    yield "".join(frames)
                if at >= min(beat, until):
                    yield f"id: {cursor}\n\n"  # moves the browser's cursor, and nothing is dispatched
                    beat = at + BEAT
                if at >= until:
                    return
                if not found:
                    self._wait(cursor, min(beat, until) - at)
        finally:
            self._leave()

    def _after(self, cursor: int) -> Sequence[Event]:
        with self._changed:
            if cursor >= self._newest and self._newest:
                return ()
            if self._recent and self._recent[0].id <= cursor + 1:
                return [event for event in self._recent if event.id > cursor]
        with self._database.read() as session:
            return events.after(session, cursor)

    def _wait(self, cursor: int, seconds: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._newest > cursor, max(0.0, seconds))

    def _join(self) -> None:
        with self._changed:
            self._listeners += 1
            if self._thread is None:
                self._recent.clear()
                self._newest = 0
                self._thread = threading.Thread(target=self._listen, name="events", daemon=True)
                self._thread.start()

    def _leave(self) -> None:
        with self._changed:
            self._listeners -= 1

    def close(self) -> None:
        """End the thread; takes up to `LOOK` seconds."""
        self._closed.set()
        thread = self._thread
        if thread is not None:
            thread.join()

    def last(self) -> int:
        """Id of the newest event."""
        with self._database.read() as session:
            return events.newest(session)

    def _listen(self) -> None:
        cursor: int | None = None
        ear: Any = None
        while self._needed():
            cursor = self._look(cursor)
            ear = self._doze(ear)
        if ear is not None:
            ear.close()

    def _needed(self) -> bool:
        with self._changed:
            if self._listeners and not self._closed.is_set():
                return True
            self._thread = None
            return False

    def _look(self, cursor: int | None) -> int | None:
        """Read what is new, tell the streams; where the reading stands now."""
        try:
            if cursor is None:
                cursor = self.last()
                fresh: Sequence[Event] = ()
            else:
                with self._database.read() as session:
                    fresh = events.after(session, cursor)
        except ServiceError as error:
            log.warning("live.no_database", error=str(error))
            return cursor
        if fresh or not self._newest:
            with self._changed:
                self._recent.extend(fresh)
                self._newest = cursor = fresh[-1].id if fresh else cursor
                self._changed.notify_all()
        return cursor

    def _doze(self, ear: Any) -> Any:
        """Until Redis says that there is something, at most `LOOK` seconds; how Redis is listened to from then on."""
        try:
            if ear is None:
                ear = self._redis.pubsub(ignore_subscribe_messages=True)  # type: ignore[no-untyped-call]  # redis has no types
                ear.subscribe(EVENTS_CHANNEL)
            if ear.get_message(timeout=LOOK) is not None:
                self._closed.wait(TOGETHER)
            while ear.get_message(timeout=0) is not None:
                pass
        except redis.RedisError as error:
            log.debug("live.no_redis", error=str(error))
            self._closed.wait(LOOK)
            return None
        return ear


def frame(event: Event) -> str:
    """One event as the browser gets it."""
    data = event.data | {
        "at": event.at.isoformat(),
        "project_id": event.project_id,
        "run_id": event.run_id,
        "subject": event.subject,
    }
    return f"id: {event.id}\nevent: {event.kind}\ndata: {json.dumps(data, separators=(',', ':'))}\n\n"


def stream(cursor: int | None, wanted: Wanted, life: float = LIFE) -> Iterator[str]:
    """Frames of the events after `cursor` (None: from now on) that are `wanted`, for `life` seconds.

    To be called inside a request; what it returns outlives that.
    """
    hub: Hub = current_app.extensions[HUB]
    return hub.stream(hub.last() if cursor is None else cursor, wanted, life)


def resume_at() -> int | None:
    """Where the client says that it stopped, by header or by `?after=`; None when it says nothing. Raises UserError."""
    text = request.headers.get("Last-Event-ID") or request.args.get("after") or ""
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 18):
        raise UserError(
            "not the id of an event", where="Last-Event-ID", remedy="send the id of the last event, or none"
        )
    return int(text)


def response(wanted: Wanted) -> Response:
    """The `wanted` events as an answer that no proxy holds back, from where the client says that it stopped."""
    frames = stream(resume_at(), wanted)
    answer = Response(chain(["retry: 1000\n\n"], frames), mimetype="text/event-stream")
    answer.headers["Cache-Control"] = "no-store"
    answer.headers["X-Accel-Buffering"] = "no"
    return answer
