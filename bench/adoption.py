"""kill -9 of a worker or of its child in the middle of a stage: each stage runs once, no line is lost or doubled."""

from __future__ import annotations

import os
import random
import shutil
import signal
import tempfile
import time
from pathlib import Path

from sqlalchemy import select

from bench.chaos import Starts
from bench.idle import family
from bench.paths import remove_containers
from bench.service import Service, git, service, until
from bench.stage import DOCKERFILE
from bench.table import Figure
from cd.pipeline.records import Run, Step
from cd.pipeline.states import RUN

KILLS, STAGES, LINES, WORKERS = 200, 44, 500, 4
#: Seconds between two kills.
PAUSE = (0.2, 0.6)
SCRIPT = "i=0; while [ $i -lt {lines} ]; do echo line $i of $NAME; i=$((i+1)); sleep 0.02; done"


def working(running: Service) -> list[int]:
    """Workers that have a child at work, and these children."""
    parents: dict[int, int] = {}
    for pid in family(running.process.pid):
        try:
            parents[pid] = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended just now
    top = running.process.pid
    children = [pid for pid, parent in parents.items() if parent != top and parents.get(parent) == top]
    return [*children, *(parents[pid] for pid in children)]


def kill_one(running: Service, chance: random.Random) -> bool:
    """One of those that are at work; False when there was none."""
    found = working(running)
    if not found:
        return False
    try:
        os.kill(chance.choice(found), signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def running_stages(running: Service) -> int:
    """How many stages are in the middle."""
    with running.services.database.read() as session:
        return len(session.scalars(select(Step.id).where(Step.kind == "stage", Step.state == "running")).all())


def measure(kills: int = KILLS, stages: int = STAGES, lines: int = LINES, seed: int = 0) -> list[Figure]:
    """One run of many stages that print; kill while any of them runs; then look at logs and containers."""
    chance = random.Random(seed or random.SystemRandom().randrange(1, 10**6))
    folder = Path(tempfile.mkdtemp(prefix="tpk-"))
    try:
        with service(("up", "--workers", str(WORKERS))) as running:
            figure = _measure(running, folder, chance, kills, stages, lines)
            remove_containers(running)
            return [figure]
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _measure(running: Service, folder: Path, chance: random.Random, kills: int, stages: int, lines: int) -> Figure:
    _, _, repository = running.project("bench")
    work = folder / "work"
    work.mkdir()
    (work / "Dockerfile").write_text(DOCKERFILE)
    script = SCRIPT.format(lines=lines)
    (work / ".towpath.yml").write_text(
        "stages:\n"
        + "".join(f'  s{n}: {{run: "{script}", env: {{NAME: s{n}}}, reuse: never}}\n' for n in range(stages))
    )
    git("init", "-q", cwd=work)
    git("add", ".", cwd=work)
    git("commit", "-qm", "first", cwd=work)
    starts = Starts(running.services.instance())
    starts.start()
    began = time.monotonic()
    git("push", "-q", str(repository), "HEAD:refs/heads/main", cwd=work)
    sha = git("rev-parse", "HEAD", cwd=work)
    until(lambda: running_stages(running), 60, "the first stage's start")
    killed = 0
    while killed < kills and not _ended(running, sha):
        killed += bool(running_stages(running)) and kill_one(running, chance)
        time.sleep(chance.uniform(*PAUSE))  # kills come at random moments
    until(lambda: _ended(running, sha), 600, "the run's end", 0.5)
    took = time.monotonic() - began
    starts.process.terminate()
    starts.process.wait()
    starts.join()
    doubled = sum(count - 1 for count in starts.stages.values())
    passed, wrong = _look(running, sha, lines)
    return Figure(
        f"kill -9 of a worker or its child in the middle of a stage, {kills} times",
        "0 stages run twice, 0 log lines lost or doubled",
        f"{doubled} stages run twice, {wrong} of {stages * lines} lines wrong, {passed} of {stages} passed",
        f"{killed} kills in {took:.0f} s",
        not doubled and not wrong and passed == stages and killed >= kills,
    )


def _ended(running: Service, sha: str) -> bool:
    run = running.run_of(sha)
    return run is not None and run.state in RUN.terminal


def _look(running: Service, sha: str, lines: int) -> tuple[int, int]:
    """Stages that passed, and lines that are not what they should be."""
    passed = wrong = 0
    with running.services.database.read() as session:
        run = session.scalars(select(Run).where(Run.sha == sha)).one()
        for step in session.scalars(select(Step).where(Step.run_id == run.id, Step.kind == "stage")):
            passed += step.state == "passed" and step.attempt == 1
            said = b"".join(running.services.logs.read(session, step.id, step.attempt)).decode().splitlines()
            right = [f"line {number} of {step.name}" for number in range(lines)]
            wrong += abs(len(said) - len(right)) + sum(one != other for one, other in zip(said, right, strict=False))
    return passed, wrong
