"""An RQ worker that forks for each job, ends its child with itself, and outlives Redis."""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Callable
from typing import Any

import redis
import structlog
from rq import Worker
from rq.serializers import JSONSerializer

from cd.queue.doorbell import TaskJob

log = structlog.get_logger()

PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


def die_with_parent(parent: int, how: signal.Signals = signal.SIGKILL) -> None:
    """In a fresh child: get the signal when the parent ends; leave at once when it has ended already."""
    _libc.prctl(PR_SET_PDEATHSIG, int(how))
    if os.getppid() != parent:
        os._exit(1)


class TaskWorker(Worker):
    """One queue, one job at a time, each in a forked child (the work-horse).

    `prepare` is called in the child before its job, `lost` in the worker when a child died without ending it.
    """

    # Redis is only the doorbell: the wait for it must stay short.
    max_connection_wait_time = 2

    def __init__(
        self, queue: str, connection: redis.Redis, name: str, prepare: Callable[[], None], lost: Callable[[], None]
    ) -> None:
        super().__init__(
            [queue],
            name=name,
            connection=connection,
            job_class=TaskJob,
            serializer=JSONSerializer,
            worker_ttl=60,
            job_monitoring_interval=10,
            maintenance_interval=60,
            log_job_description=False,
        )
        self._prepare, self._lost = prepare, lost

    def main_work_horse(self, job: Any, queue: Any) -> None:
        """In the child."""
        die_with_parent(self.pid or 0)
        self._prepare()
        super().main_work_horse(job, queue)

    def handle_work_horse_killed(self, job: Any, retpid: Any, ret_val: Any, rusage: Any) -> None:
        """In the worker: its child was killed; the task is free again at once."""
        log.warning("worker.horse_killed", worker=self.name, status=ret_val)
        self._lost()

    def maintain_heartbeats(self, job: Any, execution: Any) -> None:
        """Redis may be away while a child works; the claim on the task is renewed in the database."""
        try:
            super().maintain_heartbeats(job, execution)
        except redis.RedisError as error:
            log.warning("worker.redis_away", worker=self.name, error=str(error))

    def execute_job(self, job: Any, queue: Any) -> None:
        """RQ's bookkeeping around a job may fail with Redis; the child is waited for all the same."""
        try:
            super().execute_job(job, queue)
        except redis.RedisError as error:
            log.warning("worker.redis_away", worker=self.name, error=str(error))
            if self._horse_pid:
                self.wait_for_horse()
                self._horse_pid = 0
