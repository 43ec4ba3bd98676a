"""Builds on a real engine: what passes, what fails with its line, what is known, what is stopped."""

from __future__ import annotations

import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import docker
import pytest
from buildshop import Shop, left_running
from sqlalchemy import select

from cd.errors import ServiceError, StaleWrite
from cd.pipeline import runs
from cd.pipeline.builder import Builder
from cd.pipeline.records import Step
from cd.store.records import Event, Task

PIPELINE = """\
image: {target: runtime}
stages:
  unit: {run: "true", target: test}
  smoke: {run: "true", needs: [unit]}
deploy: {command: [httpd, -f], port: 8000}
"""


def _files(shop: Shop, **more: str) -> dict[str, str]:
    dockerfile = f"FROM {shop.base} AS test\nRUN echo tests > /tests\nFROM {shop.base} AS runtime\nCOPY app /app\n"
    return {"Dockerfile": dockerfile, "app": "1", ".towpath.yml": PIPELINE, **more}


def test_a_push_becomes_images_and_stages_that_wait_for_them(shop: Shop, docker_client: docker.DockerClient) -> None:
    run, (build, unit, smoke) = shop.build(_files(shop))
    assert (run.state, build.state, unit.state, smoke.state) == ("running", "passed", "waiting", "waiting")
    assert run.image == build.image == smoke.image != unit.image
    assert run.deploy is not None
    assert run.deploy["port"] == 8000
    assert (run.message, run.author, run.notes) == ("a change\n", "ada@example.org <ada@example.org>", [])
    assert "COPY app /app" in shop.log(build)
    image = docker_client.images.get(run.image)
    assert image.tags == [f"towpath/{shop.project.slug}:run-1"]
    assert not image.labels, "a label is part of the id: the same files must stay the same image, whoever builds them"
    with shop.database.read() as session:
        assert session.scalars(select(Task.subject).where(Task.kind == "stage")).all() == [unit.id]
    assert not [one for one in (shop.folder / "home" / "work").iterdir() if one.is_dir()]


def test_a_known_tree_is_not_built_again(shop: Shop, docker_client: docker.DockerClient) -> None:
    first, _ = shop.build(_files(shop))
    again, (build, *_) = shop.build(_files(shop))
    assert (build.state, build.reason) == ("reused", "the image was built from the same files in run #1")
    assert (again.image, again.tree) == (first.image, first.tree)
    assert shop.log(build) == ""
    changed, (build, *_) = shop.build(_files(shop, app="2"))
    assert build.state == "passed"
    assert changed.image != first.image
    fresh, (build, *_) = shop.build(_files(shop), fresh=True)
    assert build.state == "passed"
    docker_client.images.remove(fresh.image, force=True)
    _, (build, *_) = shop.build(_files(shop))
    assert build.state == "passed", "an image that the engine has lost is built again"


def test_other_files_with_the_same_image_stay_the_same_image(shop: Shop) -> None:
    first, _ = shop.build(_files(shop))
    docs, (build, *_) = shop.build(_files(shop, README="words"))
    assert build.state == "passed"
    assert docs.image == first.image


def test_a_failing_command_names_its_line(shop: Shop) -> None:
    dockerfile = f"FROM {shop.base}\nRUN echo one\nRUN echo two && \\\n    exit 3\n"
    run, (build, *_) = shop.build({"Dockerfile": dockerfile})
    reason = "Dockerfile:3: `RUN echo two && exit 3` failed with exit code 3"
    assert (run.state, build.state, build.reason, run.reason) == ("failed", "failed", reason, f"build: {reason}")
    assert run.message == "a change\n"
    assert reason in shop.log(build)
    assert "two" in shop.log(build)
    assert shop.ended == [run.id]


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({"Dockerfile": "FROM scratch\nRUNN x\n"}, "Dockerfile:2: unknown instruction: RUNN"),
        ({"Dockerfile": "FROM scratch\n\nCOPY nothere /x\n"}, 'Dockerfile:3: "/nothere" not found'),
        ({"Dockerfile": "# syntax=evil/builder\nFROM scratch\n"}, "Dockerfile:1: # syntax= would run a builder"),
        ({"README": "words"}, "Dockerfile: there is no such file in this commit; add a Dockerfile"),
        (
            {"Dockerfile": "FROM scratch\n", ".towpath.yml": "image: {target: none}\n"},
            "Dockerfile: there is no stage 'none' in it",
        ),
        ({"Dockerfile": "FROM scratch\n", ".towpath.yml": "stages:\n  a: {rum: x}\n"}, ".towpath.yml:2:7: unknown key"),
        (
            {"Dockerfile": "FROM scratch\n", ".towpath.yml": "image: {context: web}\n"},
            "web: the build context does not exist in this commit",
        ),
        (
            {"Dockerfile": "FROM scratch\n", ".towpath.yml": "deploy: {before: x}\n"},
            ".towpath.yml: this version of Towpath can't do deploy.before",
        ),
    ],
)
def test_what_the_repository_can_mend_is_said_with_its_place(shop: Shop, files: dict[str, str], reason: str) -> None:
    run, (build, *_) = shop.build(files)
    assert (run.state, build.state) == ("failed", "failed")
    assert reason in build.reason
    assert build.reason in shop.log(build)


def test_without_a_file_the_dockerfile_is_built_and_the_run_says_so(shop: Shop) -> None:
    run, (build,) = shop.build({"Dockerfile": "FROM scratch\nCOPY app /app\n", "app": "1"})
    assert (run.state, build.state) == ("passed", "passed")
    assert run.notes == ["there is no .towpath.yml: the Dockerfile is built, and nothing is tested"]


def test_a_base_that_no_registry_answers_for_is_tried_again(shop: Shop) -> None:
    claim = shop.begin(shop.push({"Dockerfile": "FROM registry.invalid/none:1\n"}))
    with pytest.raises(ServiceError, match=r"registry\.invalid/none:1 is not on the engine and could not be pulled"):
        shop.runner.execute(claim)
    run, (build,) = shop.look(claim)
    assert (run.state, build.state) == ("running", "running"), "whoever holds the claim decides what follows"


def test_an_engine_that_is_away_is_tried_again(shop: Shop) -> None:
    away = Builder("unix:///nowhere.sock")
    runner = replace(shop.runner, builder=away)
    claim = shop.begin(shop.push({"Dockerfile": "FROM scratch\nCOPY Dockerfile /\n"}))
    with pytest.raises(ServiceError):
        runner.execute(claim)
    assert shop.look(claim)[1][0].state == "running"


def _canceled_while_it_sleeps(shop: Shop, mark: str) -> threading.Thread:
    """Ends the run as soon as its build has begun to sleep."""

    def work() -> None:
        left_running(mark, wanted=True)
        with shop.database.write() as session:
            run = runs.lock(session, 1)
            runs.end_run(session, run, "canceled", "canceled by ada", shop.runner.ended)

    thread = threading.Thread(target=work)
    thread.start()
    return thread


def test_a_canceled_build_is_stopped(shop: Shop) -> None:
    mark = f"600.{shop.project.slug[-6:].translate(str.maketrans('abcdef', '123456'))}"
    claim = shop.begin(shop.push({"Dockerfile": f"FROM {shop.base}\nRUN sleep {mark}\n"}))
    thread = _canceled_while_it_sleeps(shop, mark)
    shop.runner.execute(claim)
    thread.join()
    run, (build,) = shop.look(claim)
    assert (run.state, build.state, build.reason) == ("canceled", "canceled", "canceled by ada")
    left_running(mark, wanted=False)
    with shop.database.read() as session:
        kinds = session.scalars(select(Event.kind).where(Event.run_id == run.id)).all()
    assert "step.passed" not in kinds


def test_a_worker_that_lost_the_step_writes_nothing_more(shop: Shop) -> None:
    claim = shop.begin(shop.push({"Dockerfile": "FROM scratch\nCOPY Dockerfile /\n"}))
    begun = shop.runner._begin(claim)
    assert begun is not None
    with shop.database.write() as session:
        runs.start_step(session, claim.subject, claim.fence + 1)
    with pytest.raises(StaleWrite):
        shop.runner.canceled(begun)
    with pytest.raises(StaleWrite):
        shop.runner.execute(claim)
    with shop.database.read() as session:
        assert session.get_one(Step, claim.subject).state == "running"


def test_the_builder_ends_with_its_worker(tmp_path: Path) -> None:
    mark = "601.73125"
    script = (
        "import sys; from cd.pipeline import buildtool\n"
        f"buildtool.run(['sleep', '{mark}'], {{'PATH': '/usr/bin:/bin'}}, print, lambda: False, 900)\n"
    )
    worker = subprocess.Popen([sys.executable, "-c", script])
    left_running(mark, wanted=True)
    worker.kill()
    worker.wait()
    left_running(mark, wanted=False)
