"""kill -9 of a random Towpath process every second or two during 50 pushes."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from sqlalchemy import func, select

from bench.idle import family
from bench.paths import remove_containers, serves
from bench.service import Service, change, free_port, git, service, start, until
from bench.table import Figure
from cd.pipeline.records import Project, Run, Step
from cd.pipeline.states import RUN, STEP
from cd.promote.records import Deployment, Promotion
from cd.promote.states import PROMOTION
from cd.store.records import Task

HERE = Path(__file__).parent
PUSHES = 50
POLICY = """
environments:
  - {{name: dev, from: {{branches: [main]}}, promote: auto, target: {{kind: docker, url: "http://127.0.0.1:{0}"}}}}
"""


class Killer(threading.Thread):
    """Kills a random process of the service, the supervisor among them, and starts the service again when needed."""

    def __init__(self, running: Service, seed: int) -> None:
        super().__init__(daemon=True)
        self.running, self.random = running, random.Random(seed)
        self.over = threading.Event()
        self.killed: Counter[str] = Counter()

    def run(self) -> None:
        while not self.over.wait(self.random.uniform(1, 2)):
            pid = self.random.choice(family(self.running.process.pid))
            try:
                name = Path(f"/proc/{pid}/comm").read_text().strip()
                os.kill(pid, signal.SIGKILL)
            except (ProcessLookupError, FileNotFoundError):
                continue  # it ended by itself a moment ago
            if pid == self.running.process.pid:
                name = "the whole service"
                self.again()
            self.killed[name] += 1

    def again(self) -> None:
        """What the machine's init would do."""
        running = self.running
        running.process.wait()
        env = {**os.environ, "TOWPATH_LOG_LEVEL": "warning"}
        running.process = start(running.home, running.port, running.log, ("up", "--workers", "2"), env)


class Starts(threading.Thread):
    """Counts how often each container was started, as the engine tells."""

    def __init__(self, instance: str) -> None:
        super().__init__(daemon=True)
        command = ["docker", "events", "--format", "{{json .}}", "--filter", "event=start"]
        self.process = subprocess.Popen(
            [*command, "--filter", f"label=towpath.instance={instance}"], stdout=subprocess.PIPE, text=True
        )
        self.stages: Counter[str] = Counter()
        self.deployments: Counter[str] = Counter()

    def run(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            self._count(lines)

    def _count(self, lines: Iterable[str]) -> None:
        for line in lines:
            attributes = json.loads(line)["Actor"]["Attributes"]
            if attributes.get("towpath.kind") == "stage":
                self.stages[attributes["towpath.step"]] += 1
            elif attributes.get("towpath.kind") == "app":
                self.deployments[attributes["towpath.deployment"]] += 1


def settled(running: Service, shas: list[str]) -> bool:
    """Whether every push has a run and nothing is left to do."""
    with running.services.database.read() as session:
        ended = session.scalar(select(func.count(Run.id)).where(Run.sha.in_(shas), Run.state.in_(RUN.terminal)))
        steps = session.scalar(select(func.count(Step.id)).where(Step.state.not_in(STEP.terminal)))
        promotions = session.scalar(select(func.count(Promotion.id)).where(Promotion.state.not_in(PROMOTION.terminal)))
        deploying = session.scalar(select(func.count(Deployment.id)).where(Deployment.state == "deploying"))
        tasks = session.scalar(
            select(func.count(Task.id)).where(Task.state.in_(("ready", "claimed")), Task.kind != "clean")
        )
    return ended == len(shas) and not steps and not promotions and not deploying and not tasks


def leftovers(running: Service) -> list[str]:
    """Containers that should not be there: all but one app and one proxy."""
    listed = subprocess.run(
        ["docker", "ps", "-a", "--format", "{{.Names}}", "--filter",
         f"label=towpath.instance={running.services.instance()}"],
        check=True, capture_output=True, text=True,
    ).stdout.split()  # fmt: skip
    with running.services.database.read() as session:
        serving = session.scalar(select(Deployment.serving_id).where(Deployment.state == "live"))
    return [name for name in listed if f"-d{serving}-" not in name and "-proxy" not in name]


def measure(pushes: int = PUSHES, seed: int = 0) -> list[Figure]:
    """Push, kill, wait for the end, count."""
    seed = seed or random.SystemRandom().randrange(1, 10**6)
    folder = Path(tempfile.mkdtemp(prefix="tpc-"))
    try:
        with service() as running:
            figure = _measure(running, folder, pushes, seed)
            remove_containers(running)
            return [figure]
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _measure(running: Service, folder: Path, pushes: int, seed: int) -> Figure:
    port = free_port()
    project_id, _, repository = running.project("bench", POLICY.format(port).encode())
    with running.services.database.write() as session:
        session.get_one(Project, project_id).supersede = "never"  # every push is counted
    work = folder / "work"
    shutil.copytree(HERE / "app", work)
    git("init", "-q", cwd=work)
    git("add", ".", cwd=work)
    git("commit", "-qm", "first", cwd=work)
    starts, killer = Starts(running.services.instance()), Killer(running, seed)
    starts.start()
    killer.start()
    began = time.monotonic()
    shas = []
    for number in range(pushes):
        shas.append(change(work, "app.py", f'VERSION="c{number}"'))
        git("push", "-q", str(repository), "HEAD:refs/heads/main", cwd=work)
    until(lambda: settled(running, shas) or time.monotonic() - began > 240, 300, "the pushes under fire", 0.5)
    killer.over.set()
    killer.join()
    until(lambda: settled(running, shas), 300, "the end of all that was pushed", 0.5)
    took = time.monotonic() - began
    until(lambda: not leftovers(running), 120, "the removal of leftovers", 0.5)
    starts.process.terminate()
    starts.process.wait()
    starts.join()
    right = _right(running, shas)
    live = serves(port, f"c{pushes - 1}")
    doubled_stages = sum(count - 1 for count in starts.stages.values())
    doubled_deploys = sum(count - 1 for count in starts.deployments.values())
    left = leftovers(running)
    killed = sum(killer.killed.values())
    print(f"killed (seed {seed}): {dict(killer.killed)}")
    return Figure(
        f"kill -9 of a random process of Towpath every 1–2 s during {pushes} pushes",
        f"{pushes} of {pushes} right ends, 0 doubled stages or deploys, 0 leftovers",
        f"{right} of {pushes}, newest live: {'yes' if live else 'no'}, {doubled_stages} doubled stages, "
        f"{doubled_deploys} doubled deploys, {len(left)} leftovers",
        f"{killed} kills in {took:.0f} s, {sum(starts.stages.values())} stages",
        right == pushes and live and not doubled_stages and not doubled_deploys and not left,
    )


def _right(running: Service, shas: list[str]) -> int:
    with running.services.database.read() as session:
        runs = session.execute(select(Run.sha, Run.state).where(Run.sha.in_(shas))).all()
    passed = Counter(sha for sha, state in runs if state == "passed")
    return sum(1 for sha in shas if passed[sha] == 1 and sum(1 for one, _ in runs if one == sha) == 1)
