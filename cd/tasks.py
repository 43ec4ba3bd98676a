"""Background work: a job names a task, the task is claimed, done, and finished, put back or given up."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from time import monotonic
from types import TracebackType

import structlog
from sqlalchemy import select
from sqlalchemy.orm import Session

from cd.errors import ServiceError, StaleWrite, TowpathError
from cd.pipeline import artifacts, auditing, kept, reports, runs, stages
from cd.pipeline.artifacts import ArtifactStore
from cd.pipeline.records import Project, Step
from cd.pipeline.states import STEP
from cd.promote import cleaning, deployments, releases
from cd.store import tasks
from cd.store.tasks import Claim, Ring
from cd.wiring import Services

log = structlog.get_logger()

#: Seconds before the next try, by the number of failed ones.
BACKOFF = (1.0, 2.0, 5.0, 10.0)
#: Seconds that a work-horse goes on with further tasks: a fork for each would cost more than many a stage, and a worker
#: that is to stop waits for this long at most, besides its present task.
TURN = 5.0
#: Exit status of a work-horse that lost its claim.
LOST_CLAIM = 75


class Process:
    """What a worker process is: its services and its name. Set once, before it forks."""

    services: Services
    name = ""
    #: Kinds of tasks that it takes; none outside of a worker.
    kinds: tuple[str, ...] = ()


def prepare() -> None:
    """In a fresh work-horse: connections of its own."""
    Process.services.after_fork()


def perform(task_id: int) -> None:
    """The function that every job names: in a worker's child, do what is ready, the best first, for a while.

    Outside of a worker it does the named task, and returns at once when that is done or taken.
    """
    services, until = Process.services, monotonic() + TURN
    if not Process.kinds:
        _perform(services, lambda session, lease: tasks.claim(session, task_id, Process.name, lease))
        return
    limits = select(Project.id.label("owner"), Project.parallel.label("most")).subquery()

    def best(session: Session, lease: float) -> Claim | None:
        return tasks.take(session, Process.kinds, Process.name, lease, limits)

    while _perform(services, best):
        if monotonic() > until:
            services.doorbell([Ring(task_id, Process.kinds[0])], False)
            return


def _perform(services: Services, take: Callable[[Session, float], Claim | None]) -> bool:
    """Do one task; False when there was none."""
    with services.database.write() as session:
        claim = take(session, services.settings.lease_seconds)
    if claim is None:
        return False
    with structlog.contextvars.bound_contextvars(task=claim.task_id, kind=claim.kind, subject=claim.subject):
        try:
            with Lease(services, claim):
                _attempt(services, claim)
        except StaleWrite as error:
            # Somebody else moved on: a person canceled, or another worker holds the task now.
            log.info("task.stale", reason=str(error))
    return True


def _attempt(services: Services, claim: Claim) -> None:
    try:
        HANDLERS[claim.kind](services, claim)
    except StaleWrite as error:
        log.info("task.stale", reason=str(error))
    except Exception as error:  # noqa: BLE001 - whatever it is, the task must not stay claimed
        _failed(services, claim, error)
        return
    with services.database.write() as session:
        tasks.finish(session, claim)


def _failed(services: Services, claim: Claim, error: Exception) -> None:
    """Towpath's or an engine's fault: try again later, or give up with the reason."""
    if not isinstance(error, TowpathError):
        log.exception("task.broke")
    reason = str(error) if isinstance(error, TowpathError) else f"internal error: {type(error).__name__}: {error}"
    retryable = not isinstance(error, ServiceError) or error.retryable
    with services.database.write() as session:
        if retryable and claim.attempts + 1 < tasks.MAX_ATTEMPTS:
            delay = BACKOFF[min(claim.attempts, len(BACKOFF) - 1)]
            log.warning("task.again", reason=reason, attempt=claim.attempts + 1, delay=delay)
            if claim.kind in ("build", "stage"):
                step = session.get_one(Step, claim.subject)
                if step.state == "running" and step.fence == claim.fence:
                    runs.try_again(session, step, f"{reason}; tried again", delay)
            tasks.put_back(session, claim, reason, delay)
            return
        log.error("task.given_up", reason=reason, attempts=claim.attempts + 1)
        if claim.kind in ("build", "stage"):
            step = session.get_one(Step, claim.subject)
            if step.state not in STEP.terminal:
                runs.end_step(session, step, "errored", releases.run_ended, reason=reason)
        elif claim.kind == "deploy":
            deployments.give_up(session, claim, reason)
        tasks.finish(session, claim, reason)


class Lease:
    """Renews a claim from a thread while the work goes on. A holder that loses it ends its process at once.

    The end comes before the lease does, so that two workers never do the same task at the same time.
    """

    def __init__(self, services: Services, claim: Claim) -> None:
        self._services, self._claim = services, claim
        self._seconds = services.settings.lease_seconds
        self._until = monotonic() + self._seconds
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._work, name="lease", daemon=True)

    def __enter__(self) -> Lease:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def _work(self) -> None:
        while not self._over.wait(self._seconds / 3):
            asked = monotonic()
            try:
                with self._services.database.write() as session:
                    tasks.renew(session, self._claim, self._seconds)
                self._until = asked + self._seconds
            except StaleWrite:
                if not self._over.is_set():
                    self._leave("lost")
            except ServiceError as error:
                log.warning("lease.not_renewed", error=str(error))
            if monotonic() > self._until - self._seconds / 6:
                self._leave("over")

    def _leave(self, why: str) -> None:
        log.error("lease.lost", why=why)
        os._exit(LOST_CLAIM)


def _build(services: Services, claim: Claim) -> None:
    services.builds().execute(claim)


def _stage(services: Services, claim: Claim) -> None:
    services.stages().execute(claim)


def _audit(services: Services, claim: Claim) -> None:
    services.auditor().execute(claim)


def _deploy(services: Services, claim: Claim) -> None:
    services.deployer().execute(claim)


def _clean(services: Services, claim: Claim) -> None:
    """What crashes left on this worker's engine and disk."""
    instance = services.instance()
    removed = stages.clean(services.database, services.sandbox, instance)
    removed += auditing.clean(services.database, services.sandbox, instance)
    removed += cleaning.clean(services.database, services.targets, instance)
    services.repositories.clean()
    artifacts.clean(services.database, ArtifactStore(services.settings.blobs), services.settings.artifact_days)
    reports.clean(services.database)
    disk = services.disk()
    kept.clean(services.database, disk.stock, services.sandbox, instance)
    disk.clean()
    disk.stock.prune_cache(services.settings.images_limit)
    if removed:
        log.info("clean.removed", containers=removed)


HANDLERS: Mapping[str, Callable[[Services, Claim], None]] = {
    "build": _build,
    "stage": _stage,
    "audit": _audit,
    "deploy": _deploy,
    "retire": _deploy,
    "clean": _clean,
}
