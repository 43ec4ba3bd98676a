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
        runs.end_step(…, reason="; ".join(filter(None, [outcome.reason, *collected.said(outcome.cause)])))

An artifact that can't be kept fails a stage that passed: green promises its files, and since a verdict is reused, they
would be missing for ever. What is left out by rule (a link, a device) and a report that can't be read is only noted:
the command's exit code is the verdict.
"""

from __future__ import annotations

import posixpath
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy.orm import Session

from cd.errors import NotFound
from cd.pipeline import globs, reports
from cd.pipeline.archive import Budget, Endless, walk
from cd.pipeline.artifacts import ArtifactStore, Stored
from cd.pipeline.definition import StageSpec
from cd.pipeline.junit import Case
from cd.pipeline.records import Artifact, Step
from cd.pipeline.taking import Take
from cd.sandbox.base import Sandbox
from cd.store.base import now

#: Bytes that a tar may have besides the content of its files.
OVERHEAD = 256 << 20


@dataclass(frozen=True)
class Collected:
    """What was found. Nothing of it is in the database before `store`."""

    #: Counts of all reports (`cd.pipeline.reports.Summary` as JSON) for `Attempt.report`; None without reports.
    report: dict[str, Any] | None = None
    #: Remarks for the step's reason, one sentence each: a report that can't be read, a symlink that was left out, ….
    notes: tuple[str, ...] = ()
    #: Why artifacts that were asked for could not be kept; empty when all are. A stage that passed else fails by it.
    lost: str = ""
    cases: tuple[Case, ...] = ()
    artifacts: tuple[tuple[str, Stored], ...] = ()
    #: Days that the artifacts are kept.
    days: float = 0.0

    def said(self, cause: str | None) -> list[str]:
        """What to add to the reason of a step that ended by `cause`."""
        return [self.lost, *self.notes] if self.lost and cause != "artifacts" else list(self.notes)

    def store(self, session: Session, step: Step, attempt: int) -> None:
        """Write results of tests and the list of artifacts of this attempt, in the transaction that ends it."""
        reports.store(session, step, attempt, self.cases)
        made = now()
        for path, stored in self.artifacts:
            session.add(
                Artifact(
                    project_id=step.project_id,
                    run_id=step.run_id,
                    step_id=step.id,
                    attempt=attempt,
                    path=path,
                    size=stored.size,
                    sha256=stored.sha256,
                    blob=stored.blob,
                    created_at=made,
                    expires_at=made + timedelta(days=self.days),
                )
            )


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
        if not self.wants(spec):
            return Collected()
        store = ArtifactStore(self.blobs)
        # What a worker kept that was lost before the end.
        store.remove(f"artifact/{step_id}/{attempt}")
        take = Take(store, f"artifact/{step_id}/{attempt}/{fence}", self.limit, secrets)
        take.want(spec)
        budget = Budget(2 * spec.limits.disk + OVERHEAD)
        for root in globs.roots([*take.reports, *take.artifacts]):
            # An engine whose answer is neither read to its end nor closed holds on to the container.
            pieces: Any = self.sandbox.files(container, root)
            try:
                with closing(pieces), closing(walk(pieces, posixpath.dirname(root), budget)) as entries:
                    for entry in entries:
                        take.entry(entry)
            except NotFound:
                continue
            except Endless as error:
                take.lose(f"{root} is more than can be read: {error}")
                break
        summary = take.results.summary
        return Collected(
            report=summary.as_json() if summary.files else None,
            notes=tuple(take.notes()),
            lost=take.lost,
            cases=tuple(take.results.kept()),
            artifacts=tuple(take.kept.items()),
            days=self.days,
        )
