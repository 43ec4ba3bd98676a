"""A stage fails on a real service, and somebody looks at what it left in a terminal."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
from sqlalchemy import select as rows_of

from bench.service import TOWPATH, Service, git, service, until
from cd.identity import tokens, users
from cd.pipeline import secrets
from cd.pipeline.records import Project, Run, Snapshot, Step
from cd.pipeline.states import RUN
from cd.store.base import now

SECRET = "hunter2-and-more"
PIPELINE = """
stages:
  look:
    secrets: [TOKEN]
    run: echo clue >/work/clue; echo $TOKEN >/tmp/told; exit 3
"""


@dataclass
class Terminal:
    """A program under a pseudo-terminal."""

    process: subprocess.Popen[bytes]
    master: int
    shown: bytes = field(default=b"")

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def wait(self, text: str, seconds: float = 30) -> None:
        """Until it has shown this."""
        end = time.monotonic() + seconds
        while text.encode() not in self.shown:
            assert time.monotonic() < end, self.shown
            if select.select([self.master], [], [], 0.2)[0]:
                try:
                    self.shown += os.read(self.master, 4096)
                except OSError:
                    break
        assert text.encode() in self.shown, self.shown


@pytest.fixture(scope="module")
def running(docker_client: object) -> Iterator[Service]:
    with service() as made:
        yield made


@pytest.fixture(scope="module")
def token(running: Service) -> str:
    with running.services.database.write() as session:
        person = users.person_of(users.create(session, "test", "ada", "correct horse battery", "developer"))
        return tokens.create(session, person, "test")


@pytest.fixture(scope="module")
def failed(running: Service, docker_client, busybox_image: str, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run whose stage failed, its files kept."""
    project_id, _, repository = running.project("inside")
    with running.services.database.write() as session:
        project = session.get_one(Project, project_id)
        project.keep_failed = True
        secrets.put(session, running.services.vault, project, "TOKEN", value=SECRET, actor="test")
    tag = f"towpath-test-inside:{os.getpid()}"
    docker_client.api.tag(busybox_image, *tag.split(":"))
    work: Path = tmp_path_factory.mktemp("inside")
    git("init", "-q", cwd=work)
    (work / "Dockerfile").write_text(f"FROM {tag}\nRUN echo made >/made\n")
    (work / ".towpath.yml").write_text(PIPELINE)
    git("add", "-A", cwd=work)
    git("commit", "-q", "-m", "it fails", cwd=work)
    git("push", "-q", str(repository), "HEAD:refs/heads/main", cwd=work)
    sha = git("rev-parse", "HEAD", cwd=work)

    def ended() -> Run | None:
        found = running.run_of(sha)
        return found if found is not None and found.state in RUN.terminal else None

    run = until(ended, 120, "the end of the run")
    yield run
    with running.services.database.read() as session:
        left = [run.image, *session.scalars(rows_of(Snapshot.image).where(Snapshot.removed_at.is_(None)))]
    for image in left:
        docker_client.api.remove_image(image, force=True, noprune=True)


def terminal(*arguments: str, **environment: str) -> Terminal:
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [*TOWPATH, "shell", *arguments],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env={**os.environ, **environment},
        start_new_session=True,
    )
    os.close(slave)
    return Terminal(process, master)


def shells(running: Service) -> list[object]:
    wanted = {"towpath.kind": "shell", "towpath.instance": running.services.instance()}
    return list(running.services.sandbox.find(wanted))


@pytest.mark.parametrize("local", [False, True], ids=["through the server", "on this engine"])
def test_a_look_at_what_failed(running: Service, failed: Run, token: str, local: bool) -> None:
    assert failed.state == "failed"
    more = ["--local"] if local else []
    seen = terminal(
        "inside", str(failed.number), "look", *more, TOWPATH_URL=running.url, TOWPATH_TOKEN=token, COLUMNS="", LINES=""
    )
    seen.wait("/ $ ")
    seen.type("cat /work/clue /made; cat /tmp/told; env; echo $((40 + 2))\r")
    seen.wait("42\r\n")
    assert b"clue\r\nmade\r\n" in seen.shown
    assert b"*" * len(SECRET) in seen.shown
    assert SECRET.encode() not in seen.shown
    seen.type("exit\r")
    assert seen.process.wait(20) == 0
    os.close(seen.master)
    assert until(lambda: not shells(running), 20, "the end of the container")


def test_the_end_of_the_connection_is_the_end_of_the_shell(running: Service, failed: Run, token: str) -> None:
    seen = terminal("inside", str(failed.number), "look", TOWPATH_URL=running.url, TOWPATH_TOKEN=token)
    seen.wait("/ $ ")
    seen.type("echo $((40 + 2))\r")
    seen.wait("42\r\n")
    assert len(shells(running)) == 1
    seen.process.kill()
    seen.process.wait()
    os.close(seen.master)
    assert until(lambda: not shells(running), 30, "the end of the container")


def test_it_is_noted_and_nobody_else_may_type(running: Service, failed: Run, token: str) -> None:
    with running.services.database.write() as session:
        other = users.person_of(users.create(session, "test", "bob", "correct horse battery", "developer"))
        others = tokens.create(session, other, "test")
    base = f"{running.url}/api/v1"
    mine, theirs = ({"Authorization": f"Bearer {each}"} for each in (token, others))
    where = f"{base}/projects/inside/runs/{failed.number}/steps/look/shell"
    made = httpx.post(where, json={}, headers=mine)
    assert made.status_code == 201, made.text
    name = made.json()["shell"]
    assert httpx.get(f"{base}/shells/{name}", headers=theirs).status_code == 404
    assert httpx.post(f"{base}/shells/{name}/input", json={"data": ""}, headers=theirs).status_code == 404
    assert httpx.delete(f"{base}/shells/{name}", headers=mine).status_code == 204
    assert shells(running) == []
    with running.services.database.read() as session:
        from cd.identity import audit

        newest = audit.entries(session, limit=1)[0]
    assert (newest.actor, newest.action, newest.subject) == ("ada", "shell.open", "inside")
    assert newest.detail == {"run": failed.number, "stage": "look", "attempt": 1}


def test_the_page_says_how(running: Service, failed: Run) -> None:
    with httpx.Client(base_url=running.url, follow_redirects=True) as client:
        form = client.get("/login").text
        csrf = form.split('name="csrf_token" value="', 1)[1].split('"', 1)[0]
        told = {"csrf_token": csrf, "username": "ada", "password": "correct horse battery"}
        client.post("/login", data=told, headers={"Referer": running.url})
        page = client.get(f"/projects/inside/runs/{failed.number}").text
    assert f"towpath shell inside {failed.number} look" in page


def test_without_files_the_remedy_is_told(running: Service, failed: Run, token: str) -> None:
    told = {"TOWPATH_URL": running.url, "TOWPATH_TOKEN": token}
    done = subprocess.run(
        [*TOWPATH, "shell", "inside", str(failed.number), "build"],
        env={**os.environ, **told},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "towpath project set inside --keep-failed" in done.stderr


def test_expired_files_go(running: Service, failed: Run) -> None:
    from cd.pipeline import kept
    from cd.sandbox.stock import Stock

    parts = running.services
    with parts.database.write() as session:
        row = session.query(Snapshot).join(Step, Step.id == Snapshot.step_id).filter(Step.run_id == failed.id).one()
        row.expires_at = now()
        image = row.image
    stock = Stock(parts.sandbox.api)
    assert kept.clean(parts.database, stock, parts.sandbox, parts.instance()) == 1
    assert image not in {one.id for one in stock.images()}
    assert failed.image in {one.id for one in stock.images()}
    with parts.database.read() as session:
        assert session.query(Snapshot).one().removed_at is not None


def test_images_are_told_with_what_needs_them(running: Service, failed: Run) -> None:
    with running.services.database.write() as session:
        root = users.person_of(users.create(session, "test", "root", "correct horse battery", "admin"))
        secret = tokens.create(session, root, "test")
    done = subprocess.run(
        [*TOWPATH, "images"],
        env={**os.environ, "TOWPATH_URL": running.url, "TOWPATH_TOKEN": secret},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "a run that ended just now" in done.stdout
    assert "TOWPATH_IMAGES_LIMIT" in done.stdout
