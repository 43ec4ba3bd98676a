"""Time that Towpath adds per stage over `docker run` with the same flags."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from sqlalchemy import select

from bench.paths import remove_containers
from bench.service import Service, git, service, until
from bench.table import Figure, median
from cd.pipeline.records import Run, Step
from cd.pipeline.states import RUN
from cd.sandbox.seccomp import PROFILE

STAGES, PAIRS = 10, 6
DOCKERFILE = 'FROM python:3.11-slim\nCMD ["true"]\n'


def pipeline() -> str:
    """Stages of `true`, each after the one before, never reused."""
    lines = ["stages:"]
    for number in range(STAGES):
        needs = f", needs: [s{number - 1}]" if number else ""
        lines.append(f'  s{number}: {{run: ["true"], reuse: never{needs}}}')
    return "\n".join(lines) + "\n"


def flags(image: str, seccomp: Path) -> list[str]:
    """Arguments of docker: a container with the flags of a stage."""
    return (
        "run --rm --network none --read-only --user 65532:65532 --cap-drop ALL --security-opt no-new-privileges "
        f"--security-opt seccomp={seccomp} --memory 512m --memory-swap 512m --cpus 1 --pids-limit 256 "
        "--ulimit nofile=4096:4096 --ulimit core=0 --ipc private --shm-size 16m --init --log-driver local "
        "--tmpfs /tmp:rw,exec,nosuid,nodev,mode=1777,size=1g --tmpfs /work:rw,exec,nosuid,nodev,mode=1777,size=1g "
        f"--env HOME=/work --env CI=true --entrypoint true {image}"
    ).split()


def by_docker(image: str, seccomp: Path) -> float:
    """Seconds a container, with the flags of a stage."""
    began = time.perf_counter()
    for _ in range(STAGES):
        subprocess.run(["docker", *flags(image, seccomp)], check=True)
    return (time.perf_counter() - began) / STAGES


def by_towpath(running: Service, work: Path, repository: Path) -> tuple[float, str]:
    """Seconds a stage, from the end of the build to the end of the run; and the image."""
    git("commit", "-q", "--allow-empty", "-m", "again", cwd=work)
    sha = git("rev-parse", "HEAD", cwd=work)
    git("push", "-q", str(repository), "HEAD:refs/heads/main", cwd=work)

    def ended() -> Run | None:
        run = running.run_of(sha)
        return run if run is not None and run.state in RUN.terminal else None

    run = until(ended, 120, "the run's end")
    if run.state != "passed" or run.finished_at is None or run.image is None:
        raise RuntimeError(f"the run {run.state}: {run.reason}")
    with running.services.database.read() as session:
        built = session.scalars(select(Step.finished_at).where(Step.run_id == run.id, Step.name == "build")).one()
    return (run.finished_at - built).total_seconds() / STAGES, run.image  # type: ignore[operator]  # it has ended


def measure() -> list[Figure]:
    """Alternating: a run of ten stages in a row, ten times `docker run`."""
    folder = Path(tempfile.mkdtemp(prefix="tpt-"))
    added, ratios = [], []
    try:
        with service() as running:
            _, _, repository = running.project("bench")
            work = folder / "work"
            work.mkdir()
            (work / "Dockerfile").write_text(DOCKERFILE)
            (work / ".towpath.yml").write_text(pipeline())
            seccomp = folder / "seccomp.json"
            seccomp.write_text(PROFILE)
            git("init", "-q", cwd=work)
            git("add", ".", cwd=work)
            _, image = by_towpath(running, work, repository)
            for _ in range(PAIRS):
                bare = by_docker(image, seccomp)
                ours, _ = by_towpath(running, work, repository)
                added.append((ours - bare) * 1000)
                ratios.append(ours / bare)
            remove_containers(running)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return [
        Figure(
            "time Towpath adds per stage over `docker run` with the same flags",
            "median ≤ 50 ms",
            f"{median(added):.0f} ms (ratio {median(ratios):.2f})",
            f"{PAIRS} pairs of {STAGES} stages",
            median(added) <= 50,
        )
    ]
