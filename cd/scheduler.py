"""The scheduler process: rings again what nobody took, frees what the dead held, fires timers."""

from __future__ import annotations

import os
import signal
import socket
import threading
from time import monotonic

import redis
import structlog

from cd.errors import TowpathError
from cd.promote import promotions
from cd.store import locks, tasks
from cd.store.base import now
from cd.webhooks import deliveries
from cd.wiring import Services

log = structlog.get_logger()

#: Seconds between two looks, between two cleanings, and how long the active scheduler's lock lasts.
TICK = 1.0
CLEAN = 60.0
LOCK_SECONDS = 5.0


class Scheduler:
    """Of all scheduler processes one is active, by a lease in the database."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._holder = f"{socket.gethostname()}-{os.getpid()}"
        self._held_until = self._cleaned = 0.0
        self._stop = threading.Event()

    def run(self) -> None:
        """Look once a second until told to stop."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._stop.set())
        while not self._stop.wait(TICK):
            try:
                self.tick()
            except TowpathError as error:
                log.warning("scheduler.tick_failed", error=str(error))
        with self._services.database.write() as session:
            locks.release(session, "scheduler", self._holder)

    def tick(self) -> None:
        """One look. Anything it does may be done twice without harm."""
        if not self._active():
            return
        self._ring()
        with self._services.database.write() as session:
            promotions.sweep(session, now())
        for spooled in self._services.repositories.spooled():
            deliveries.receive_spooled(self._services.database, self._services.vault, spooled)
        if monotonic() - self._cleaned > CLEAN:
            self._cleaned = monotonic()
            with self._services.database.write() as session:
                tasks.add(session, "clean", 0)

    def _active(self) -> bool:
        if monotonic() < self._held_until - LOCK_SECONDS / 2:
            return True
        with self._services.database.write() as session:
            held = locks.hold(session, "scheduler", self._holder, LOCK_SECONDS)
        self._held_until = monotonic() + LOCK_SECONDS if held else 0.0
        return held

    def _ring(self) -> None:
        at = now()
        with self._services.database.read() as session:
            silent, due = tasks.expired(session, at), tasks.due(session, at)
        if silent:
            with self._services.database.write() as session:
                freed = tasks.release_expired(session, at)
            log.warning("scheduler.freed", tasks=[ring.task_id for ring in freed])
        if not due:
            return
        try:
            due = [ring for ring in due if not self._services.doorbell.heard(ring.kind)]
        except redis.RedisError as error:
            log.warning("scheduler.redis_away", error=str(error))
            return
        if due:
            with self._services.database.write() as session:
                tasks.mark_rung(session, due, at)
