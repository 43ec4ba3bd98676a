"""Webhooks against the real application and a real database."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from time import time
from types import SimpleNamespace
from typing import Any, cast

import pytest
import redis
from flask.testing import FlaskClient
from sqlalchemy import func, select, update
from werkzeug.test import TestResponse

from cd.config import Settings
from cd.errors import UserError
from cd.identity.records import AuditEntry
from cd.identity.vault import Vault
from cd.pipeline import hosted, post_receive, projects
from cd.pipeline.records import Project, Run, Step
from cd.store.database import Database
from cd.store.records import Task
from cd.web.app import create_app
from cd.webhooks import deliveries
from cd.webhooks.records import Delivery
from cd.wiring import Services

ZERO = "0" * 40


def sha(name: str) -> str:
    """A commit id of its own for each name."""
    return hashlib.sha1(name.encode()).hexdigest()


@dataclass
class Forge:
    """Sends signed webhooks to a project."""

    client: FlaskClient
    database: Database
    vault: Vault
    slug: str
    kind: str
    secret: str
    sent: int = 0
    headers: dict[str, str] = field(default_factory=dict)

    def send(self, body: bytes, **changed: str) -> TestResponse:
        """Deliver these bytes, rightly signed unless `changed` (with _ for -) says otherwise."""
        self.sent += 1
        name = changed.pop("name", f"id-{self.sent}")
        headers = self._github(name, body) if self.kind == "github" else self._generic(name, body)
        headers |= {key.replace("_", "-"): value for key, value in changed.items()}
        return self.client.post(f"/hooks/{self.slug}", data=body, headers=headers)

    def _github(self, name: str, body: bytes) -> dict[str, str]:
        mac = hmac.new(self.secret.encode(), body, hashlib.sha256).hexdigest()
        return {"x-hub-signature-256": f"sha256={mac}", "x-github-delivery": name, "x-github-event": "push"}

    def _generic(self, name: str, body: bytes) -> dict[str, str]:
        return post_receive.headers(self.secret, name, body)

    def push(self, after: str, before: str = ZERO, ref: str = "refs/heads/main", **more: Any) -> TestResponse:
        """Deliver a push, `more` into the payload; `name` is the delivery's id."""
        name = more.pop("name", None)
        told = {"ref": ref, "before": before, "after": after, **more}
        if self.kind == "generic":
            told["type"] = "push"
        return self.send(json.dumps(told).encode(), **({"name": name} if name else {}))

    def count(self, table: type) -> int:
        """Rows of a table."""
        with self.database.read() as session:
            return session.scalar(select(func.count()).select_from(table)) or 0


@pytest.fixture
def vault() -> Vault:
    return Vault(b"k" * 32)


@pytest.fixture
def client(database: Database, vault: Vault, tmp_path: Path) -> FlaskClient:
    settings = Settings(home=tmp_path, public_url="https://cd.example.org")
    away = redis.Redis(unix_socket_path=str(tmp_path / "none.sock"))
    services = SimpleNamespace(settings=settings, database=database, vault=vault, redis=away)
    return create_app(cast(Services, services)).test_client()


@pytest.fixture
def connect(client: FlaskClient, database: Database, vault: Vault) -> Any:
    def make(kind: str, slug: str = "demo") -> Forge:
        with database.write() as session:
            _, secret = projects.create(
                session, vault, slug=slug, forge=kind, clone_url="https://example.org/a.git", actor="admin"
            )
        return Forge(client, database, vault, slug, kind, secret)

    return make


@pytest.fixture
def forge(connect: Any) -> Forge:
    return cast(Forge, connect("generic"))


@pytest.fixture
def github(connect: Any) -> Forge:
    return cast(Forge, connect("github"))


@pytest.mark.parametrize("kind", ["github", "generic"])
def test_a_push_is_stored_with_its_run_and_task(connect: Any, kind: str) -> None:
    sender: Forge = connect(kind)
    answer = sender.push(sha("a"), pusher={"name": "ann"} if kind == "github" else "ann")
    assert answer.status_code == 202
    assert answer.json == {"delivery": 1, "run": 1, "url": "https://cd.example.org/projects/demo/runs/1"}
    with sender.database.read() as session:
        delivery, run, step, task = (session.scalars(select(table)).one() for table in (Delivery, Run, Step, Task))
    assert (run.state, run.event, run.ref, run.sha) == ("queued", "push", "refs/heads/main", sha("a"))
    assert (run.pusher, run.trusted) == ("ann", True)
    assert (delivery.outcome, delivery.run_id, delivery.sha, delivery.before) == ("run", run.id, sha("a"), None)
    assert json.loads(delivery.body)["after"] == sha("a")
    assert (task.kind, task.subject, task.state) == ("build", step.id, "ready")


def test_a_delivery_that_comes_twice_is_one(forge: Forge) -> None:
    forge.push(sha("a"), name="same")
    again = forge.push(sha("a"), name="same")
    assert again.status_code == 200
    assert again.json is not None
    assert (again.json["run"], again.json["delivery"], again.json["outcome"]) == (1, 1, "duplicate")
    assert "before" in again.json["reason"]
    assert (forge.count(Delivery), forge.count(Run), forge.count(Task)) == (1, 1, 1)


def test_the_same_commit_of_the_same_ref_runs_once(forge: Forge) -> None:
    forge.push(sha("a"))
    again = forge.push(sha("a"))
    assert again.status_code == 200
    assert again.json is not None
    assert again.json["run"] == 1
    assert "#1" in again.json["reason"]
    assert (forge.count(Delivery), forge.count(Run)) == (2, 1)
    other = forge.push(sha("a"), ref="refs/heads/other")
    assert other.status_code == 202


def test_a_run_that_a_person_started_is_no_reason_to_leave_out_a_push(forge: Forge) -> None:
    forge.push(sha("a"))
    with forge.database.write() as session:
        session.execute(update(Run).values(event="manual"))
    assert forge.push(sha("a")).status_code == 202


def test_an_older_push_that_arrives_late_starts_nothing(forge: Forge) -> None:
    assert forge.push(sha("b"), sha("a")).status_code == 202
    late = forge.push(sha("a"), ZERO)
    assert late.status_code == 200
    assert late.json is not None
    assert late.json["run"] is None
    assert late.json["outcome"] == "ignored"
    assert "newer push" in late.json["reason"]
    assert forge.push(sha("c"), sha("b")).status_code == 202
    assert (forge.count(Delivery), forge.count(Run)) == (3, 2)


def test_pushes_that_arrive_in_any_order_leave_the_newest_as_the_last_run(forge: Forge) -> None:
    names = [ZERO, *(sha(str(number)) for number in range(5))]
    for number in (2, 4, 0, 3, 1):
        created = f"2026-11-24T12:00:0{number}Z"
        forge.push(names[number + 1], names[number], created_at=created)
    with forge.database.read() as session:
        shas = session.scalars(select(Run.sha).order_by(Run.number)).all()
    assert list(shas) == [names[3], names[5]]


def test_a_push_back_to_an_older_commit_runs_again(forge: Forge) -> None:
    forge.push(sha("a"))
    forge.push(sha("b"), sha("a"))
    assert forge.push(sha("a"), sha("b")).status_code == 202
    # A copy of it under another id does not.
    assert forge.push(sha("a"), sha("b")).status_code == 200
    assert forge.count(Run) == 3


def test_a_deleted_branch_is_ignored_and_may_begin_again(forge: Forge) -> None:
    forge.push(sha("b"), sha("a"))
    gone = forge.push(ZERO, sha("b"))
    assert gone.status_code == 200
    assert gone.json is not None
    assert gone.json["reason"] == "refs/heads/main was deleted"
    assert forge.push(sha("a")).status_code == 202


def test_a_ping_is_answered(github: Forge) -> None:
    answer = github.send(b'{"zen": "Keep it logically awesome."}', x_github_event="ping")
    assert answer.status_code == 200
    assert answer.json == {"delivery": 1, "run": None, "outcome": "ignored", "reason": "pong"}


@pytest.mark.parametrize("kind", ["github", "generic"])
def test_a_wrong_signature_stores_nothing_but_a_count(connect: Any, kind: str) -> None:
    sender: Forge = connect(kind)
    header = "x_hub_signature_256" if kind == "github" else "webhook_signature"
    for value in ("", "sha256=00", "v1,AAAA", "sha256=" + "0" * 64, "\xff"):
        answer = sender.send(b'{"not": "even looked at', **{header: value})
        assert answer.status_code == 401
        assert answer.mimetype == "application/problem+json"
        assert answer.json is not None
        assert answer.json["remedy"]
    assert (sender.count(Delivery), sender.count(Run)) == (0, 0)
    with sender.database.read() as session:
        assert deliveries.rejected(session, 1) == 5


def test_an_old_delivery_is_refused(forge: Forge) -> None:
    body = json.dumps({"type": "push", "ref": "refs/heads/main", "after": sha("a")}).encode()
    stamp = str(int(time()) - 400)
    signature = post_receive.sign(forge.secret, "old", stamp, body)
    answer = forge.send(body, name="old", webhook_timestamp=stamp, webhook_signature=signature)
    assert answer.status_code == 401
    assert answer.json is not None
    assert "5 minutes" in answer.json["detail"]


def test_an_unknown_project_is_404(forge: Forge) -> None:
    for slug in ("nobody", "demo~1", "%00", "..", "x" * 5000):
        assert forge.client.post(f"/hooks/{slug}", data=b"{}").status_code in (404, 400)


def test_what_is_not_json_names_the_fault(forge: Forge) -> None:
    answer = forge.send(b'{"type": "push",')
    assert answer.status_code == 400
    assert answer.json is not None
    assert "line 1 column" in answer.json["detail"]
    answer = forge.push("HEAD")
    assert answer.status_code == 400
    assert answer.json is not None
    assert answer.json["where"] == "after"
    assert forge.count(Delivery) == 0


def test_too_large_is_refused_before_it_is_read(forge: Forge) -> None:
    class Unread:
        def read(self, *_: object) -> bytes:
            raise AssertionError("the body was read")

        readline = __iter__ = read

    told = {"wsgi.input": Unread(), "CONTENT_LENGTH": str((25 << 20) + 1)}
    answer = forge.client.post("/hooks/demo", environ_overrides=told)
    assert answer.status_code == 413
    assert answer.json is not None
    assert "25 MiB" in answer.json["detail"]


def test_a_body_without_a_length_is_capped(forge: Forge) -> None:
    class Endless:
        left = 26 << 20

        def read(self, size: int = -1) -> bytes:
            size = min(self.left, size if size >= 0 else self.left)
            self.left -= size
            return b"x" * size

        def readline(self, *_: object) -> bytes:
            return self.read(80)

        def __iter__(self) -> Iterator[bytes]:
            return iter(())

    told = {"wsgi.input": Endless(), "wsgi.input_terminated": True, "HTTP_TRANSFER_ENCODING": "chunked"}
    answer = forge.client.post("/hooks/demo", environ_overrides=told)
    assert answer.status_code == 413


def test_a_large_push_is_kept_whole_and_its_message_cut(forge: Forge) -> None:
    message = "<script>\0é🚀" + "x" * (1 << 20)
    answer = forge.push(
        sha("a"), commit={"id": sha("a"), "message": message, "author": "\0'\"<b>"}, pad="y" * (4 << 20)
    )
    assert answer.status_code == 202
    with forge.database.read() as session:
        run, delivery = session.scalars(select(Run)).one(), session.scalars(select(Delivery)).one()
    assert run.message.startswith("<script>\ufffdé🚀xxx")
    assert len(run.message.encode()) == 64 << 10
    assert run.author == "\ufffd'\"<b>"
    assert len(delivery.body) > 5 << 20


def test_secrets_are_not_stored_with_the_headers(forge: Forge) -> None:
    body = json.dumps({"type": "push", "ref": "refs/heads/main", "after": sha("a")}).encode()
    forge.send(body, authorization="Bearer x", cookie="a=b", x_gitlab_token="secret", webhook_extra="e" * 5000)
    with forge.database.read() as session:
        headers = session.scalars(select(Delivery)).one().headers
    assert {"authorization", "cookie", "x-gitlab-token", "host"}.isdisjoint(headers)
    assert headers["webhook-id"] == "id-1"
    assert len(headers["webhook-extra"]) == 1024


def test_a_new_secret_counts_at_once_and_so_does_a_deletion(forge: Forge) -> None:
    assert forge.push(sha("a")).status_code == 202
    fresh = "whsec_" + base64.b64encode(b"another one").decode()
    with forge.database.write() as session:
        project = projects.find(session, "demo")
        project.webhook_secret = forge.vault.encrypt(fresh, "webhook/demo")
    assert forge.push(sha("b"), sha("a")).status_code == 401
    forge.secret = fresh
    assert forge.push(sha("b"), sha("a")).status_code == 202
    with forge.database.write() as session:
        projects.delete(session, projects.find(session, "demo"), "admin")
    assert forge.push(sha("c"), sha("b")).status_code == 404
    assert forge.count(Run) == 2


def test_a_new_project_of_an_old_name_has_its_own_secret(forge: Forge, connect: Any) -> None:
    forge.push(sha("a"))
    with forge.database.write() as session:
        projects.delete(session, projects.find(session, "demo"), "admin")
    second: Forge = connect("generic")
    assert forge.push(sha("a")).status_code == 401
    assert second.push(sha("a")).json == {"delivery": 2, "run": 1, "url": "https://cd.example.org/projects/demo/runs/1"}


def test_copies_that_arrive_at_the_same_time_make_one_run(forge: Forge) -> None:
    answers: list[int] = []

    def send(name: str) -> None:
        own = Forge(
            forge.client.application.test_client(), forge.database, forge.vault, "demo", "generic", forge.secret
        )
        answers.append(own.push(sha("a"), name=name).status_code)

    threads = [threading.Thread(target=send, args=(f"id-{number % 4}",)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == [200] * 7 + [202]
    assert (forge.count(Delivery), forge.count(Run), forge.count(Task)) == (4, 1, 1)


def test_a_replay_runs_again_because_a_person_says_so(forge: Forge) -> None:
    forge.push(sha("b"), sha("a"))
    late = forge.push(sha("a"), ZERO)
    assert late.json is not None
    with forge.database.write() as session:
        received = deliveries.replay(session, session.get_one(Delivery, late.json["delivery"]), "ann")
    assert (received.outcome, received.run, received.reason) == ("run", 2, "replayed by ann")
    with forge.database.read() as session:
        actions = session.scalars(select(AuditEntry.action)).all()
        assert session.get_one(Delivery, received.delivery).run_id == received.run_id
        # What came before it goes on: it is the newer push.
        assert session.scalars(select(Run.state).order_by(Run.number)).all() == ["queued", "queued"]
    assert "delivery.replay" in actions


def test_a_newer_push_takes_the_place_of_a_waiting_run(forge: Forge) -> None:
    forge.push(sha("a"), ZERO)
    forge.push(sha("b"), sha("a"))
    forge.push(sha("c"), ZERO, ref="refs/heads/other")
    with forge.database.read() as session:
        assert session.scalars(select(Run.state).order_by(Run.number)).all() == ["superseded", "queued", "queued"]


def test_a_pull_request_of_a_fork_is_not_trusted(github: Forge) -> None:
    told = {
        "action": "opened",
        "number": 7,
        "sender": {"login": "eve"},
        "pull_request": {
            "number": 7,
            "title": "Take this",
            "head": {"sha": sha("evil"), "repo": {"id": 2}},
            "base": {"sha": sha("a"), "repo": {"id": 1}},
        },
    }
    assert github.send(json.dumps(told).encode(), x_github_event="pull_request").status_code == 202
    with github.database.read() as session:
        run = session.scalars(select(Run)).one()
    assert (run.event, run.ref, run.trusted, run.pusher) == ("pull_request", "refs/pull/7/head", False, "eve")


@pytest.fixture
def spool(tmp_path: Path, forge: Forge) -> Path:
    """A hosted repository's folder with what its hook writes."""
    repository = tmp_path / "repositories" / "demo.git"
    (repository / post_receive.SPOOL).mkdir(parents=True)
    told = {"url": "http://127.0.0.1:1", "shown": "", "project": "demo", "secret": forge.secret, "id": 1}
    (repository / post_receive.FOLDER / "hook.json").write_text(json.dumps(told))
    return repository


def keep(repository: Path, name: str, body: bytes) -> hosted.Spooled:
    """What the hook could not hand over."""
    path = repository / post_receive.SPOOL / f"1-{name}.json"
    path.write_bytes(body)
    return hosted.Spooled(1, "demo", post_receive.headers(hook_secret(repository), name, body), body, path)


def hook_secret(repository: Path) -> str:
    """The secret that the hook signs with."""
    return cast(str, json.loads((repository / post_receive.FOLDER / "hook.json").read_text())["secret"])


def test_a_push_that_the_hook_kept_is_taken_once(forge: Forge, spool: Path) -> None:
    body = json.dumps({"type": "push", "ref": "refs/heads/main", "after": sha("a")}).encode()
    for _ in range(2):
        kept = keep(spool, "msg_1", body)
        deliveries.receive_spooled(forge.database, forge.vault, kept)
        assert not kept.path.exists()
    assert (forge.count(Delivery), forge.count(Run)) == (1, 1)


def test_what_the_hook_kept_and_can_never_be_taken_is_put_aside(forge: Forge, spool: Path) -> None:
    kept = keep(spool, "msg_1", b"{")
    deliveries.receive_spooled(forge.database, forge.vault, kept)
    assert not kept.path.exists()
    assert (spool / post_receive.FOLDER / "refused" / kept.path.name).exists()
    with forge.database.write() as session:
        projects.delete(session, session.get_one(Project, 1), "admin")
    gone = keep(spool, "msg_2", b"{}")
    deliveries.receive_spooled(forge.database, forge.vault, gone)
    assert not gone.path.exists()
    assert forge.count(Run) == 0


def test_a_forge_that_is_not_understood_says_so(connect: Any) -> None:
    with pytest.raises(UserError, match="github, generic"):
        deliveries.read("sourceforge", "x", {}, b"", 0.0)
