"""What a stage leaves behind: reports are read, artifacts are kept, once its container has ended.

The order of calls, by whoever runs a stage: `Collector.collect` after the container has ended and before it is
removed, outside any transaction; then `Collected.store` in the transaction that ends the attempt. A worker that takes
the stage over after a crash collects again, with the same outcome.

    collected = collector.collect(name, spec, step_id=…, attempt=…, fence=…, secrets=[…])
    if outcome.state == "passed" and collected.lost:
        outcome = Outcome("failed", collected.lost, "artifacts")
    …
    with database.write() as session:
        …
        collected.store(session, step, attempt)     # also when the attempt failed, or another one follows
        attempts.record(…, report=collected.report)
        runs.end_step(…, reason="; ".join(filter(None, [outcome.reason, *collected.notes])))
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Session

from cd.pipeline.definition import StageSpec
from cd.pipeline.records import Step
from cd.sandbox.base import Sandbox


@dataclass(frozen=True)
class Collected:
    """What was found. Nothing of it is in the database before `store`."""

    #: Counts of all reports (`cd.pipeline.reports.Summary` as JSON) for `Attempt.report`; None without reports.
    report: dict[str, Any] | None = None
    #: Remarks for the step's reason, one sentence each: a report that can't be read, a symlink that was left out, ….
    notes: tuple[str, ...] = ()
    #: Why artifacts that were asked for could not be kept; empty when all are. A stage that passed otherwise fails by it.
    lost: str = ""

    def store(self, session: Session, step: Step, attempt: int) -> None:
        """Write results of tests and the list of artifacts of this attempt, in the transaction that ends it."""


@dataclass(frozen=True)
class Collector:
    """Reads what ended containers left in /work and /tmp, as far as their stage's `reports` and `artifacts` say."""

    sandbox: Sandbox
    #: fsspec URL of the blob store.
    blobs: str
    #: Largest sum of the artifacts of one attempt in bytes, and how many days they are kept.
    limit: int
    days: float

    @staticmethod
    def wants(spec: StageSpec) -> bool:
        """Whether a stage leaves anything to collect: its container is then to keep its files."""
        return bool(spec.reports.junit or spec.artifacts)

    def collect(
        self,
        container: str,
        spec: StageSpec,
        *,
        step_id: int,
        attempt: int,
        fence: int,
        secrets: Sequence[str] = (),
    ) -> Collected:
        """Read the reports and keep the artifacts of a container that has ended; at once when it `wants` nothing.

        Secrets are masked in what reports say, and a file that holds one is no artifact. Raises ServiceError when the
        engine or the blob store fails; what the stage wrote never raises.
        """
        return Collected()
