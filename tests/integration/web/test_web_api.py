"""What a program does with the API, from a new project to a rollback, and what it is told when it may not."""

from __future__ import annotations

import hashlib
import hmac
import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import select

from cd.identity import audit
from cd.pipeline import projects, runs, secrets
from cd.pipeline.records import Project, Run, Step
from cd.pipeline.states import RUN, STEP
from cd.promote import releases
from cd.promote.deployments import Deployer
from cd.promote.targets.fake import FakeTarget
from cd.store import facts, tasks
from cd.store.base import now
from cd.store.database import Database
from cd.store.records import Task
from cd.store.states import move
from cd.wiring import Services

Clients = dict[str, FlaskClient]


@pytest.fixture
def database_url(database: Database) -> str:
    """All of this on SQLite and on PostgreSQL."""
    return database.url


ENVIRONMENTS = """
environments:
  - name: dev
    from: {branches: [main]}
    target: {kind: docker, url: "http://127.0.0.1:18101"}
  - name: prod
    after: [dev]
    promote: manual
    target: {kind: docker, url: "http://127.0.0.1:18102"}
"""


def call(client: FlaskClient, method: str, path: str, expected: int = 200, **body: Any) -> Any:
    sent = {"json": body} if method in ("POST", "PATCH", "PUT") else {}
    answer = client.open(f"/api/v1{path}", method=method, **sent)
    assert answer.status_code == expected, answer.text
    return answer.get_json(force=True) if answer.data else None


@pytest.fixture
def applied(clients: Clients, project: Project) -> Project:
    answer = clients["admin"].put("/api/v1/projects/demo/environments", data=ENVIRONMENTS)
    assert answer.status_code == 200, answer.text
    return project


def passed(services: Services, image: str, pusher: str = "the-developer") -> Run:
    """A run of this project that has passed with a release."""
    with services.database.write() as session:
        run = runs.create(
            session,
            projects.find(session, "demo"),
            event="push",
            ref="refs/heads/main",
            sha=image[-1] * 40,
            pusher=pusher,
        )
        run.image, run.deploy = image, {"port": 8000}
        build = session.scalars(select(Step).where(Step.run_id == run.id)).one()
        tasks.cancel(session, "build", [build.id])
        move(session, STEP, build, "running", started_at=now(), attempt=1, fence=1)
        move(session, RUN, run, "running", started_at=now())
        runs.end_step(session, build, "passed", releases.run_ended)
        return session.get_one(Run, run.id)


def deploy_all(services: Services, fake: FakeTarget) -> None:
    """Do all deployments that were called for."""
    with services.database.read() as session:
        deployer = Deployer(services.database, lambda spec: fake, facts.instance(session))
    while True:
        with services.database.write() as session:
            task = session.scalars(select(Task).where(Task.kind == "deploy", Task.state == "ready")).first()
            claim = tasks.claim(session, task.id, "test", 30.0) if task else None
        if claim is None:
            return
        deployer.execute(claim)
        with services.database.write() as session:
            tasks.finish(session, claim)


def live(client: FlaskClient) -> dict[str, int | None]:
    items = call(client, "GET", "/projects/demo/environments")["items"]
    return {one["name"]: one["live"]["release"]["number"] if one["live"] else None for one in items}


def test_projects_are_made_listed_and_let_go(clients: Clients, services: Services) -> None:
    admin, viewer = clients["admin"], clients["viewer"]
    made = call(admin, "POST", "/projects", 201, slug="shop", forge="github", clone_url="https://git.example.org/s.git")
    assert made["webhook_url"] == "http://towpath.test/hooks/shop"
    assert len(made["webhook_secret"]) >= 32
    assert made["push_url"] is None
    call(admin, "POST", "/projects", 409, slug="shop", forge="github", clone_url="https://git.example.org/s.git")
    shown = call(viewer, "GET", "/projects/shop")
    assert (shown["slug"], shown["hosted"]) == ("shop", False)
    assert "secret" not in json.dumps(shown)
    assert [one["slug"] for one in call(viewer, "GET", "/projects")["items"]] == ["shop"]
    call(admin, "DELETE", "/projects/shop", 204)
    call(viewer, "GET", "/projects/shop", 404)
    assert call(viewer, "GET", "/projects")["items"] == []


def test_a_hosted_project_gets_a_repository_to_push_to(clients: Clients, services: Services) -> None:
    made = call(clients["admin"], "POST", "/projects", 201, slug="own", hosted=True)
    assert made["hosted"] is True
    path = services.settings.folder / "repositories" / "own.git"
    assert made["push_url"] == str(path)
    assert (path / "HEAD").exists()
    refused = call(clients["developer"], "POST", "/projects/own/runs", 404, ref="main")
    assert "no branch or tag" in refused["detail"]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"slug": "x"}, "clone URL or is hosted"),
        ({"slug": "x", "hosted": True, "clone_url": "https://a/b"}, "clone URL or is hosted"),
        ({"slug": "X y", "hosted": True}, "can't be a project's name"),
        ({"slug": "x", "forge": "gitbub", "clone_url": "https://git.example.org/b"}, "not understood"),
        ({"slug": "x", "forge": "github", "clone_url": "ext::sh -c id"}, ""),
        ({"slug": "x", "forge": "github", "clone_url": "file:///etc"}, ""),
    ],
)
def test_projects_that_can_not_be(clients: Clients, body: dict[str, Any], words: str) -> None:
    assert words in call(clients["admin"], "POST", "/projects", 400, **body)["detail"]
    assert call(clients["admin"], "GET", "/projects")["items"] == []


def test_a_project_is_set(clients: Clients, project: Project) -> None:
    shown = call(clients["viewer"], "GET", "/projects/demo")
    assert (shown["supersede"], shown["parallel"], shown["keep_failed"]) == ("waiting", None, False)
    changed = call(clients["admin"], "PATCH", "/projects/demo", supersede="running", parallel=2)
    assert (changed["supersede"], changed["parallel"], changed["keep_failed"]) == ("running", 2, False)
    changed = call(clients["admin"], "PATCH", "/projects/demo", parallel=0, keep_failed=True)
    assert (changed["supersede"], changed["parallel"], changed["keep_failed"]) == ("running", None, True)
    for body in ({"supersede": "always"}, {"parallel": -1}, {"parallel": 10**9}, {"slug": "other"}):
        call(clients["admin"], "PATCH", "/projects/demo", 422, **body)
    call(clients["developer"], "PATCH", "/projects/demo", 403, parallel=1)
    call(clients["admin"], "PATCH", "/projects/nothing", 404, parallel=1)


def test_flakes_and_reuse_of_a_new_project_are_nothing(clients: Clients, project: Project) -> None:
    assert call(clients["viewer"], "GET", "/projects/demo/flakes") == {"items": []}
    told = call(clients["viewer"], "GET", "/projects/demo/reuse")
    assert told == {"reused": 0, "saved": 0.0, "audited": 0, "false_hits": 0, "newest": []}
    call(clients["viewer"], "GET", "/projects/nothing/reuse", 404)


def test_runs_are_listed_page_by_page_canceled_and_tried_again(
    clients: Clients, services: Services, project: Project
) -> None:
    viewer, developer = clients["viewer"], clients["developer"]
    with services.database.write() as session:
        for number in range(5):
            runs.create(
                session, projects.find(session, "demo"), event="push", ref="refs/heads/main", sha=f"{number}" * 40
            )
    first = call(viewer, "GET", "/projects/demo/runs?limit=2")
    second = call(viewer, "GET", f"/projects/demo/runs?limit=2&before={first['next']}")
    third = call(viewer, "GET", f"/projects/demo/runs?limit=2&before={second['next']}")
    assert [run["number"] for page in (first, second, third) for run in page["items"]] == [5, 4, 3, 2, 1]
    assert third["next"] is None
    assert call(viewer, "GET", "/projects/demo/runs/5")["steps"][0]["name"] == "build"
    call(viewer, "GET", "/projects/demo/runs/6", 404)
    call(developer, "POST", "/projects/demo/runs/5/retry", 409)
    canceled = call(developer, "POST", "/projects/demo/runs/5/cancel")
    assert (canceled["state"], canceled["canceled_by"]) == ("canceled", "the-developer")
    call(developer, "POST", "/projects/demo/runs/5/cancel", 409)
    again = call(developer, "POST", "/projects/demo/runs/5/retry", 201, fresh=True)
    assert (again["number"], again["retry_of"], again["fresh"]) == (6, 5, True)
    assert again["steps"][0]["state"] == "waiting"


def test_a_log_is_read_from_any_place_and_followed_to_its_end(
    clients: Clients, services: Services, project: Project
) -> None:
    with services.database.write() as session:
        run = runs.create(session, projects.find(session, "demo"), event="push", ref="refs/heads/main", sha="a" * 40)
        build = session.scalars(select(Step).where(Step.run_id == run.id)).one()
        move(session, STEP, build, "running", started_at=now(), attempt=1, fence=1)
        move(session, RUN, run, "running", started_at=now())
    path = "/api/v1/projects/demo/runs/1/steps/build/log"
    with services.logs.writer(build.id, 1, 1) as writer:
        writer.write(b"one\n\x1b[31mtwo\x1b[0m <script>\n")
    answer = clients["viewer"].get(path)
    assert answer.data == b"one\n\x1b[31mtwo\x1b[0m <script>\n"
    assert answer.mimetype == "text/plain"
    assert clients["viewer"].get(f"{path}?start=4").data == b"\x1b[31mtwo\x1b[0m <script>\n"
    assert clients["viewer"].get(f"{path}?start=400").data == b""
    assert clients["viewer"].get(path.replace("build", "unit")).status_code == 404

    def go_on() -> None:
        with services.logs.writer(build.id, 1, 1) as more:
            more.write(b"three\n")
        with services.database.write() as session:
            runs.end_step(session, session.get_one(Step, build.id), "failed", releases.run_ended)

    with clients["viewer"].get(f"{path}?follow=true", buffered=False) as answer:
        pieces: Iterator[bytes] = answer.iter_encoded()
        text = next(pieces)
        other = threading.Thread(target=go_on)
        other.start()
        text += b"".join(pieces)
        other.join()
    assert text == b"one\n\x1b[31mtwo\x1b[0m <script>\nthree\n"


def test_from_a_passed_run_to_prod_and_back(app: Flask, clients: Clients, services: Services, applied: Project) -> None:
    viewer, developer, approver = clients["viewer"], clients["developer"], clients["approver"]
    fake = FakeTarget()
    for image in ("sha256:a", "sha256:b"):
        passed(services, image)
        deploy_all(services, fake)
        waiting = call(viewer, "GET", "/promotions")["items"]
        assert [(one["project"], one["environment"]) for one in waiting] == [("demo", "prod")]
        path = f"/promotions/{waiting[0]['id']}"
        shown = call(developer, "GET", path)
        assert shown["state"] == "awaiting_approval"
        assert any(gate["state"] == "waiting" for gate in shown["gates"])
        assert shown["why_not"]
        call(developer, "POST", f"{path}/approve", 403, fingerprint=shown["fingerprint"])
        call(approver, "POST", f"{path}/approve", 409, fingerprint="0" * 64)
        call(approver, "POST", f"{path}/approve", 422)
        assert call(approver, "GET", path)["why_not"] == ""
        done = call(approver, "POST", f"{path}/approve", fingerprint=shown["fingerprint"], comment="ok")
        assert done["votes"][0]["username"] == "the-approver"
        call(approver, "POST", f"{path}/approve", 409, fingerprint=shown["fingerprint"])
        deploy_all(services, fake)
        assert call(viewer, "GET", path)["state"] == "succeeded"
    assert live(viewer) == {"dev": 2, "prod": 2}
    call(developer, "POST", "/projects/demo/environments/prod/rollback", 403)
    back = call(approver, "POST", "/projects/demo/environments/prod/rollback", 201, reason="it is slow")
    assert (back["kind"], back["release"]["number"]) == ("rollback", 1)
    deploy_all(services, fake)
    assert live(viewer) == {"dev": 2, "prod": 1}
    held = call(viewer, "GET", "/projects/demo/environments")["items"][1]
    assert "it is slow" in held["hold"]
    call(developer, "DELETE", "/projects/demo/environments/prod/hold", 403)
    call(approver, "DELETE", "/projects/demo/environments/prod/hold")
    call(approver, "DELETE", "/projects/demo/environments/prod/hold", 409)
    asked = call(developer, "POST", "/projects/demo/promotions", 201, release=2, environment="prod")
    call(developer, "POST", "/projects/demo/promotions", 409, release=2, environment="prod")
    call(developer, "POST", "/projects/demo/promotions", 404, release=9, environment="prod")
    call(developer, "POST", "/projects/demo/promotions", 404, release=2, environment="nowhere")
    assert call(developer, "POST", f"/promotions/{asked['id']}/cancel")["state"] == "canceled"
    history = call(viewer, "GET", "/projects/demo/promotions?environment=prod&limit=2")
    assert [one["state"] for one in history["items"]] == ["canceled", "succeeded"]
    older = call(viewer, "GET", f"/projects/demo/promotions?environment=prod&before={history['next']}")
    assert [one["kind"] for one in older["items"]] == ["promote", "promote"]
    assert [one["number"] for one in call(viewer, "GET", "/projects/demo/releases")["items"]] == [2, 1]
    assert call(viewer, "GET", "/board")["items"][0]["environments"][0]["live"]["release"]["number"] == 2
    actions = [one["action"] for one in call(viewer, "GET", "/audit?limit=200")["items"]]
    for action in ("promotion.approve", "environment.held", "environment.unheld", "environment.applied"):
        assert action in actions
    assert call(viewer, "GET", "/audit/verify") == {"intact": True, "broken": None}


def test_two_approvals_at_once_are_one_and_a_conflict(
    app: Flask, clients: Clients, services: Services, applied: Project
) -> None:
    passed(services, "sha256:a")
    deploy_all(services, FakeTarget())
    waiting = call(clients["viewer"], "GET", "/promotions")["items"][0]
    start, codes = threading.Barrier(2), []

    def vote(role: str) -> None:
        start.wait()
        answer = clients[role].post(
            f"/api/v1/promotions/{waiting['id']}/approve", json={"fingerprint": waiting["fingerprint"]}
        )
        codes.append(answer.status_code)

    voters = [threading.Thread(target=vote, args=(role,)) for role in ("approver", "admin")]
    for voter in voters:
        voter.start()
    for voter in voters:
        voter.join()
    assert sorted(codes) == [200, 409]


def test_environments_are_json_as_well(clients: Clients, project: Project) -> None:
    spec = {
        "environments": [
            {
                "name": "dev",
                "from": {"branches": ["main"]},
                "target": {"kind": "docker", "url": "http://127.0.0.1:18101"},
            }
        ]
    }
    assert [one["name"] for one in call(clients["admin"], "PUT", "/projects/demo/environments", **spec)["items"]] == [
        "dev"
    ]


def test_a_delivery_is_shown_and_done_again(clients: Clients, services: Services, project: Project) -> None:
    body = json.dumps(
        {
            "ref": "refs/heads/main",
            "before": "0" * 40,
            "after": "a" * 40,
            "deleted": False,
            "head_commit": {"id": "a" * 40, "message": "m", "author": {"name": "Ada"}},
            "pusher": {"name": "ada"},
            "repository": {"pushed_at": 1},
        }
    ).encode()
    secret = projects.secret(services.vault, project).encode()
    headers = {
        "X-Hub-Signature-256": "sha256=" + hmac.new(secret, body, hashlib.sha256).hexdigest(),
        "X-GitHub-Event": "push",
        "X-GitHub-Delivery": "d-1",
        "Content-Type": "application/json",
    }
    taken = clients["viewer"].application.test_client().post("/hooks/demo", data=body, headers=headers)
    assert taken.status_code == 202, taken.text
    listed = call(clients["viewer"], "GET", "/projects/demo/deliveries")["items"]
    assert [(one["delivery_id"], one["outcome"], one["run"]) for one in listed] == [("d-1", "run", 1)]
    shown = call(clients["viewer"], "GET", f"/deliveries/{listed[0]['id']}")
    assert json.loads(shown["body"])["after"] == "a" * 40
    call(clients["approver"], "POST", f"/deliveries/{listed[0]['id']}/replay", 403)
    assert call(clients["admin"], "POST", f"/deliveries/{listed[0]['id']}/replay")["run"] == 2
    call(clients["admin"], "POST", "/deliveries/99/replay", 404)


def test_users_are_managed_by_admins(clients: Clients, services: Services) -> None:
    admin = clients["admin"]
    call(admin, "POST", "/users", 201, username="eve", password="long enough 1", role="viewer")
    call(admin, "POST", "/users", 409, username="eve", password="long enough 1", role="viewer")
    call(admin, "POST", "/users", 400, username="bob", password="short", role="viewer")
    call(admin, "POST", "/users", 400, username="bob", password="long enough 1", role="king")
    assert call(admin, "PATCH", "/users/eve", role="approver")["role"] == "approver"
    assert call(admin, "PATCH", "/users/eve", disabled=True)["disabled_at"] is not None
    assert call(admin, "PATCH", "/users/eve", disabled=False)["disabled_at"] is None
    call(admin, "PATCH", "/users/the-admin", 409, role="viewer")
    call(admin, "PATCH", "/users/nobody", 404, role="viewer")
    assert "password" not in json.dumps(call(admin, "GET", "/users"))
    with services.database.read() as session:
        actions = [entry.action for entry in audit.entries(session, limit=4)]
        assert actions == ["user.enable", "user.disable", "user.role", "user.create"]


def test_tokens_are_shown_once_and_can_be_revoked(clients: Clients, app: Flask) -> None:
    viewer = clients["viewer"]
    made = call(viewer, "POST", "/tokens", 201, name="laptop")
    client = app.test_client()
    client.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {made['token']}"
    assert call(client, "GET", "/me") == {"username": "the-viewer", "role": "viewer"}
    listed = call(viewer, "GET", "/tokens")
    assert made["token"] not in json.dumps(listed)
    number = next(one["id"] for one in listed["items"] if one["name"] == "laptop")
    call(clients["developer"], "DELETE", f"/tokens/{number}", 404)
    call(viewer, "DELETE", f"/tokens/{number}", 204)
    call(client, "GET", "/me", 401)


def test_metrics_count_what_is_open(clients: Clients, services: Services, project: Project) -> None:
    with services.database.write() as session:
        runs.create(session, projects.find(session, "demo"), event="push", ref="refs/heads/main", sha="a" * 40)
    text = clients["viewer"].get("/metrics").text
    assert 'towpath_runs_open{state="queued"} 1.0' in text
    assert "demo" not in text


def test_secrets_go_in_and_never_come_out(clients: Clients, services: Services, project: Project) -> None:
    admin, where = clients["admin"], "/projects/demo/secrets"
    assert call(admin, "GET", where) == {"items": []}
    assert call(admin, "PUT", f"{where}/TOKEN", value="hush-hush") == {"name": "TOKEN", "version": 1}
    assert call(admin, "PUT", f"{where}/TOKEN", value="line one\nline two\n") == {"name": "TOKEN", "version": 2}
    assert call(admin, "PUT", f"{where}/a_2", value="other value") == {"name": "a_2", "version": 1}
    (token, other) = call(admin, "GET", where)["items"]
    assert (token["name"], token["version"], token["changed_by"]) == ("TOKEN", 2, "the-admin")
    assert token["changed_at"].endswith("Z")
    assert set(token) == {"name", "version", "changed_by", "changed_at"}
    assert other["name"] == "a_2"
    with services.database.read() as session:
        found = secrets.values(session, services.vault, project.id, ["TOKEN"])
        assert found == {"TOKEN": "line one\nline two\n"}
    told = call(admin, "GET", "/audit")["items"]
    newest = next(one for one in told if one["action"] == "secret.set")
    assert newest["detail"] == {"name": "a_2", "version": 1}
    assert "hush" not in json.dumps(told) + admin.get(f"/api/v1{where}").text


def test_a_forgotten_secret_is_gone_and_its_versions_go_on(clients: Clients, project: Project) -> None:
    admin, where = clients["admin"], "/projects/demo/secrets"
    call(admin, "PUT", f"{where}/TOKEN", value="hush-hush")
    call(admin, "DELETE", f"{where}/TOKEN", 204)
    assert call(admin, "GET", where) == {"items": []}
    told = call(admin, "DELETE", f"{where}/TOKEN", 404)
    assert "no secret 'TOKEN'" in told["detail"]
    assert call(admin, "PUT", f"{where}/TOKEN", value="hush-hush")["version"] == 2


@pytest.mark.parametrize(
    ("name", "value", "status"),
    [
        ("1TOKEN", "hush-hush", 400),
        ("TO-KEN", "hush-hush", 400),
        ("T" * 129, "hush-hush", 400),
        ("TOWPATH_TOKEN", "hush-hush", 400),
        ("TOKEN", "", 400),
        ("TOKEN", "hush\0hush", 400),
        ("TOKEN", "x" * (64 << 10) + "hush", 413),
        ("TOKEN", "hush" * (1 << 18), 413),
        ("TOKEN", ["hush"], 422),
    ],
)
def test_what_can_be_no_secret(clients: Clients, project: Project, name: str, value: Any, status: int) -> None:
    told = call(clients["admin"], "PUT", f"/projects/demo/secrets/{name}", status, value=value)
    assert "hush" not in json.dumps(told), "a refusal repeats no value"
    assert call(clients["admin"], "GET", "/projects/demo/secrets") == {"items": []}
