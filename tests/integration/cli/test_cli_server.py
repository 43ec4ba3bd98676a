"""The command against a real server over HTTP."""

from __future__ import annotations

import json
import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from click.testing import CliRunner, Result
from sqlalchemy import select
from werkzeug.serving import make_server

from cd import wiring
from cd.cli import main
from cd.config import Settings
from cd.identity import users
from cd.pipeline import runs, secrets
from cd.pipeline.definition import Pipeline
from cd.pipeline.plan import Occasion, plan
from cd.pipeline.records import Run, Step
from cd.pipeline.states import STEP
from cd.store.states import move
from cd.web import live
from cd.web.app import create_app
from cd.webhooks import deliveries
from cd.wiring import Services

PASSWORD = "correct horse battery"

Towpath = Callable[..., Result]


@pytest.fixture
def services(
    tmp_path: Path, _sqlite_template: Path, redis_server: str, redis_client: redis.Redis
) -> Iterator[Services]:
    home = tmp_path / "home"
    home.mkdir()
    shutil.copy(_sqlite_template, home / "towpath.db")
    made = wiring.build(Settings(home=home, redis_url=redis_server, public_url="http://towpath.test"))
    with made.database.write() as session:
        users.create(session, "towpath", "admin", PASSWORD, "admin")
    yield made
    made.database.close()
    made.redis.close()


@pytest.fixture
def url(services: Services) -> Iterator[str]:
    app = create_app(services)
    server = make_server("127.0.0.1", 0, app, threaded=True)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    app.extensions[live.HUB].close()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def towpath(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Towpath:
    """Runs a command as somebody who is logged in as admin."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    for name in ("TOWPATH_URL", "TOWPATH_TOKEN"):
        monkeypatch.delenv(name, raising=False)

    def call(*arguments: object, given: str | None = None, code: int = 0) -> Result:
        result = CliRunner().invoke(main, [str(one) for one in arguments], input=given)
        assert result.exit_code == code, f"{arguments}: {result.output}{result.exception!r}"
        return result

    call("login", url, "--username", "admin", "--password-stdin", given=PASSWORD)
    return call


def data(result: Result) -> Any:
    return json.loads(result.stdout)


@pytest.fixture
def demo(towpath: Towpath) -> dict[str, Any]:
    """A hosted project."""
    made: dict[str, Any] = data(towpath("project", "create", "demo", "--hosted", "--json"))
    return made


@pytest.fixture
def run(services: Services, demo: dict[str, Any]) -> Run:
    """A run of it, with a stage."""
    with services.database.write() as session:
        project = runs.Project(id=1)
        made = runs.enqueue(
            session, project.id, event="push", ref="refs/heads/main", sha="a" * 40, message="Fix \x1b[2J"
        )
        row = session.get_one(Run, made.id)
        definition = Pipeline.model_validate({"stages": {"unit": {"run": "pytest"}}})
        runs.add_stages(session, row, plan(definition, Occasion(row.event, row.ref)))
    return row


def test_login_keeps_a_token_that_works(towpath: Towpath, tmp_path: Path) -> None:
    kept = tmp_path / "config" / "towpath" / "credentials.json"
    assert kept.stat().st_mode & 0o777 == 0o600
    assert PASSWORD not in kept.read_text()
    names = [one["name"] for one in data(towpath("token", "list", "--json"))]
    assert names == [socket.gethostname()]


def test_a_wrong_password_changes_nothing(towpath: Towpath, url: str) -> None:
    result = towpath("login", url, "--username", "admin", "--password-stdin", given="wrong", code=1)
    assert result.stderr.count("\n") == 1
    assert "password" in result.stderr
    towpath("project", "list")


def test_a_server_that_is_not_there(towpath: Towpath, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOWPATH_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("TOWPATH_TOKEN", "tp_x")
    result = towpath("project", "list", code=1)
    assert "http://127.0.0.1:1 does not answer" in result.stderr
    assert result.stderr.count("\n") == 1
    monkeypatch.setenv("TOWPATH_URL", "towpath.example.org")
    assert "write it like https://" in towpath("project", "list", code=1).stderr


def test_a_token_that_is_revoked_is_refused(towpath: Towpath) -> None:
    token = towpath("token", "create", "second").stdout.strip()
    assert token.startswith("tp_")
    [number] = [one["id"] for one in data(towpath("token", "list", "--json")) if one["name"] == socket.gethostname()]
    towpath("token", "revoke", number)
    assert "towpath login" in towpath("token", "list", code=1).stderr


def test_projects(towpath: Towpath) -> None:
    assert "no projects" in towpath("project", "list").stdout
    created = towpath("project", "create", "shop", "--clone-url", "https://example.org/shop.git", "--forge", "github")
    assert "webhook secret" in created.stdout
    assert "http://towpath.test/hooks/shop" in created.stdout
    assert [one["slug"] for one in data(towpath("project", "list", "--json"))] == ["shop"]
    assert "no runs yet" in towpath("project", "show", "shop").stdout
    towpath("project", "create", "shop", "--hosted", code=1)
    towpath("project", "create", "x", "--clone-url", "https://example.org/a.git", "--forge", "sourceforge", code=1)
    towpath("project", "delete", "shop", given="n\n", code=1)
    towpath("project", "delete", "shop", "--yes")
    assert data(towpath("project", "list", "--json")) == []
    assert "no project" in towpath("project", "show", "shop", code=1).stderr


def test_a_hosted_project_says_where_to_push(demo: dict[str, Any]) -> None:
    assert Path(demo["push_url"], "HEAD").exists()


def test_environments(towpath: Towpath, demo: dict[str, Any], tmp_path: Path) -> None:
    good = "environments:\n  - {name: dev, from: {branches: [main]}, target: {kind: docker, url: 'http://127.0.0.1:18001'}}\n"
    assert "dev" in towpath("environment", "apply", "demo", "-", given=good).stdout
    file = tmp_path / "env.yml"
    file.write_text(good.replace("branches", "brunches"))
    faulty = towpath("environment", "apply", "demo", file, code=1)
    assert f"{file}:2:" in faulty.stderr
    towpath("hold", "demo", "dev", "--reason", "release week")
    assert data(towpath("environment", "list", "demo", "--json"))[0]["hold"] == "release week"
    assert "admin: release week" in towpath("environment", "list", "demo").stdout
    towpath("unhold", "demo", "dev")
    assert data(towpath("environment", "list", "demo", "--json"))[0]["hold"] is None
    assert "live" in towpath("rollback", "demo", "dev", code=1).stderr
    assert "release" in towpath("promote", "demo", 1, "dev", code=1).stderr
    assert "nothing waits" in towpath("promotion", "list").stdout
    assert "no promotions" in towpath("promotion", "list", "demo").stdout
    for verb in ("why", "approve", "reject"):
        assert "promotion" in towpath(verb, 7, code=1).stderr


def test_runs(towpath: Towpath, run: Run) -> None:
    listed = towpath("run", "list", "demo").stdout
    assert "#1" in listed
    assert "\x1b" not in listed
    shown = towpath("run", "show", "demo", 1).stdout
    assert "unit" in shown
    assert data(towpath("run", "show", "demo", 1, "--json"))["sha"] == "a" * 40
    assert "no run #2" in towpath("run", "show", "demo", 2, code=1).stderr
    towpath("run", "retry", "demo", 1, code=1)
    assert data(towpath("run", "cancel", "demo", 1, "--json"))["state"] == "canceled"
    again = data(towpath("run", "retry", "demo", 1, "--failed", "--json"))
    assert (again["number"], again["fresh"], again["retry_of"] is None) == (2, False, False)
    towpath("run", "retry", "demo", 1, "--failed", "--fresh", code=2)
    assert data(towpath("run", "retry", "demo", 1, "--fresh", "--json"))["fresh"] is True
    assert "no branch or tag" in towpath("run", "start", "demo", code=1).stderr


def test_settings_flakes_and_reuse_of_a_project(towpath: Towpath, demo: dict[str, Any]) -> None:
    towpath("project", "set", "demo", code=2)
    changed = data(
        towpath("project", "set", "demo", "--supersede", "running", "--parallel", 3, "--keep-failed", "--json")
    )
    assert (changed["supersede"], changed["parallel"], changed["keep_failed"]) == ("running", 3, True)
    assert "no limit" in towpath("project", "set", "demo", "--parallel", 0, "--no-keep-failed").stdout
    assert "running runs" in towpath("project", "show", "demo").stdout
    assert "no flakes" in towpath("project", "flakes", "demo").stdout
    assert data(towpath("project", "flakes", "demo", "--json")) == []
    assert "0 stages" in towpath("project", "reuse", "demo").stdout
    assert data(towpath("project", "reuse", "demo", "--json"))["false_hits"] == 0


def test_logs(towpath: Towpath, run: Run, services: Services) -> None:
    for name, text in (("build", b"#1 [internal]\n"), ("unit", b"\x1b[32mok\x1b[0m\x1b]0;x\x07\n12 passed")):
        say(services, run, name, text)
    end(services, run, "build", "passed")
    end(services, run, "unit", "passed")
    assert towpath("run", "logs", "demo", 1, "unit").stdout == "ok\n12 passed\n"
    everything = towpath("run", "logs", "demo", 1)
    assert everything.stdout == "#1 [internal]\nok\n12 passed\n"
    followed = towpath("run", "logs", "demo", 1, "-f")
    assert sorted(followed.stdout.splitlines()) == [" unit │ 12 passed", " unit │ ok", "build │ #1 [internal]"]
    assert "run #1 passed" in followed.stderr
    assert "no step" in towpath("run", "logs", "demo", 1, "other", code=1).stderr


def test_a_run_that_fails_is_followed_to_its_end_and_status_1(towpath: Towpath, run: Run, services: Services) -> None:
    results: list[Result] = []
    thread = threading.Thread(target=lambda: results.append(towpath("run", "logs", "demo", 1, "-f", code=1)))
    thread.start()
    say(services, run, "build", b"building\n")
    end(services, run, "build", "failed", "Dockerfile:1: no")
    thread.join()
    assert "build │ building" in results[0].stdout
    assert " unit │ skipped: needs build, which failed" in results[0].stdout
    assert "run #1 failed: build: Dockerfile:1: no" in results[0].stderr


def step_of(services: Services, run: Run, name: str) -> Step:
    with services.database.read() as session:
        return session.scalars(select(Step).where(Step.run_id == run.id, Step.name == name)).one()


def say(services: Services, run: Run, name: str, text: bytes) -> None:
    """Begin a step and write its log, as a worker would."""
    step = step_of(services, run, name)
    with services.database.write() as session:
        started = runs.start_step(session, step.id, 1)
        assert started is not None
    with services.logs.writer(step.id, 1, 1) as writer:
        writer.write(text)


def end(services: Services, run: Run, name: str, state: str, reason: str = "") -> None:
    with services.database.write() as session:
        step = session.get_one(Step, step_of(services, run, name).id)
        if state == "failed":
            runs.end_step(session, step, state, lambda *_: None, reason=reason)
            return
        move(session, STEP, step, state)
        if name == "unit":
            runs.advance(session, runs.lock(session, run.id), lambda *_: None)


def test_deliveries(towpath: Towpath, demo: dict[str, Any], services: Services) -> None:
    assert "no webhooks yet" in towpath("deliveries", "list", "demo").stdout
    body = json.dumps({"type": "push", "ref": "refs/heads/main", "after": "b" * 40}).encode()
    with services.database.write() as session:
        for number in range(3):
            event = deliveries.FORGES["generic"].event({}, body)
            incoming = deliveries.Incoming(f"msg_{number}", event, {"webhook-id": f"msg_{number}"}, body)
            deliveries.receive(session, 1, incoming)
    listed = data(towpath("deliveries", "list", "demo", "--json"))
    assert [one["outcome"] for one in listed] == ["duplicate", "duplicate", "run"]
    assert len(data(towpath("deliveries", "list", "demo", "--limit", 2, "--json"))) == 2
    shown = towpath("deliveries", "show", listed[-1]["id"]).stdout
    assert '"ref": "refs/heads/main"' in shown
    assert "msg_0" in shown
    assert data(towpath("deliveries", "replay", listed[-1]["id"], "--json"))["run"] == 2


def test_people(towpath: Towpath, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    towpath("user", "create", "ann", "--role", "viewer", "--password-stdin", given=PASSWORD)
    towpath("user", "create", "ann", "--password-stdin", given=PASSWORD, code=1)
    towpath("user", "role", "ann", "developer")
    listed = {one["username"]: one["role"] for one in data(towpath("user", "list", "--json"))}
    assert listed == {"admin": "admin", "ann": "developer"}
    towpath("user", "password", "ann", "--password-stdin", given="another long password")
    towpath("user", "disable", "ann")
    towpath("login", url, "--username", "ann", "--password-stdin", given="another long password", code=1)
    towpath("user", "enable", "ann")
    towpath("user", "disable", "admin", code=1)
    towpath("login", url, "--username", "ann", "--password-stdin", given="another long password")
    refused = towpath("user", "list", code=1)
    assert "admin" in refused.stderr


def test_the_audit_log(towpath: Towpath, demo: dict[str, Any], services: Services) -> None:
    actions = [one["action"] for one in data(towpath("audit", "list", "--json"))]
    assert "project.create" in actions
    assert "whole" in towpath("audit", "verify").stdout
    with services.database.write() as session:
        session.connection().exec_driver_sql("UPDATE audit_entry SET actor = 'eve' WHERE id = 1")
    assert "broken" in towpath("audit", "verify", code=1).stderr
    assert data(towpath("audit", "verify", "--json", code=1))["intact"] is False


def test_a_secret_is_taken_from_anywhere_but_the_command_line(
    towpath: Towpath, demo: dict[str, Any], services: Services, tmp_path: Path
) -> None:
    def kept(name: str) -> str:
        with services.database.read() as session:
            return secrets.values(session, services.vault, 1, [name])[name]

    result = towpath("secret", "set", "demo", "TOKEN", given="hush-hush\n")
    assert result.output == "TOKEN is stored, version 1\n"
    assert kept("TOKEN") == "hush-hush"
    file = tmp_path / "key"
    file.write_bytes("-----BEGIN-----\nhüsh\n".encode())
    assert data(towpath("secret", "set", "demo", "TOKEN", "--from-file", file, "--json"))["version"] == 2
    assert kept("TOKEN") == "-----BEGIN-----\nhüsh\n"
    assert "Usage" in towpath("secret", "set", "demo", "TOKEN", "hush-hush", code=2).stderr


def test_secrets_are_listed_without_values_and_forgotten(towpath: Towpath, demo: dict[str, Any]) -> None:
    assert "no secrets" in towpath("secret", "list", "demo").stdout
    towpath("secret", "set", "demo", "TOKEN", given="hush-hush")
    shown = towpath("secret", "list", "demo")
    assert "TOKEN" in shown.stdout
    assert "admin" in shown.stdout
    (told,) = data(towpath("secret", "list", "demo", "--json"))
    assert (told["name"], told["version"], told["changed_by"]) == ("TOKEN", 1, "admin")
    assert "hush" not in shown.output + str(told)
    towpath("secret", "delete", "demo", "TOKEN", given="n\n", code=1)
    assert towpath("secret", "delete", "demo", "TOKEN", "--yes").stdout == "TOKEN is forgotten\n"
    assert data(towpath("secret", "list", "demo", "--json")) == []
    assert "no secret 'TOKEN'" in towpath("secret", "delete", "demo", "TOKEN", "--yes", code=1).stderr


def test_what_can_be_no_secret_is_told_without_it(towpath: Towpath, demo: dict[str, Any], tmp_path: Path) -> None:
    for name, value, says in (
        ("TO-KEN", b"hush-hush", "can't be a secret's name"),
        ("TOKEN", b"", "empty"),
        ("TOKEN", b"hush" * (17 << 10), "over 64 KiB"),
        ("TOKEN", b"hush\xff", "no UTF-8"),
    ):
        file = tmp_path / "value"
        file.write_bytes(value)
        stderr = towpath("secret", "set", "demo", name, "--from-file", file, code=1).stderr
        assert says in stderr
        assert "hush" not in stderr
