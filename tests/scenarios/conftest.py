"""A whole service for scenarios: every process real, pushed to with git, deploying to the engine that is there."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import select

from bench.paths import remove_containers
from bench.service import Service, free_port, git, service, until
from cd.pipeline.records import Run, Step
from cd.pipeline.states import RUN

DOCKERFILE = 'FROM python:3.11-slim\nWORKDIR /app\nCOPY . .\nCMD ["python", "app.py"]\n'


@dataclass
class World:
    """The service with one hosted project and a working copy of it."""

    service: Service
    slug: str
    project_id: int
    repository: Path
    work: Path
    ports: dict[str, int]

    def push(self, files: dict[str, str] | None = None, branch: str = "main", message: str = "a change") -> str:
        """Write files, commit, really push; the commit."""
        for name, text in (files or {}).items():
            (self.work / name).parent.mkdir(parents=True, exist_ok=True)
            (self.work / name).write_text(text)
        git("add", "-A", cwd=self.work)
        told = self.work.with_name("message")
        told.write_text(message)
        git("commit", "-q", "--allow-empty", "-F", str(told), cwd=self.work)
        git("push", "-q", str(self.repository), f"HEAD:refs/heads/{branch}", cwd=self.work)
        return git("rev-parse", "HEAD", cwd=self.work)

    def ended(self, sha: str, seconds: float = 90) -> Run:
        """The run of a commit, once it has ended."""

        def look() -> Run | None:
            run = self.service.run_of(sha)
            return run if run is not None and run.state in RUN.terminal else None

        return until(look, seconds, f"the end of the run of {sha[:8]}")

    def steps(self, run: Run) -> dict[str, Step]:
        """The run's steps by name."""
        with self.service.services.database.read() as session:
            return {step.name: step for step in session.scalars(select(Step).where(Step.run_id == run.id))}

    def log(self, step: Step) -> str:
        """A step's whole log."""
        with self.service.services.database.read() as session:
            return b"".join(self.service.services.logs.read(session, step.id, step.attempt)).decode()


ENVIRONMENTS = """
environments:
  - {{name: dev, from: {{branches: [main]}}, promote: auto, target: {{kind: docker, url: "http://127.0.0.1:{dev}"}}}}
  - {{name: prod, after: [dev], promote: manual, target: {{kind: docker, url: "http://127.0.0.1:{prod}"}}}}
"""


@pytest.fixture(scope="module")
def world(docker_client: object, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """One service for the scenarios of a module."""
    with service() as running:
        ports = {"dev": free_port(), "prod": free_port()}
        project_id, _, repository = running.project("shop", ENVIRONMENTS.format(**ports).encode())
        work = tmp_path_factory.mktemp("work") / "shop"
        shutil.copytree(Path(__file__).parents[2] / "bench" / "app", work)
        git("init", "-q", cwd=work)
        yield World(running, "shop", project_id, repository, work, ports)
        remove_containers(running)
