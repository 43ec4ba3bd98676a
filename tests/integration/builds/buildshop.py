"""What the tests of builds share: a project that can be pushed to and built, and a look at processes."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cd.pipeline import runs
from cd.pipeline.build import BuildRunner
from cd.pipeline.logs import LogStore
from cd.pipeline.records import Project, Run, Step
from cd.store import tasks
from cd.store.database import Database
from cd.store.records import Task
from cd.store.tasks import Claim

#: Longest wait for a process to come or go, in seconds.
PATIENCE = 60.0
GIT = {
    "PATH": os.environ["PATH"],
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_NOSYSTEM": "1",
    **{f"GIT_{who}_{what}": "ada@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
}


@dataclass
class Shop:
    """A project and the parts that build it."""

    folder: Path
    database: Database
    runner: BuildRunner
    logs: LogStore
    project: Project
    base: str
    ended: list[int] = field(default_factory=list)

    def push(self, files: Mapping[str, str]) -> str:
        """Commit exactly these files; returns the commit's id."""
        work = self.folder / "work"
        if not work.exists():
            work.mkdir()
            self._git("init", "--quiet", "--initial-branch=main")
        self._git("rm", "-r", "--quiet", "--ignore-unmatch", ".")
        for name, content in files.items():
            (work / name).parent.mkdir(parents=True, exist_ok=True)
            (work / name).write_text(content)
        self._git("add", "--all")
        self._git("commit", "--quiet", "--allow-empty", "--message", "a change")
        self._git("push", "--quiet", str(self.runner.repositories.path(self.project)), "HEAD:refs/heads/main")
        return self._git("rev-parse", "HEAD")

    def _git(self, *arguments: str) -> str:
        done = subprocess.run(
            ["git", *arguments], cwd=self.folder / "work", env=GIT, check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    def begin(self, sha: str, **values: object) -> Claim:
        """A run of a commit, with its build claimed."""
        with self.database.write() as session:
            project = session.get_one(Project, self.project.id)
            run = runs.create(session, project, event="push", ref="refs/heads/main", sha=sha, **values)
            step = runs.steps_of(session, run.id)[0]
            task = session.query(Task).filter_by(kind="build", subject=step.id).one()
            claim = tasks.claim(session, task.id, "test", 60)
        assert claim is not None
        return claim

    def build(self, files: Mapping[str, str], **values: object) -> tuple[Run, list[Step]]:
        """Push, build, and look at what it came to."""
        claim = self.begin(self.push(files), **values)
        self.runner.execute(claim)
        return self.look(claim)

    def look(self, claim: Claim) -> tuple[Run, list[Step]]:
        with self.database.read() as session:
            step = session.get_one(Step, claim.subject)
            return session.get_one(Run, step.run_id), runs.steps_of(session, step.run_id)

    def log(self, step: Step) -> str:
        with self.database.read() as session:
            return b"".join(self.logs.read(session, step.id, step.attempt)).decode()


def left_running(mark: str, *, wanted: bool) -> None:
    """Wait until a process that has `mark` among its arguments is there, or until none is."""
    deadline = time.monotonic() + PATIENCE
    while _is_running(mark) != wanted:
        assert time.monotonic() < deadline, f"a process with {mark} is {'not there' if wanted else 'still there'}"
        time.sleep(0.05)


def _is_running(mark: str) -> bool:
    for one in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = one.read_bytes().split(b"\0")
        except OSError:
            continue
        if words[:2] == [b"sleep", mark.encode()]:
            return True
    return False
