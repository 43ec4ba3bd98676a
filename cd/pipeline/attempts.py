"""What stages came to, attempt by attempt: how long they take, and which of them can't make up their mind."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from statistics import median
from typing import Any

from sqlalchemy import case, func, select, text
from sqlalchemy.orm import Session

from cd.pipeline.records import Attempt, Run, Step
from cd.sandbox.base import StageResult
from cd.store.base import insert_new, now

#: So many newest passed attempts say how long a stage takes.
RECENT = 5
_LAST = """FROM (
    SELECT seconds FROM attempt WHERE project_id = :project AND name = n.value AND state = 'passed'
    ORDER BY created_at DESC LIMIT :recent
) AS r"""
_TYPICAL = {
    dialect: text(f"SELECT n.value, (SELECT {gathered}(r.seconds) {_LAST}) FROM {names} AS n")  # noqa: S608
    for dialect, gathered, names in (
        ("sqlite", "json_group_array", "json_each(:names)"),
        ("postgresql", "json_agg", "json_array_elements_text(CAST(:names AS json))"),
    )
}


@dataclass(frozen=True)
class Flake:
    """A stage that both passed and failed for the same image and key: its result is no property of the code."""

    name: str
    image: str
    key: str
    passed: int
    failed: int
    last_at: datetime
    #: Number of the last run with each result.
    passed_run: int
    failed_run: int


def record(
    session: Session,
    run: Run,
    step: Step,
    state: str,
    result: StageResult | None,
    *,
    report: dict[str, Any] | None = None,
    shadow: bool = False,
    number: int | None = None,
    cause: str | None = None,
) -> Attempt:
    """Remember what one execution came to; a second call for the same attempt changes nothing.

    `state` is passed or failed. `result` is None when its command was never begun.
    `number` is another one than the step's own for a `shadow` attempt.
    """
    number = step.attempt if number is None else number
    at = now()
    began, ended = (result.started_at, result.finished_at) if result is not None else (step.started_at or at, at)
    bind = session.get_bind().dialect.name
    session.execute(
        insert_new(bind, Attempt).values(
            project_id=run.project_id,
            run_id=run.id,
            step_id=step.id,
            number=number,
            name=step.name,
            image=step.image or "",
            key=step.key or "",
            state=state,
            exit_code=result.exit_code if result is not None else None,
            cause=cause,
            seconds=max(0.0, (ended - began).total_seconds()),
            shadow=shadow,
            report=report,
            created_at=now(),
        )
    )
    return session.scalars(select(Attempt).where(Attempt.step_id == step.id, Attempt.number == number)).one()


def known(session: Session, step_id: int, number: int) -> bool:
    """Whether that attempt came to an end before."""
    query = select(Attempt.id).where(Attempt.step_id == step_id, Attempt.number == number)
    return session.scalar(query) is not None


def typical(session: Session, project_id: int, names: Iterable[str]) -> dict[str, float]:
    """Seconds that each of these steps takes: the median of the last passed ones. Unknown names are left out.

    One statement, and a few rows of an index for each name, however long the history is.
    """
    asked = {"project": project_id, "recent": RECENT, "names": json.dumps(list(dict.fromkeys(names)))}
    connection = session.connection()
    found = connection.execute(_TYPICAL[connection.dialect.name], asked)
    took = {name: json.loads(seconds) if isinstance(seconds, str) else seconds for name, seconds in found}
    return {name: median(seconds) for name, seconds in took.items() if seconds}


def flakes(session: Session, project_id: int, limit: int = 50) -> list[Flake]:
    """Proven flakes of a project, the latest first: one image and key, two results."""
    passed, failed = Attempt.state == "passed", Attempt.state == "failed"
    last = func.max(Attempt.id)
    found = (
        select(
            func.max(Attempt.name).label("name"),
            Attempt.image,
            Attempt.key,
            func.sum(case((passed, 1), else_=0)).label("passed"),
            func.sum(case((failed, 1), else_=0)).label("failed"),
            last.label("last"),
            func.max(case((passed, Attempt.id))).label("last_passed"),
            func.max(case((failed, Attempt.id))).label("last_failed"),
        )
        .where(Attempt.project_id == project_id, Attempt.key != "")
        .group_by(Attempt.key, Attempt.image)
        .having(func.min(Attempt.state) != func.max(Attempt.state))
        .order_by(last.desc())
        .limit(limit)
        .subquery()
    )

    def number(attempt: Any) -> Any:
        return (
            select(Run.number)
            .join(Attempt, Attempt.run_id == Run.id)
            .where(Attempt.id == attempt)
            .correlate(found)
            .scalar_subquery()
        )

    at = select(Attempt.created_at).where(Attempt.id == found.c.last).correlate(found).scalar_subquery()
    columns = (found.c.name, found.c.image, found.c.key, found.c.passed, found.c.failed, at)
    query = select(*columns, number(found.c.last_passed), number(found.c.last_failed)).order_by(found.c.last.desc())
    return [Flake(*row) for row in session.execute(query)]
