"""Every key of the pipeline file in a real service: pushed with git, run in real containers."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import docker
import pytest
from sqlalchemy import select

from bench.service import until
from cd.pipeline import attempts, runs, secrets
from cd.pipeline.records import Artifact, Project, Run, Step, TestCase, TestResult
from cd.promote import releases

SECRET = "s3cr3t-t0k3n-of-the-shop"
LISTEN = "import socket; s=socket.create_server(('0.0.0.0', 7000))\nwhile 1: s.accept()[0].sendall(b'hi')"
JUNIT = (
    '<testsuite name="t" tests="2" failures="1"><testcase classname="c" name="good" time="0.1"/>'
    '<testcase classname="c" name="bad" time="0.2"><failure message="due">on Saturday</failure></testcase></testsuite>'
)
PIPELINE = """
stages:
  talk:
    run: python3 -c "import socket; print(socket.create_connection(('db', 7000), 3).recv(9))"
    services:
      db:
        image: "IMAGE"
        ready: [python3, -c, "import socket; socket.create_connection(('127.0.0.1', 7000), 1)"]
  dies:
    run: "true"
    services: {db: {image: "debian:bookworm-slim", ready: "false"}}
    allow_failure: true
  cells: {run: 'echo "$suite on $os"', matrix: {suite: [fast, slow], os: [x, "y/1"]}}
  after: {run: "true", needs: [cells]}
  docs: {run: "true", when: {paths: ["docs/**"]}}
  tags: {run: "true", when: {events: [tag]}}
  behind: {run: "true", needs: [docs]}
  mayfail: {run: "exit 3", allow_failure: true}
  flaky: {run: "exit 4", retries: 1, allow_failure: true}
  cleanup: {run: echo cleaned, needs: [mayfail], when: {status: [passed, failed]}}
  onfail: {run: echo never, needs: [talk], when: {status: [failed]}}
  hidden: {run: 'echo "token=$TOKEN"; printf %s "$TOKEN" | base64', secrets: [TOKEN]}
  tests:
    run: |
      mkdir -p /work/dist; echo artifact >/work/dist/a.txt
      ln -s /etc/passwd /work/dist/link
      echo 'JUNIT' >/work/junit.xml
    reports: {junit: /work/junit.xml}
    artifacts: ["/work/dist/*"]
"""
GREEDY = """
stages:
  forks:
    run: [python3, -c, "import os\\nwhile True:\\n  os.fork()"]
    limits: {pids: 32, timeout: 5s}
    allow_failure: true
  memory: {run: [python3, -c, "x = b'x' * (1 << 30)"], limits: {memory: 64MiB}, allow_failure: true}
  disk: {run: "head -c 1G /dev/zero >/work/fill", limits: {disk: 8MiB}, allow_failure: true}
  binary: {run: "head -c 3000000 /dev/urandom"}
  oneline: {run: "head -c 30000000 /dev/zero | tr '\\\\0' x"}
  slow: {run: sleep 60, limits: {timeout: 1s}, allow_failure: true}
  absent: {run: [/no/such/program], allow_failure: true}
  daemon: {run: "(setsid sleep 300 &) ; echo gone"}
"""


@pytest.fixture(scope="module")
def listener(docker_client: docker.DockerClient, python_image: str) -> Iterator[str]:
    """Name of an image whose own command answers on port 7000."""
    made = docker_client.containers.create(python_image, ["true"], entrypoint=[])
    conf = {"Cmd": ["python3", "-uc", LISTEN], "Entrypoint": []}
    made.commit("towpath-test-listener", "1", conf=conf)
    made.remove()
    yield "towpath-test-listener:1"
    docker_client.images.remove("towpath-test-listener:1", force=True)


@pytest.fixture(scope="module")
def everything(world: Any, listener: str) -> tuple[Run, dict[str, Step]]:
    """A run with all keys, ended."""
    services = world.service.services
    with services.database.write() as session:
        project = session.get_one(Project, world.project_id)
        secrets.put(session, services.vault, project, "TOKEN", value=SECRET, actor="test")
    world.push({"README.md": "first\n"})
    sha = world.push({".towpath.yml": PIPELINE.replace("IMAGE", listener).replace("JUNIT", JUNIT)})
    run = world.ended(sha, 180)
    return run, world.steps(run)


def test_all_of_it_came_out_right(everything: tuple[Run, dict[str, Step]]) -> None:
    run, steps = everything
    states = {name: (step.state, step.cause) for name, step in steps.items()}
    assert states == {
        "build": ("passed", None),
        "talk": ("passed", None),
        "dies": ("failed", "service"),
        "cells:fast,x": ("passed", None),
        "cells:fast,y-1": ("passed", None),
        "cells:slow,x": ("passed", None),
        "cells:slow,y-1": ("passed", None),
        "after": ("passed", None),
        "docs": ("skipped", "when"),
        "tags": ("skipped", "when"),
        "behind": ("passed", None),
        "mayfail": ("failed", None),
        "flaky": ("failed", None),
        "cleanup": ("passed", None),
        "onfail": ("skipped", None),
        "hidden": ("passed", None),
        "tests": ("passed", None),
    }, {name: step.reason for name, step in steps.items()}
    assert run.state == "passed", run.reason


def test_services_cells_and_conditions_say_what_happened(world: Any, everything: tuple[Run, dict[str, Step]]) -> None:
    _, steps = everything
    assert "b'hi'" in world.log(steps["talk"])
    assert "service db ended before it was ready" in steps["dies"].reason
    assert world.log(steps["cells:slow,y-1"]) == "slow on y/1\n"
    assert steps["docs"].reason == "nothing changed in docs/**"
    assert (steps["flaky"].attempt, steps["mayfail"].attempt) == (2, 1)
    assert steps["onfail"].reason == "everything that it needs passed"


def test_a_secret_is_in_no_log(world: Any, everything: tuple[Run, dict[str, Step]]) -> None:
    said = world.log(everything[1]["hidden"])
    assert said.startswith(f"token={'*' * len(SECRET)}\n")
    assert SECRET not in said


def test_reports_and_artifacts_are_kept(world: Any, everything: tuple[Run, dict[str, Step]]) -> None:
    step = everything[1]["tests"]
    with world.service.services.database.read() as session:
        found = session.execute(
            select(TestCase.name, TestResult.state)
            .join(TestCase, TestCase.id == TestResult.case_id)
            .where(TestResult.step_id == step.id)
        ).all()
        kept = session.scalars(select(Artifact.path).where(Artifact.step_id == step.id)).all()
    assert {tuple(row) for row in found} >= {("bad", "failed")}
    assert list(kept) == ["/work/dist/a.txt"]
    assert "link" in step.reason


def test_the_next_push_reuses_what_stands_and_flakes_are_proven(
    world: Any, everything: tuple[Run, dict[str, Step]]
) -> None:
    first, _ = everything
    with world.service.services.database.write() as session:
        run = session.get_one(Run, first.id)
        again = runs.retry(session, session.get_one(Project, world.project_id), run, "test")
        number = again.number

    def ended() -> Run | None:
        with world.service.services.database.read() as session:
            found = session.scalars(select(Run).where(Run.number == number, Run.project_id == world.project_id)).one()
        return found if found.finished_at else None

    run = until(ended, 120, "the second run's end")
    steps = world.steps(run)
    assert {steps[name].state for name in ("talk", "cells:fast,x", "hidden", "tests", "after")} == {"reused"}
    assert steps["mayfail"].state == "failed"
    with world.service.services.database.read() as session:
        assert attempts.flakes(session, world.project_id) == []


def test_the_greedy_end_and_nobody_else_does(world: Any, docker_client: docker.DockerClient) -> None:
    sha = world.push({".towpath.yml": GREEDY})
    run = world.ended(sha, 180)
    steps = world.steps(run)
    assert run.state == "passed", {name: step.reason for name, step in steps.items()}
    assert steps["forks"].state == "failed"
    assert steps["memory"].cause == "out_of_memory"
    assert steps["slow"].cause == "timeout"
    assert "No space left" in world.log(steps["disk"])
    assert steps["absent"].exit_code == 127
    with world.service.services.database.read() as session:
        assert world.service.services.logs.size(session, steps["binary"].id, 1)[0] == 3_000_000
        assert world.service.services.logs.size(session, steps["oneline"].id, 1)[0] == 30_000_000
        window = world.service.services.logs.window(session, steps["oneline"].id, 1, 0, 10)
    assert len(window.lines) == 1
    assert len(window.lines[0]) < 70_000
    mine = ["towpath.kind=stage", f"towpath.instance={world.service.services.instance()}"]
    left: list[str] = []

    def gone() -> bool:
        left[:] = [one.name for one in docker_client.containers.list(all=True, filters={"label": mine})]
        return not left

    try:
        until(gone, 30, "all containers' end")
    except TimeoutError:
        pytest.fail(f"left behind: {left}")


def test_cancel_ends_containers_within_three_seconds(world: Any, docker_client: docker.DockerClient) -> None:
    sha = world.push({".towpath.yml": "stages:\n  long: {run: sleep 300, reuse: never}\n"})

    def begun() -> Step | None:
        run = world.service.run_of(sha)
        step = world.steps(run).get("long") if run is not None else None
        return step if step is not None and step.state == "running" and containers() else None

    def containers() -> list[Any]:
        return list(docker_client.containers.list(filters={"label": "towpath.stage=long"}))

    until(begun, 60, "the long stage's start")
    began = time.monotonic()
    with world.service.services.database.write() as session:
        run = session.scalars(select(Run).where(Run.sha == sha)).one()
        runs.cancel(session, run, "test", releases.run_ended)
    until(lambda: not containers(), 10, "the end of the container")
    assert time.monotonic() - began < 3


def test_a_newer_push_takes_the_place_of_one_that_waits(world: Any) -> None:
    with world.service.services.database.write() as session:
        session.get_one(Project, world.project_id).supersede = "running"
    older = world.push({".towpath.yml": "stages:\n  long: {run: sleep 300, reuse: never}\n"})
    until(lambda: world.service.run_of(older), 30, "the first run")
    newer = world.push({".towpath.yml": "stages:\n  quick: {run: 'true'}\n"})
    assert world.ended(older, 30).state == "superseded"
    assert world.ended(newer).state == "passed"
