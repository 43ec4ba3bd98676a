"""The worker process: takes jobs from one queue, each in a forked child."""

from __future__ import annotations

import gc
import os
import socket

from cd import tasks
from cd.queue.doorbell import KINDS, WORK
from cd.queue.worker import TaskWorker
from cd.rehearsal import rehearse
from cd.store import tasks as task_table
from cd.wiring import Services


def run(services: Services, *, queue: str = WORK, name: str = "", rehearsed: bool = False) -> None:
    """Work until told to stop (SIGTERM: after the present job). Raises ServiceError when the engine is absent.

    `rehearsed`: the process that this one was forked from has done so. A worker that starts under the name of one
    that died frees what that one had claimed.
    """
    tasks.Process.services = services
    tasks.Process.kinds = KINDS[queue]
    tasks.Process.name = name or f"{socket.gethostname()}-{os.getpid()}"
    services.sandbox.ping()
    if not rehearsed:
        rehearse(services)
        gc.collect()
        gc.freeze()  # the children share these pages for as long as nobody writes to them
    _release(services)
    worker = TaskWorker(
        queue,
        services.redis,
        # RQ's own name is new each time: it refuses one whose last holder was killed a moment ago.
        name=f"{tasks.Process.name}-{os.urandom(4).hex()}",
        prepare=tasks.prepare,
        lost=lambda: _release(services),
    )
    worker.work(logging_level="WARNING")


def _release(services: Services) -> None:
    with services.database.write() as session:
        task_table.release_of(session, tasks.Process.name)
    # A forked child must not inherit an open connection.
    services.database.close()
