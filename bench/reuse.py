"""A run of 20 stages whose verdicts are all known: from its start to passed, with checkout and a known image."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from sqlalchemy import func, select

from bench.paths import remove_containers
from bench.service import Service, git, service, until
from bench.table import Figure, median
from cd.pipeline.records import Run, Step
from cd.pipeline.states import RUN

STAGES, RUNS, TARGET = 20, 15, 300.0
DOCKERFILE = 'FROM python:3.11-slim\nCMD ["true"]\n'


def pipeline() -> str:
    """Four rows of stages beside each other, each row after the one before."""
    lines = ["stages:"]
    for number in range(STAGES):
        row = number // 5
        needs = ", ".join(f"s{earlier}" for earlier in range(5 * (row - 1), 5 * row)) if row else ""
        lines.append(f'  s{number}: {{run: ["true", "{number}"], needs: [{needs}]}}')
    return "\n".join(lines) + "\n"


def push(running: Service, work: Path, repository: Path) -> Run:
    """The run of a commit with the same files, once it has ended."""
    git("commit", "-q", "--allow-empty", "-m", "again", cwd=work)
    sha = git("rev-parse", "HEAD", cwd=work)
    git("push", "-q", str(repository), "HEAD:refs/heads/main", cwd=work)

    def ended() -> Run | None:
        run = running.run_of(sha)
        return run if run is not None and run.state in RUN.terminal else None

    run = until(ended, 180, "the run's end")
    if run.state != "passed":
        raise RuntimeError(f"the run {run.state}: {run.reason}")
    return run


def times(running: Service, run: Run) -> tuple[float, float]:
    """Milliseconds from the run's start and from its creation to its end. Raises when a stage ran."""
    with running.services.database.read() as session:
        reused = session.scalar(
            select(func.count()).where(Step.run_id == run.id, Step.kind == "stage", Step.state == "reused")
        )
    if reused != STAGES or run.started_at is None or run.finished_at is None:
        raise RuntimeError(f"{reused} of {STAGES} stages were reused")
    return tuple((run.finished_at - at).total_seconds() * 1000 for at in (run.started_at, run.created_at))  # type: ignore[return-value]


def measure() -> list[Figure]:
    """Earn the verdicts once, then push the same files again and again."""
    folder = Path(tempfile.mkdtemp(prefix="tpr-"))
    try:
        with service(TOWPATH_SHADOW_AUDIT="0") as running:
            _, _, repository = running.project("bench")
            (folder / "Dockerfile").write_text(DOCKERFILE)
            (folder / ".towpath.yml").write_text(pipeline())
            git("init", "-q", cwd=folder)
            git("add", ".", cwd=folder)
            push(running, folder, repository)
            taken = [times(running, push(running, folder, repository)) for _ in range(RUNS)]
            remove_containers(running)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    started, created = [one for one, _ in taken], [one for _, one in taken]
    return [
        Figure(
            f"a run of {STAGES} stages of which all verdicts are known, from start to passed",
            f"≤ {TARGET:.0f} ms",
            f"median {median(started):.0f} ms, worst {max(started):.0f} ms (from the push {median(created):.0f} ms)",
            f"{RUNS} pushes",
            median(started) <= TARGET,
        )
    ]
