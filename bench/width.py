"""Many small stages at once, against a loop of `docker run` of the same width."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from sqlalchemy import select

from bench.paths import remove_containers
from bench.service import Service, git, service, until
from bench.stage import DOCKERFILE, flags
from bench.table import Figure, median
from cd.pipeline.records import Run, Step
from cd.pipeline.states import RUN
from cd.sandbox.seccomp import PROFILE

STAGES, WIDTH, PAIRS = 100, 2, 3


def by_docker(image: str, seccomp: Path) -> float:
    """Seconds for all of them, two at a time."""
    command = ["docker", *flags(image, seccomp)]
    began = time.perf_counter()
    with ThreadPoolExecutor(WIDTH) as pool:
        for done in pool.map(lambda _: subprocess.run(command, check=True), range(STAGES)):
            done.check_returncode()
    return time.perf_counter() - began


def by_towpath(running: Service, work: Path, repository: Path) -> tuple[float, str]:
    """Seconds from the end of the build to the end of the run; and the image."""
    git("commit", "-q", "--allow-empty", "-m", "again", cwd=work)
    sha = git("rev-parse", "HEAD", cwd=work)
    git("push", "-q", str(repository), "HEAD:refs/heads/main", cwd=work)

    def ended() -> Run | None:
        run = running.run_of(sha)
        return run if run is not None and run.state in RUN.terminal else None

    run = until(ended, 300, "the run's end", 0.1)
    if run.state != "passed" or run.finished_at is None or run.image is None:
        raise RuntimeError(f"the run {run.state}: {run.reason}")
    with running.services.database.read() as session:
        built = session.scalars(select(Step.finished_at).where(Step.run_id == run.id, Step.name == "build")).one()
    return (run.finished_at - built).total_seconds(), run.image  # type: ignore[operator]  # it has ended


def measure() -> list[Figure]:
    """Alternating: a run of a hundred stages, a hundred times `docker run`."""
    folder = Path(tempfile.mkdtemp(prefix="tpw-"))
    ratios = []
    try:
        with service(("up", "--workers", str(WIDTH))) as running:
            _, _, repository = running.project("bench")
            work = folder / "work"
            work.mkdir()
            stages = "".join(f'  s{number}: {{run: ["true"], reuse: never}}\n' for number in range(STAGES))
            (work / "Dockerfile").write_text(DOCKERFILE)
            (work / ".towpath.yml").write_text(f"stages:\n{stages}")
            seccomp = folder / "seccomp.json"
            seccomp.write_text(PROFILE)
            git("init", "-q", cwd=work)
            git("add", ".", cwd=work)
            _, image = by_towpath(running, work, repository)
            for _ in range(PAIRS):
                bare = by_docker(image, seccomp)
                ours, _ = by_towpath(running, work, repository)
                ratios.append(ours / bare)
            remove_containers(running)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return [
        Figure(
            f"{STAGES} stages of `true`, {WIDTH} at a time, against `docker run` of the same with the same flags",
            "ratio ≤ 1.15",
            f"{median(ratios):.2f}",
            f"{PAIRS} pairs of {STAGES}",
            median(ratios) <= 1.15,
        )
    ]
