"""A container's line → the browser's event: how late a line of a running stage is on an open page."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from pathlib import Path

import httpx
from sqlalchemy import select

from bench.paths import remove_containers
from bench.service import Service, git, service, until
from bench.table import Figure, quantile
from cd.identity import sessions, users
from cd.identity.people import Role
from cd.pipeline.records import Run, Step

LINES = 300
#: Each line is the time that it was written at, in ns; lines come at uneven distances, as a test run's do.
SCRIPT = f"""import random, time
random.seed(1)
for _ in range({LINES}):
    print(time.time_ns(), flush=True)
    time.sleep(random.uniform(0.01, 0.15))
"""


def begun(running: Service, sha: str) -> Run | None:
    """The run, once its stage runs."""
    run = running.run_of(sha)
    if run is None:
        return None
    with running.services.database.read() as session:
        state = session.scalar(select(Step.state).where(Step.run_id == run.id, Step.name == "say"))
    return run if state == "running" else None


def watched(running: Service, run: Run) -> list[float]:
    """Milliseconds of each line from its writing to its event, as the page's stream brings it."""
    with running.services.database.write() as session:
        user = users.create(session, "bench", "viewer", "correct horse battery", Role.viewer)
        secret = sessions.open(session, user.id)
    late: dict[int, float] = {}
    url = f"{running.url}/projects/bench/runs/{run.number}/steps/say/log?at=0:0:"
    with (
        httpx.Client(cookies={"towpath_session": secret}, timeout=60) as client,
        client.stream("GET", url, headers={"Accept": "text/event-stream"}) as answer,
    ):
        answer.raise_for_status()
        for line in answer.iter_lines():
            if not line.startswith("data: ["):
                continue
            now = time.time_ns()
            for number, spans in json.loads(line.removeprefix("data: ")):
                text = "".join(part for _, part in spans)
                if number not in late and len(text) == len(str(now)):
                    late[number] = (now - int(text)) / 1e6
    return [late[number] for number in sorted(late)]


def measure() -> list[Figure]:
    """One stage, one page that is open from its beginning on."""
    folder = Path(tempfile.mkdtemp(prefix="tpv-"))
    try:
        with service() as running:
            _, _, repository = running.project("bench")
            work = folder / "work"
            work.mkdir()
            (work / "Dockerfile").write_text("FROM python:3.11-slim\nCOPY say.py /\n")
            (work / "say.py").write_text(SCRIPT)
            (work / ".towpath.yml").write_text('stages:\n  say: {run: ["python3", "/say.py"], reuse: never}\n')
            git("init", "-q", cwd=work)
            git("add", ".", cwd=work)
            git("commit", "-q", "-m", "lines", cwd=work)
            git("push", "-q", str(repository), "HEAD:refs/heads/main", cwd=work)
            sha = git("rev-parse", "HEAD", cwd=work)
            times = watched(running, until(lambda: begun(running, sha), 60, "the stage's start"))
            remove_containers(running)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    p50, p99 = quantile(times, 0.5), quantile(times, 0.99)
    return [
        Figure(
            "container's line → browser's event, live",
            "p50 ≤ 150 ms, p99 ≤ 500 ms, every line",
            f"p50 {p50:.0f} ms, p99 {p99:.0f} ms, {len(times)} of {LINES}",
            f"{LINES} lines",
            p50 <= 150 and p99 <= 500 and len(times) == LINES,
        )
    ]
