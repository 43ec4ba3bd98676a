"""Results of tests: what the reports of one attempt come to, and how they are kept."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from typing import Any, TypeVar

from sqlalchemy import delete, func, insert, select
from sqlalchemy.orm import Session

from cd.pipeline.junit import NAME_CHARS, TEXT_CHARS, WORSE, Case, Reader, shortened
from cd.pipeline.records import Run, Step, TestCase, TestResult
from cd.store.base import insert_new, now
from cd.store.database import Database

#: Results of one attempt that are kept, and characters of text with them; what failed comes first.
MAX_CASES = 20_000
MAX_TEXT = 4_000_000
#: Values in one statement.
BATCH = 500
#: Days that results of tests are kept, and stages whose results one round of cleaning removes.
DAYS = 90
ROUND = 200

One = TypeVar("One")


@dataclass(frozen=True)
class Summary:
    """Counts over all reports of one attempt. `seconds` is the sum of what its cases took."""

    files: int = 0
    suites: int = 0
    tests: int = 0
    passed: int = 0
    failed: int = 0
    errors: int = 0
    skipped: int = 0
    seconds: float = 0.0

    def as_json(self) -> dict[str, Any]:
        """For `Attempt.report`."""
        return asdict(self)


class Results:
    """Adds up the reports of one attempt. `mask` is applied to every text before it is cut or kept."""

    def __init__(self, mask: Callable[[str], str] = lambda text: text) -> None:
        self.summary = Summary()
        self._mask = mask
        self._cases: dict[tuple[str, str], Case] = {}

    def add(self, report: Reader) -> None:
        """Count one more report."""
        counts = dict.fromkeys(WORSE, 0)
        for case in report.cases:
            counts[case.state] += 1
            self._keep(self._clean(case))
        old = self.summary
        self.summary = Summary(
            files=old.files + 1,
            suites=old.suites + report.suites,
            tests=old.tests + len(report.cases),
            passed=old.passed + counts["passed"],
            failed=old.failed + counts["failed"],
            errors=old.errors + counts["error"],
            skipped=old.skipped + counts["skipped"],
            seconds=round(old.seconds + sum(case.seconds for case in report.cases), 6),
        )

    def _clean(self, case: Case) -> Case:
        return Case(
            shortened(self._mask(case.classname), NAME_CHARS),
            shortened(self._mask(case.name), NAME_CHARS),
            case.state,
            case.seconds,
            shortened(self._mask(case.text), TEXT_CHARS) if case.text else "",
        )

    def _keep(self, case: Case) -> None:
        """A test that is told of twice is one test: the worse result stands, the times add up."""
        known = self._cases.setdefault((case.classname, case.name), case)
        if known is not case:
            worse = max(known, case, key=lambda one: WORSE.index(one.state))
            self._cases[case.classname, case.name] = replace(worse, seconds=known.seconds + case.seconds)

    @property
    def note(self) -> str:
        """What to say when there are more than are kept; else nothing."""
        more = len(self._cases) - MAX_CASES
        return f"of its tests {MAX_CASES} are listed, the other {more} are only counted" if more > 0 else ""

    def kept(self) -> Sequence[Case]:
        """The cases to keep, worst first, in the order of the reports."""
        cases = sorted(self._cases.values(), key=lambda case: -WORSE.index(case.state))[:MAX_CASES]
        return list(_within(cases, MAX_TEXT))


def _within(cases: Iterable[Case], left: int) -> Iterator[Case]:
    for case in cases:
        left -= len(case.text)
        yield case if left >= 0 or not case.text else replace(case, text="… left out: the reports say too much …")


def store(session: Session, step: Step, attempt: int, cases: Sequence[Case]) -> None:
    """Write the results of one attempt."""
    hashes = [case_hash(step.name, case.classname, case.name) for case in cases]
    ids = _ids(session, step.project_id, hashes)
    new = [
        {"project_id": step.project_id, "stage": step.name, "classname": case.classname, "name": case.name, "hash": key}
        for case, key in zip(cases, hashes, strict=True)
        if key not in ids
    ]
    if new:
        # Somebody else may write the same tests at the same time.
        for some in _batches(new):
            session.execute(insert_new(session.get_bind().dialect.name, TestCase), some)
        ids |= _ids(session, step.project_id, [key for key in hashes if key not in ids])
    results = [
        {
            "case_id": ids[key],
            "step_id": step.id,
            "attempt": attempt,
            "state": case.state,
            "seconds": case.seconds,
            "text": case.text,
        }
        for case, key in zip(cases, hashes, strict=True)
    ]
    for rows in _batches(results):
        session.execute(insert(TestResult), rows)


def clean(database: Database, days: float = DAYS) -> int:
    """Remove the results of stages that ended long ago, the oldest first; of how many stages."""
    for done in range(ROUND):
        with database.read() as session:
            oldest = session.scalar(select(func.min(TestResult.step_id)))
            ended = session.scalar(
                select(func.coalesce(Step.finished_at, Run.created_at)).join(Run).where(Step.id == oldest)
            )
        if oldest is None or ended is None or ended > now() - timedelta(days=days):
            return done
        with database.write() as session:
            session.execute(delete(TestResult).where(TestResult.step_id == oldest))
    return ROUND


def case_hash(stage: str, classname: str, name: str) -> str:
    """What tells a test from the others of its project."""
    return hashlib.sha256("\0".join((stage, classname, name)).encode("utf-8", "replace")).hexdigest()


def _ids(session: Session, project_id: int, hashes: Sequence[str]) -> dict[str, int]:
    found: dict[str, int] = {}
    for some in _batches(hashes):
        rows = session.execute(
            select(TestCase.hash, TestCase.id).where(TestCase.project_id == project_id, TestCase.hash.in_(some))
        )
        found.update((row[0], row[1]) for row in rows)
    return found


def _batches(many: Sequence[One]) -> Iterator[Sequence[One]]:
    for at in range(0, len(many), BATCH):
        yield many[at : at + BATCH]
