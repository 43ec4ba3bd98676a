"""Redis as the doorbell: says that there is a task, or that events were written. Nothing is lost with it."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

import redis
import structlog
from rq import Queue
from rq.job import Job
from rq.serializers import JSONSerializer

from cd.errors import ServiceError
from cd.store.tasks import Ring

log = structlog.get_logger()

#: The one function that a job may name; it takes a task's id.
FUNCTION = "cd.tasks.perform"
#: Deployments have a queue of their own, so that no long stage stands before a rollback.
WORK, DEPLOY = "towpath-work", "towpath-deploy"
#: What is done by the workers of each queue.
KINDS = {WORK: ("build", "stage", "audit", "retire", "clean"), DEPLOY: ("deploy",)}
#: Published after each commit with events; the web processes listen.
EVENTS_CHANNEL = "towpath:events"


def queue_of(kind: str) -> str:
    """Name of the queue that a kind of task is rung on."""
    return DEPLOY if kind == "deploy" else WORK


class TaskJob(Job):
    """An RQ job that can only be our one function: whoever can write to Redis can't name another."""

    @property
    def func(self):  # type: ignore[no-untyped-def]  # RQ's own signature has no types
        """The function, if it is the allowed one."""
        if self.func_name != FUNCTION or self.instance is not None:
            raise ServiceError(f"a job names {self.func_name!r}, which is not allowed", retryable=False)
        return super().func


class Doorbell:
    """Rings after a commit. When Redis is away it says so in the log and the sweeper rings later."""

    def __init__(self, connection: redis.Redis) -> None:
        self._redis = connection

    def __call__(self, rings: Sequence[Ring], events: bool) -> None:
        """Ring for each task, and tell listeners when there are events."""
        try:
            for name in {queue_of(ring.kind) for ring in rings}:
                self._enqueue(name, [ring for ring in rings if queue_of(ring.kind) == name])
            if events:
                self._redis.publish(EVENTS_CHANNEL, b"")
        except redis.RedisError as error:
            log.warning("doorbell.unheard", error=str(error), tasks=len(rings))

    def _enqueue(self, name: str, rings: Sequence[Ring]) -> None:
        """Whoever hears it does all that is ready: more jobs than there are workers would wake them for nothing."""
        queue = self._queue(name)
        pipe = self._redis.pipeline(transaction=False)
        pipe.scard(f"rq:workers:{name}")
        pipe.llen(queue.key)
        workers, waiting = pipe.execute()
        rings = rings[: max(1, workers) - waiting] if waiting < max(1, workers) else ()
        if not rings:
            return
        queue.enqueue_many(
            [
                Queue.prepare_data(
                    FUNCTION,
                    args=[ring.task_id],
                    timeout=-1,  # tasks keep their own deadlines
                    result_ttl=0,
                    failure_ttl=60,
                    job_id=f"task-{ring.task_id}-{uuid.uuid4().hex[:8]}",
                    description=f"{ring.kind} task {ring.task_id}",
                )
                for ring in rings
            ]
        )

    def _queue(self, name: str) -> Queue:
        return Queue(name, connection=self._redis, serializer=JSONSerializer, job_class=TaskJob)

    def workers(self) -> int | None:
        """How many workers do builds and stages; None when Redis does not say."""
        try:
            return int(self._redis.scard(f"rq:workers:{WORK}"))
        except redis.RedisError:
            return None

    def heard(self, kind: str) -> bool:
        """Whether a job that wakes a worker for such a task is waiting to be taken. Raises redis.RedisError."""
        return bool(self._queue(queue_of(kind)).count)
