"""Signing in with a browser: cookies, forms that are ours, guesses that are slowed."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
import redis
from flask import Flask
from flask.testing import FlaskClient
from redis.backoff import NoBackoff
from redis.retry import Retry
from werkzeug.test import TestResponse

from cd.identity import users
from cd.identity.people import Role
from cd.web import login
from cd.web.app import create_app
from cd.web.context import COOKIE
from cd.wiring import Services

PASSWORD = "correct horse battery"


@pytest.fixture(autouse=True)
def ada(services: Services) -> None:
    with services.database.write() as session:
        users.create(session, "towpath", "ada", PASSWORD, Role.admin)


def form_token(client: FlaskClient, path: str = "/login") -> str:
    found = re.search(r'name="csrf_token"[^>]*value="([^"]+)"', client.get(path).text)
    assert found is not None
    return found[1]


def sign_in(client: FlaskClient, password: str = PASSWORD, **more: str) -> TestResponse:
    form = {"csrf_token": form_token(client), "username": "ada", "password": password, **more}
    return client.post("/login", data=form)


def test_a_session_lets_in_and_ends_with_signing_out(anonymous: FlaskClient) -> None:
    assert anonymous.get("/").status_code == 303
    answer = sign_in(anonymous)
    assert (answer.status_code, answer.location) == (303, "/")
    cookie = next(one for one in answer.headers.getlist("Set-Cookie") if one.startswith(COOKIE))
    assert "HttpOnly" in cookie
    assert "SameSite=Lax" in cookie
    assert "Secure" not in cookie
    assert anonymous.get("/").status_code == 200
    secret = anonymous.get_cookie(COOKIE)
    assert secret is not None
    anonymous.post("/logout", data={"csrf_token": form_token(anonymous, "/account")})
    anonymous.set_cookie(COOKIE, secret.value)
    assert anonymous.get("/").status_code == 303, "the old cookie must be worthless on the server too"


def test_cookies_are_secure_behind_https(
    settings_of: Callable[..., Services], app_of: Callable[[Services], Flask]
) -> None:
    client = app_of(settings_of(public_url="https://towpath.test")).test_client()
    form = {"csrf_token": form_token(client), "username": "ada", "password": PASSWORD}
    cookies = client.post("/login", data=form, base_url="https://towpath.test", headers={
        "Referer": "https://towpath.test/login"}).headers.getlist("Set-Cookie")  # fmt: skip
    assert all("Secure" in cookie for cookie in cookies)


@pytest.mark.parametrize(
    ("target", "goes"),
    [
        ("/projects/demo?before=3", "/projects/demo?before=3"),
        ("//evil.example/", "/"),
        ("https://evil.example/", "/"),
        ("/\\evil.example", "/"),
        ("javascript:alert(1)", "/"),
    ],
)
def test_after_signing_in_only_own_pages_follow(anonymous: FlaskClient, target: str, goes: str) -> None:
    assert sign_in(anonymous, next=target).location == goes


def test_who_is_sent_to_sign_in_comes_back_to_where_they_were(anonymous: FlaskClient) -> None:
    location = anonymous.get("/projects/demo?before=3&x=a%26b").location
    assert location is not None
    assert location.startswith("/login?next=")
    target = anonymous.get(location).text
    assert "/projects/demo?before=3" in target


def test_a_form_without_its_token_is_refused_in_words(anonymous: FlaskClient) -> None:
    answer = anonymous.post("/login", data={"username": "ada", "password": PASSWORD})
    assert answer.status_code == 400
    assert "the form was not taken" in answer.text
    assert "reload the page" in answer.text
    assert anonymous.get_cookie(COOKIE) is None


def test_a_form_with_the_token_of_another_browser_is_refused(app: Flask, anonymous: FlaskClient) -> None:
    token = form_token(app.test_client())
    form_token(anonymous)
    answer = anonymous.post("/login", data={"username": "ada", "password": PASSWORD, "csrf_token": token})
    assert answer.status_code == 400


def test_the_api_with_a_cookie_takes_the_token_too(anonymous: FlaskClient) -> None:
    sign_in(anonymous)
    assert anonymous.get("/api/v1/me").status_code == 200
    answer = anonymous.post("/api/v1/tokens", json={"name": "x"})
    assert (answer.status_code, answer.mimetype) == (400, "application/problem+json")
    token = form_token(anonymous, "/account")
    assert anonymous.post("/api/v1/tokens", json={"name": "x"}, headers={"X-CSRFToken": token}).status_code == 201


def test_the_api_gives_a_token_for_name_and_password(anonymous: FlaskClient) -> None:
    body = {"name": "laptop", "username": "ada", "password": PASSWORD}
    made = anonymous.post("/api/v1/tokens", json=body)
    assert made.status_code == 201
    assert made.json is not None
    me = anonymous.get("/api/v1/me", headers={"Authorization": f"Bearer {made.json['token']}"})
    assert me.json == {"username": "ada", "role": "admin"}
    assert anonymous.post("/api/v1/tokens", json={**body, "password": "wrong"}).status_code == 401
    assert anonymous.post("/api/v1/tokens", json={"name": "laptop"}).status_code == 401


def guess(client: FlaskClient, times: int, username: str = "ada", address: str = "10.0.0.1") -> list[int]:
    body = {"name": "x", "username": username, "password": "wrong"}
    return [
        client.post("/api/v1/tokens", json=body, environ_overrides={"REMOTE_ADDR": address}).status_code
        for _ in range(times)
    ]


def test_after_ten_wrong_guesses_the_right_password_has_to_wait_too(anonymous: FlaskClient) -> None:
    assert guess(anonymous, login.ATTEMPTS + 1) == [401] * login.ATTEMPTS + [429]
    right = {"name": "x", "username": "ada", "password": PASSWORD}
    answer = anonymous.post("/api/v1/tokens", json=right, environ_overrides={"REMOTE_ADDR": "10.0.0.1"})
    assert answer.status_code == 429
    assert answer.headers["Retry-After"] == "60"
    assert guess(anonymous, 1, "bob") == [401]
    other = anonymous.post("/api/v1/tokens", json=right, environ_overrides={"REMOTE_ADDR": "10.0.0.2"})
    assert other.status_code == 201


def test_right_passwords_are_not_counted(anonymous: FlaskClient) -> None:
    body = {"name": "x", "username": "ada", "password": PASSWORD}
    for _ in range(login.ATTEMPTS + 2):
        assert anonymous.post("/api/v1/tokens", json=body).status_code == 201


def test_guesses_are_slowed_without_redis(settings_of: Callable[..., Services], services: Services) -> None:
    from dataclasses import replace

    away = replace(services, redis=redis.Redis(unix_socket_path="/nonexistent", retry=Retry(NoBackoff(), 0)))
    login._own.clear()
    client = create_app(away).test_client()
    assert guess(client, login.ATTEMPTS + 1)[-1] == 429


def test_addresses_of_proxies_are_believed_only_when_told_to(
    services: Services, settings_of: Callable[..., Services]
) -> None:
    body = {"name": "x", "username": "ada", "password": "wrong"}

    def guess_from_many(client: FlaskClient) -> int:
        for number in range(login.ATTEMPTS + 1):
            answer = client.post("/api/v1/tokens", json=body, headers={"X-Forwarded-For": f"10.1.1.{number}"})
        return answer.status_code

    assert guess_from_many(create_app(services).test_client()) == 429
    assert guess_from_many(create_app(settings_of(trusted_proxies=1)).test_client()) == 401
