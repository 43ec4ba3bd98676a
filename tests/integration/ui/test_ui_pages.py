"""Pages and their forms, as a browser without scripts sees them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from html import unescape

from flask import Flask
from sqlalchemy import event
from ui_scene import HOSTILE, PASSWORD, Scene
from ui_visitor import Visitor

from cd.pipeline import projects, secrets
from cd.pipeline.records import Run
from cd.promote.records import Environment, Promotion, Release

Visit = Callable[[str], Visitor]
PAGES = (
    "/",
    "/approvals",
    "/projects/shop",
    "/projects/shop?before=12",
    "/projects/handbook",
    "/projects/shop/runs/31",
    "/projects/shop/runs/27",
    "/projects/shop/runs/27?step=build",
    "/projects/shop/runs/30?line=3",
    "/projects/mailer/runs/5",
    "/projects/shop/environments/prod",
    "/projects/shop/settings",
    "/projects/new",
    "/users",
    "/account",
    "/audit?verify=1",
)


def test_what_comes_from_outside_is_inert(visit: Visit) -> None:
    visitor = visit("maya")
    for path in PAGES:
        page = visitor.get(path)
        assert HOSTILE not in page, path
        assert "<img" not in page, path
        assert not re.search(r"<script(?! type=\"module\" src=\"/static/)", page), path
        assert not re.search(r"\son\w+=|\sstyle=|javascript:", re.sub(r"&lt;.*?&gt;", "", page)), path


def test_the_hostile_texts_are_shown_as_they_are(visit: Visit, scene: Scene) -> None:
    visitor = visit("maya")
    shown = "&lt;script&gt;alert(1)&lt;/script&gt;"
    for path in ("/", "/projects/shop", "/projects/shop/runs/31", f"/promotions/{scene.failed}"):
        assert shown in visitor.get(path), path


def test_the_board_says_what_to_do_next(visit: Visit, scene: Scene) -> None:
    page = visit("maya").get("/")
    assert f'href="/promotions/{scene.waiting}">Approve #27 · 0 of 2' in page
    assert "Promote #3" in page
    assert "load test until 18:00" in page
    assert "#4 failed" in page
    assert "Promote #3</button>" not in visit("vic").get("/")


def test_two_approve_and_it_goes_on(visit: Visit, scene: Scene) -> None:
    path = f"/promotions/{scene.waiting}"
    for name in ("maya", "leo"):
        visitor = visit(name)
        if name == "leo":  # he pushed this release
            assert "can’t approve it" in visitor.get(path)
            with scene.services.database.write() as session:
                release = session.get_one(Promotion, scene.waiting).release_id
                session.get_one(Release, release).author = session.get_one(Release, release).pusher = "ana"
        answer = visitor.send(path, f"{path}/approve", comment=f"fine, says {name}")
        assert answer.status_code == 303
        assert answer.location == path
    page = visit("vic").get(path)
    assert "fine, says leo" in page
    assert "queued" in page


def test_a_vote_for_what_has_changed_is_refused(visit: Visit, scene: Scene) -> None:
    path = f"/promotions/{scene.waiting}"
    answer = visit("maya").send(path, f"{path}/approve", fingerprint="0" * 64)
    assert answer.status_code == 409
    assert "Back to the page" in answer.text


def test_rejecting_ends_it(visit: Visit, scene: Scene) -> None:
    path = f"/promotions/{scene.waiting}"
    visitor = visit("maya")
    token = re.search(r'name="csrf_token" value="([^"]+)"', visitor.get(path))
    print_ = re.search(r'name="fingerprint" value="([^"]+)"', visitor.get(path))
    assert token
    assert print_
    data = {"csrf_token": token[1], "fingerprint": print_[1], "comment": "not on a Friday"}
    assert visitor.client.post(f"{path}/reject", data=data).status_code == 303
    assert "not on a Friday" in visitor.get(path)


def test_hold_rollback_and_end_of_hold(visit: Visit, scene: Scene) -> None:
    maya, base = visit("maya"), "/projects/search-api/environments/prod"
    assert maya.send(base, f"{base}/unhold").status_code == 303
    assert maya.send(base, f"{base}/hold", reason="audit").status_code == 303
    assert "Held by maya: audit" in maya.get(base)
    answer = maya.send(base, f"{base}/rollback", release=6, reason="prices are wrong")
    assert answer.status_code == 303
    assert "back to #6" in maya.get(answer.location)


def test_a_run_is_canceled_and_tried_again(visit: Visit, scene: Scene) -> None:
    ana, base = visit("ana"), "/projects/shop/runs/31"
    assert ana.send(base, f"{base}/cancel").status_code == 303
    assert "canceled" in ana.get(base)
    answer = ana.send(base, f"{base}/retry")
    assert answer.location == "/projects/shop/runs/32"
    with scene.services.database.read() as session:
        again = session.query(Run).filter_by(project_id=scene.projects["shop"], number=32).one()
    assert again.retry_of is not None


def test_a_policy_with_faults_comes_back_with_their_places(visit: Visit) -> None:
    text = "environments:\n  - name: dev\n    form: {branches: [main]}\n    target: {kind: swarm}\n"
    answer = visit("maya").send("/projects/handbook/settings", "/projects/handbook/settings", text=text)
    assert answer.status_code == 400
    assert "line 3, column 5" in answer.text
    assert "did you mean &#39;from&#39;?" in answer.text
    assert "form: {branches: [main]}" in answer.text


def test_a_policy_is_applied_and_reads_the_same_again(visit: Visit, scene: Scene) -> None:
    maya, path = visit("maya"), "/projects/handbook/settings"
    template = re.search(r"<textarea[^>]*>\n(.*?)</textarea>", maya.get(path), re.S)
    assert template
    assert maya.send(path, path, text=unescape(template[1])).status_code == 303
    again = re.search(r"<textarea[^>]*>\n(.*?)</textarea>", maya.get(path), re.S)
    assert again
    with scene.services.database.read() as session:
        before = {row.name: row.version for row in session.query(Environment).all()}
    assert maya.send(path, path, text=unescape(again[1])).status_code == 303
    with scene.services.database.read() as session:
        assert {row.name: row.version for row in session.query(Environment).all()} == before


def test_connecting_a_project_shows_its_secret_once(visit: Visit) -> None:
    maya = visit("maya")
    fields = {"slug": "wiki", "where": "hosted"}
    answer = maya.send("/projects/new", "/projects/new", **fields)
    assert answer.status_code == 200
    secret = re.search(r"whsec_[\w+/=]+", answer.text)
    assert secret
    assert secret[0] not in maya.get("/projects/wiki/settings")
    assert "git push towpath main" in maya.get("/projects/wiki")
    assert "already" in maya.send("/projects/new", "/projects/new", **fields).text


def test_a_form_without_its_token_is_refused(visit: Visit, scene: Scene) -> None:
    answer = visit("maya").client.post("/projects/shop/runs/31/cancel")
    assert answer.status_code == 400
    assert "reload the page" in answer.text


def test_wrong_password_and_where_to_go_after_a_right_one(app: Flask, scene: Scene) -> None:
    visitor = Visitor(app.test_client())
    answer = visitor.client.get("/projects/shop")
    assert answer.status_code == 303
    assert answer.location == "/login?next=/projects/shop"
    assert visitor.send("/login", "/login", username="maya", password="wrong password").status_code == 401
    elsewhere = visitor.send("/login", "/login", username="maya", password=PASSWORD, next="//evil.example")
    assert elsewhere.location == "/"


def test_errors_are_pages_that_say_what_to_do(visit: Visit) -> None:
    vic = visit("vic")
    for path, status in (("/nowhere", 404), ("/projects/none", 404), ("/users", 403), ("/promotions/99999", 404)):
        answer = vic.client.get(path)
        assert answer.status_code == status
        assert "To the board" in answer.text


def test_tokens_and_users(visit: Visit) -> None:
    maya = visit("maya")
    made = maya.send("/account", "/account/tokens", name="laptop").text
    secret = re.search(r"tp_[\w-]+", made)
    assert secret
    assert secret[0] not in maya.get("/account")
    assert maya.send("/users", "/users", username="zoe", password=PASSWORD, role="approver").status_code == 303
    assert "zoe" in maya.get("/users")
    assert "fewer than 10" in maya.send("/users", "/users", username="bob", password="short", role="viewer").text


def test_an_installation_without_projects_says_the_next_step(visit: Visit, scene: Scene) -> None:
    maya = visit("maya")
    with scene.services.database.write() as session:
        for row in projects.listing(session):
            projects.delete(session, row, "maya")
    assert "Connect the first project" in maya.get("/")


def test_the_log_has_its_colours_anchors_and_raw_text(visit: Visit) -> None:
    maya = visit("maya")
    page = maya.get("/projects/shop/runs/31?step=integration")
    assert '<span class="bold">$ pytest' in page
    assert '<span class="f31' not in page
    assert 'id="L4"' in page
    assert "downloading 100%" in page
    assert "downloading  57%" not in page
    raw = maya.client.get("/projects/shop/runs/31/steps/integration/log.txt")
    assert raw.mimetype == "text/plain"
    assert b"\x1b[1m$ pytest" in raw.data


def test_the_live_log_goes_on_where_the_page_stopped(visit: Visit) -> None:
    maya = visit("maya")
    page = maya.get("/projects/shop/runs/30?step=unit")
    assert "data-log" not in page  # it has ended
    whole = maya.client.get("/projects/shop/runs/30/steps/unit/log?at=0:0:").text
    assert whole.endswith("event: end\ndata: {}\n\n")
    lines = [line for data in re.findall(r"event: lines\ndata: (.*)", whole) for line in json.loads(data)]
    assert [number for number, _ in lines] == list(range(1, 9))
    assert lines[4][1] == [["", "downloading 100%"]]
    at = re.search(r"id: (\d+:\d+:.*)\n", whole)
    assert at
    rest = maya.client.get("/projects/shop/runs/30/steps/unit/log", headers={"Last-Event-ID": at[1]}).text
    assert "event: lines" not in rest


def test_the_board_takes_few_statements(visit: Visit, scene: Scene) -> None:
    maya, seen = visit("maya"), []
    maya.get("/")
    event.listen(scene.services.database.engine, "before_cursor_execute", lambda *told: seen.append(told[2]))
    maya.get("/")
    assert len([sql for sql in seen if sql.lstrip().upper().startswith("SELECT")]) <= 12


def test_secrets_are_stored_and_forgotten_and_never_shown(visit: Visit, scene: Scene) -> None:
    maya, path = visit("maya"), "/projects/shop/settings"
    into, out = "/projects/shop/secrets", "/projects/shop/secrets/delete"
    assert maya.send(path, into, name="TOKEN", value=" hush-hush ").status_code == 303
    with scene.services.database.read() as session:
        kept = secrets.values(session, scene.services.vault, scene.projects["shop"], ["TOKEN"])
    assert kept == {"TOKEN": " hush-hush "}
    page = maya.get(path)
    assert "version 1 · set by maya" in page
    for name, value, status in (("TO KEN", "hush-hush", 400), ("TOKEN", "hush" * 20_000, 413), ("TOKEN", "", 400)):
        answer = maya.send(path, into, name=name, value=value)
        assert answer.status_code == status
        assert 'role="alert"' in answer.text
        assert f'name="name" maxlength="128" pattern="[A-Za-z_][A-Za-z0-9_]*" value="{name}"' in answer.text
        assert "hush" not in answer.text + page
    assert maya.send(path, out, name="TOKEN").status_code == 303
    assert "TOKEN is forgotten" in (page := maya.get(path))
    assert "set by maya" not in page


def test_secrets_are_for_admins(visit: Visit) -> None:
    leo = visit("leo")
    for path in ("/projects/shop/secrets", "/projects/shop/secrets/delete"):
        assert leo.client.post(path, data={"name": "TOKEN", "value": "hush-hush"}).status_code == 403
