"""A stage that prints 1 GB through a whole service: how fast, in how much memory, how quickly a page of it opens."""

from __future__ import annotations

import contextlib
import hashlib
import re
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
import httpx
from sqlalchemy import select

from bench.paths import remove_containers
from bench.service import Service, git, service, until
from bench.table import Figure
from cd.identity import sessions, users
from cd.identity.people import Role
from cd.pipeline.records import Run, Step
from cd.pipeline.states import RUN
from cd.sandbox import output

#: Bytes that a stage prints.
SIZE = 10**9
#: Printed in blocks of so many lines; every line has its number.
BLOCK = 1000
SCRIPT = """import sys
width, lines, block = map(int, sys.argv[1:])
pad = b"x" * (width - 11)
for at in range(0, lines, block):
    sys.stdout.buffer.write(b"".join(b"%09d %s\\n" % (n, pad) for n in range(at, at + block)))
"""
DOCKERFILE = "FROM python:3.11-slim\nCOPY say.py /\n"


@dataclass(frozen=True)
class Printed:
    """What became of one stage's output."""

    speed: float
    peak: float
    right: bool
    bare: float


def expected(width: int, lines: int) -> str:
    """SHA-256 of all that the stage prints."""
    digest, pad = hashlib.sha256(), b"x" * (width - 11)
    for at in range(0, lines, BLOCK):
        digest.update(b"".join(b"%09d %s\n" % (n, pad) for n in range(at, at + BLOCK)))
    return digest.hexdigest()


def family(pid: int) -> Iterator[int]:
    """A process and all below it."""
    yield pid
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                yield from family(int(child))


class Peaks(threading.Thread):
    """The most memory any process of the service but Redis had, in MB. The kernel keeps it: a look a second will do."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self._pid, self.peak, self._left = pid, 0.0, threading.Event()

    def run(self) -> None:
        """Look until it is left."""
        while not self._left.wait(1.0):
            for pid in family(self._pid):
                with contextlib.suppress(OSError):
                    status = Path(f"/proc/{pid}/status").read_text()
                    found = re.search(r"VmHWM:\s+(\d+) kB", status)
                    if found and "redis" not in status.splitlines()[0]:
                        self.peak = max(self.peak, int(found[1]) * 1024 / 1e6)

    def __enter__(self) -> Peaks:
        self.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._left.set()
        self.join()


def bare(image: str, width: int, lines: int) -> float:
    """MB/s that the engine alone gives: the same program, its output read and thrown away."""
    api = docker.APIClient()
    kept = docker.types.LogConfig(type="local", config=output.LOG_CONFIG["Config"])
    host = api.create_host_config(log_config=kept, network_mode="none")
    command = ["python3", "/say.py", str(width), str(lines), str(BLOCK)]
    name = api.create_container(image, command, host_config=host, labels={"towpath.bench": "logs"})["Id"]
    try:
        began = time.perf_counter()
        api.start(name)
        path = f"/containers/{name}/logs?stdout=1&stderr=1&timestamps=1&follow=1"
        with output._opened(api, path) as stream:
            while stream.read1(output.BLOCK):
                pass
        return width * lines / 1e6 / (time.perf_counter() - began)
    finally:
        api.remove_container(name, force=True)
        api.close()


def printed(running: Service, work: Path, repository: Path, width: int, size: int = SIZE) -> tuple[Printed, Run]:
    """A run whose stage prints lines of `width` bytes, `size` bytes together."""
    lines = size // width // BLOCK * BLOCK
    (work / "Dockerfile").write_text(DOCKERFILE)
    (work / "say.py").write_text(SCRIPT)
    (work / ".towpath.yml").write_text(
        f'stages:\n  say: {{run: ["python3", "/say.py", "{width}", "{lines}", "{BLOCK}"], reuse: never}}\n'
    )
    git("add", ".", cwd=work)
    git("commit", "-q", "--allow-empty", "-m", f"lines of {width} bytes", cwd=work)
    sha = git("rev-parse", "HEAD", cwd=work)
    with Peaks(running.process.pid) as peaks:
        git("push", "-q", str(repository), "HEAD:refs/heads/main", cwd=work)

        def ended() -> Run | None:
            run = running.run_of(sha)
            return run if run is not None and run.state in RUN.terminal else None

        run = until(ended, 900, "the run's end", pause=0.2)
    if run.state != "passed" or run.image is None:
        raise RuntimeError(f"the run {run.state}: {run.reason}")
    digest, stored = hashlib.sha256(), 0
    with running.services.database.read() as session:
        step = session.scalars(select(Step).where(Step.run_id == run.id, Step.name == "say")).one()
        for data in running.services.logs.read(session, step.id, step.attempt):
            digest.update(data)
            stored += len(data)
    seconds = (step.finished_at - step.started_at).total_seconds()  # type: ignore[operator]  # it has ended
    right = stored == width * lines and digest.hexdigest() == expected(width, lines)
    return Printed(stored / 1e6 / seconds, peaks.peak, right, bare(run.image, width, lines)), run


def opened(running: Service, run: Run, lines: int) -> list[float]:
    """Milliseconds until the page of the run is there, at lines all over the log, as a signed-in visitor."""
    with running.services.database.write() as session:
        user = users.create(session, "bench", "viewer", "correct horse battery", Role.viewer)
        secret = sessions.open(session, user.id)
    times = []
    with httpx.Client(cookies={"towpath_session": secret}, timeout=60) as client:
        for share in (0, *(part / 20 for part in range(21))):
            line = max(1, int(lines * share))
            began = time.perf_counter()
            page = client.get(f"{running.url}/projects/bench/runs/{run.number}", params={"step": "say", "line": line})
            times.append((time.perf_counter() - began) * 1000)
            if page.status_code != httpx.codes.OK or f'id="L{line}"' not in page.text:
                raise RuntimeError(f"line {line} is not on the page: {page.status_code}")
    return times[1:]  # the first one warms up


def measure(size: int = SIZE) -> list[Figure]:
    """Lines of 1,000 bytes, for the target; lines of 100 bytes against the engine's own limit."""
    folder = Path(tempfile.mkdtemp(prefix="tpl-"))
    try:
        with service() as running:
            _, _, repository = running.project("bench")
            work = folder / "work"
            work.mkdir()
            git("init", "-q", cwd=work)
            long, run = printed(running, work, repository, 1000, size)
            short, _ = printed(running, work, repository, 100, size // 10)
            pages = opened(running, run, size // 1000)
            remove_containers(running)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    kept = "nothing lost" if long.right and short.right else "BYTES LOST"
    return [
        Figure(
            f"a stage that prints {size / 1e9:g} GB, lines of 1,000 bytes (the engine alone: {long.bare:.0f} MB/s)",
            "≥ 40 MB/s, nothing lost (SHA-256)",
            f"{long.speed:.0f} MB/s, {kept}",
            f"{size // 1000:,} lines",
            long.speed >= 40 and long.right,
        ),
        Figure(
            f"the same in lines of 100 bytes ({size / 1e10:g} GB), against what the engine gives a reader that "
            "throws all away: its limit is entries per second",
            "≥ 0.7 of the engine's own, nothing lost",
            f"{short.speed:.1f} MB/s of {short.bare:.1f} MB/s (ratio {short.speed / short.bare:.2f}), {kept}",
            f"{size // 1000:,} lines",
            short.speed >= 0.7 * short.bare and short.right,
        ),
        Figure(
            "most memory of any process of the service but Redis meanwhile, workers among them (VmHWM)",
            "< 150 MB",
            f"{max(long.peak, short.peak):.0f} MB",
            "2 stages",
            max(long.peak, short.peak) < 150,
        ),
        Figure(
            "the page of the run opens at any line of that log",
            "≤ 200 ms",
            f"max {max(pages):.0f} ms",
            f"{len(pages)} lines",
            max(pages) <= 200,
        ),
    ]
