"""Nobody gets further than their role: every address is tried anonymously and as each role."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.routing import Rule

from cd.identity.people import Role
from cd.pipeline.records import Project
from cd.web import live
from cd.web.context import access_of
from cd.wiring import Services

#: What may be called without signing in. A further line is a decision.
PUBLIC = {
    "GET /healthz",
    "GET /readyz",
    "GET /favicon.ico",
    "GET /static/<version>/<name>",
    "GET /login",
    "POST /login",
    "GET /api/v1/openapi.json",
    "GET /schema/pipeline.json",
    "POST /api/v1/tokens",
    "POST /hooks/<project>",
}
#: What takes more than looking. All that is left takes a viewer.
NEEDED = {
    "POST /api/v1/projects": Role.admin,
    "DELETE /api/v1/projects/<slug>": Role.admin,
    "PATCH /api/v1/projects/<slug>": Role.admin,
    "PUT /api/v1/projects/<slug>/environments": Role.admin,
    "GET /api/v1/projects/<slug>/secrets": Role.admin,
    "PUT /api/v1/projects/<slug>/secrets/<name>": Role.admin,
    "DELETE /api/v1/projects/<slug>/secrets/<name>": Role.admin,
    "POST /api/v1/projects/<slug>/environments/<name>/hold": Role.approver,
    "DELETE /api/v1/projects/<slug>/environments/<name>/hold": Role.approver,
    # What follows is narrowed further by the environment's policy, which may name anybody as approver.
    "POST /api/v1/projects/<slug>/environments/<name>/rollback": Role.developer,
    "POST /api/v1/promotions/<int:promotion>/approve": Role.viewer,
    "POST /api/v1/promotions/<int:promotion>/reject": Role.viewer,
    "POST /api/v1/projects/<slug>/promotions": Role.developer,
    "POST /api/v1/promotions/<int:promotion>/cancel": Role.developer,
    "POST /api/v1/projects/<slug>/runs": Role.developer,
    "POST /api/v1/projects/<slug>/runs/<int:number>/cancel": Role.developer,
    "POST /api/v1/projects/<slug>/runs/<int:number>/retry": Role.developer,
    "POST /api/v1/projects/<slug>/runs/<int:number>/steps/<step>/shell": Role.developer,
    "GET /api/v1/shells/<shell>": Role.developer,
    "POST /api/v1/shells/<shell>/input": Role.developer,
    "DELETE /api/v1/shells/<shell>": Role.developer,
    "GET /api/v1/images": Role.admin,
    "GET /api/v1/users": Role.admin,
    "POST /api/v1/users": Role.admin,
    "PATCH /api/v1/users/<username>": Role.admin,
    "POST /api/v1/deliveries/<int:delivery>/replay": Role.admin,
    "DELETE /api/v1/tokens/<int:token>": Role.viewer,
}


@pytest.fixture
def app(services: Services) -> Iterator[Flask]:
    """The whole application, pages and all."""
    from cd.wsgi import application

    made = application(services)
    yield made
    made.extensions[live.HUB].close()


VALUES = {
    "slug": "demo",
    "project": "demo",
    "name": "dev",
    "step": "build",
    "username": "nobody",
    "version": "x",
    "token": 999,
}


def calls(app: Flask) -> Iterator[tuple[str, str, Rule]]:
    for rule in app.url_map.iter_rules():
        for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}):
            yield f"{method} {rule.rule}", method, rule


def address(app: Flask, rule: Rule) -> str:
    values = {name: VALUES.get(name, 1) for name in rule.arguments}
    return str(app.url_map.bind("localhost").build(rule.endpoint, values))


def status(client: FlaskClient, method: str, path: str) -> int:
    with client.open(path, method=method, json=None if method == "GET" else {}) as answer:
        return answer.status_code


def test_every_address_says_for_whom_it_is(app: Flask) -> None:
    silent = [name for name, _, rule in calls(app) if access_of(app, rule.endpoint) is None]
    assert silent == []


def test_the_roles_are_those_that_were_decided(app: Flask) -> None:
    for name, method, rule in calls(app):
        found = access_of(app, rule.endpoint)
        assert found is not None
        if name in PUBLIC:
            assert found.role is None, name
        elif rule.rule.startswith("/api/"):
            assert found.role is NEEDED.get(name, Role.viewer), name
            assert method == "GET" or name in NEEDED, f"{name} changes something and is not decided"
        else:
            assert found.role is not None, name


def test_anonymous_gets_nothing_that_is_not_public(app: Flask, anonymous: FlaskClient, project: Project) -> None:
    for name, method, rule in calls(app):
        if name in PUBLIC:
            continue
        answer = status(anonymous, method, address(app, rule))
        assert answer in ((401,) if rule.rule.startswith("/api/") else (303, 401)), name


def test_each_role_is_refused_what_it_lacks(app: Flask, clients: dict[str, FlaskClient], project: Project) -> None:
    tried = 0
    for name, method, rule in calls(app):
        found = access_of(app, rule.endpoint)
        assert found is not None
        for role in Role:
            if found.role is None or "/logout" in name:
                continue
            answer = status(clients[role], method, address(app, rule))
            tried += 1
            if role.allows(found.role):
                assert answer not in (401, 500), (name, role, answer)
            else:
                assert answer == 403, (name, role, answer)
    assert tried > 100


def test_a_view_without_a_rule_is_closed_to_all(app: Flask, clients: dict[str, FlaskClient]) -> None:
    app.add_url_rule("/api/forgotten", "forgotten", lambda: "secret")
    answer = clients["admin"].get("/api/forgotten")
    assert answer.status_code == 403
    assert "secret" not in answer.text


def test_a_wrong_token_is_nobody_even_beside_a_good_cookie(app: Flask, clients: dict[str, FlaskClient]) -> None:
    client = app.test_client()
    for value in ("Bearer tp_wrong", "Bearer ", "Bearer", "Basic YTpi", "bearer \xff"):
        assert client.get("/api/v1/me", headers={"Authorization": value}).status_code == 401


def test_what_is_open_tells_no_names(app: Flask, anonymous: FlaskClient, project: Project) -> None:
    for path in ("/healthz", "/readyz", "/api/v1/openapi.json"):
        answer = anonymous.get(path)
        assert answer.status_code == 200
        assert "git.example.org" not in answer.text
