"""Server-sent events: one thread a process waits for news and wakes all open streams."""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Callable, Iterator
from time import monotonic
from typing import Any, cast

import redis
import structlog
from flask import Response, current_app

from cd.errors import ServiceError
from cd.queue.doorbell import EVENTS_CHANNEL
from cd.store import events
from cd.store.records import Event
from cd.wiring import Services

log = structlog.get_logger()

#: Seconds: a stream's life (the browser comes back with Last-Event-ID), a sign of life in between, a look without Redis.
LIFE, PULSE, POLL = 55.0, 15.0, 1.0
#: Newest events that are kept in memory; a stream that is further behind reads the database.
KEPT = 1000

Wanted = Callable[[Event], bool]


class Hub:
    """Reads each event once for all streams of this process. Its thread starts with the first stream."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._news = threading.Condition()
        self._recent: deque[Event] = deque(maxlen=KEPT)
        self._newest = -1
        self._thread: threading.Thread | None = None

    def start(self) -> int:
        """Make sure that the thread runs; id of the newest event."""
        with self._news:
            if self._thread is None:
                with self._services.database.read() as session:
                    self._newest = events.newest(session)
                self._thread = threading.Thread(target=self._listen, name="events", daemon=True)
                self._thread.start()
            return self._newest

    def _listen(self) -> None:
        while True:
            try:
                with self._services.redis.pubsub(ignore_subscribe_messages=True) as pubsub:
                    pubsub.subscribe(EVENTS_CHANNEL)
                    while True:
                        pubsub.get_message(timeout=POLL)
                        self._read()
            except redis.RedisError as error:
                log.warning("events.redis_away", error=str(error))
            except ServiceError as error:
                log.warning("events.not_read", error=str(error))
            threading.Event().wait(POLL)
            self._read_quietly()

    def _read_quietly(self) -> None:
        try:
            self._read()
        except ServiceError as error:
            log.warning("events.not_read", error=str(error))

    def _read(self) -> None:
        with self._services.database.read() as session:
            fresh = events.after(session, self._newest)
        if fresh:
            with self._news:
                self._recent.extend(fresh)
                self._newest = fresh[-1].id
                self._news.notify_all()

    def after(self, cursor: int, wait: float) -> list[Event]:
        """Events behind `cursor`, as soon as there are any; none after `wait` seconds."""
        with self._news:
            self._news.wait_for(lambda: self._newest > cursor, wait)
            if self._newest <= cursor:
                return []
            if self._recent and self._recent[0].id <= cursor + 1:
                return [event for event in self._recent if event.id > cursor]
        with self._services.database.read() as session:
            return list(events.after(session, cursor))


def response(cursor: int, wanted: Wanted) -> Response:
    """An event stream that begins behind the event `cursor` (0: with what comes next)."""
    hub = cast(Hub, current_app.extensions["towpath.live"])
    newest = hub.start()
    answer = Response(_frames(hub, cursor or newest, wanted), mimetype="text/event-stream")
    answer.headers["Cache-Control"] = "no-store"
    answer.headers["X-Accel-Buffering"] = "no"
    return answer


def _frames(hub: Hub, cursor: int, wanted: Wanted) -> Iterator[str]:
    yield f"retry: 1000\nid: {cursor}\n\n"
    end = monotonic() + LIFE
    while (left := end - monotonic()) > 0:
        fresh = hub.after(cursor, min(PULSE, left))
        frames = [frame(event) for event in fresh if wanted(event)]
        if fresh:
            cursor = fresh[-1].id
        yield "".join(frames) or f": {cursor}\n\n"


def frame(event: Event) -> str:
    """One event in the stream's format."""
    data: dict[str, Any] = {
        "project_id": event.project_id,
        "run_id": event.run_id,
        "subject": event.subject,
        "at": event.at.isoformat(),
        **event.data,
    }
    return f"id: {event.id}\nevent: {event.kind}\ndata: {json.dumps(data)}\n\n"
