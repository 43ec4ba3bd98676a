"""State machines of runs and steps, as data."""

from __future__ import annotations

from cd.store.states import Machine

RUN = Machine(
    "run",
    {
        "queued": frozenset({"running", "canceled", "superseded", "failed", "errored"}),
        "running": frozenset({"passed", "failed", "errored", "canceled", "superseded"}),
        "passed": frozenset(),
        "failed": frozenset(),
        "errored": frozenset(),
        "canceled": frozenset(),
        "superseded": frozenset(),
    },
)

#: A build or a stage. From running back to waiting: tried again, after a failure or an engine fault.
STEP = Machine(
    "step",
    {
        "waiting": frozenset({"running", "reused", "skipped", "canceled"}),
        "running": frozenset({"passed", "failed", "errored", "canceled", "waiting", "reused"}),
        "passed": frozenset(),
        "failed": frozenset(),
        "errored": frozenset(),
        "canceled": frozenset(),
        "reused": frozenset(),
        "skipped": frozenset(),
    },
)

#: Step states that let what needs them start.
GOOD = frozenset({"passed", "reused"})
