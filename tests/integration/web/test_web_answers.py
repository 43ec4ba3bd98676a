"""Errors and headers of answers: RFC 9457 for programs, clear words in all of them."""

from __future__ import annotations

from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy.exc import IntegrityError
from werkzeug.test import TestResponse

from cd.errors import ServiceError, StaleWrite, UserError
from cd.pipeline.records import Project
from cd.web.context import access
from cd.web.problems import PAGE


def problem(answer: TestResponse, status: int) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.mimetype == "application/problem+json"
    found: dict[str, Any] = answer.get_json(force=True)
    assert found["status"] == status
    assert found["title"]
    assert found["detail"]
    assert found["type"] == "about:blank"
    return found


def test_unknown_addresses_and_methods(anonymous: FlaskClient) -> None:
    problem(anonymous.get("/api/v1/nothing"), 404)
    answer = anonymous.delete("/api/v1/openapi.json")
    problem(answer, 405)
    assert "GET" in answer.headers["Allow"]


def test_who_must_sign_in_is_told_how(anonymous: FlaskClient) -> None:
    answer = anonymous.get("/api/v1/projects")
    assert "Bearer" in problem(answer, 401)["remedy"]
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")


def test_every_wrong_field_is_named(clients: dict[str, FlaskClient]) -> None:
    found = problem(clients["admin"].post("/api/v1/projects", json={"slog": "x", "hosted": "perhaps"}), 422)
    assert {fault["location"] for fault in found["faults"]} == {"/slug", "/slog", "/hosted"}


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"x"', b"\xff", b"null", b"[" * 100_000])
def test_a_body_that_is_no_object(clients: dict[str, FlaskClient], body: bytes) -> None:
    answer = clients["admin"].post("/api/v1/projects", data=body, content_type="application/json")
    assert problem(answer, 400)["detail"] in ("the body is not JSON", "the body is nested too deeply")


def test_faults_of_a_file_have_line_and_column(clients: dict[str, FlaskClient], project: Project) -> None:
    text = "environments:\n  - name: dev\n    promot: auto\n    target: {kind: docker}\n"
    found = problem(clients["admin"].put("/api/v1/projects/demo/environments", data=text), 400)
    fault = next(one for one in found["faults"] if "promot" in one["message"])
    assert (fault["line"], fault["column"]) == (3, 5)
    assert "promote" in fault["remedy"]


def test_too_large_a_body_is_413_on_the_api(clients: dict[str, FlaskClient]) -> None:
    problem(clients["admin"].post("/api/v1/projects", data=b" " * (1 << 20) + b"{}"), 413)
    chunked = {"wsgi.input_terminated": True, "CONTENT_LENGTH": "", "HTTP_TRANSFER_ENCODING": "chunked"}
    answer = clients["admin"].post(
        "/api/v1/projects", data=b" " * (1 << 21), content_type="application/json", environ_overrides=chunked
    )
    problem(answer, 413)


def test_a_webhook_may_be_larger_than_a_form_but_not_any_size(anonymous: FlaskClient, project: Project) -> None:
    problem(anonymous.post("/hooks/demo", data=b"x" * (2 << 20)), 401)
    problem(anonymous.post("/hooks/demo", data=b"x" * ((25 << 20) + 1)), 413)


@pytest.mark.parametrize("path", ["/api/v1/projects/a%00b", "/api/v1/promotions/99999999999999999999", "/projects/%00"])
def test_names_and_numbers_that_can_not_be_are_not_found(clients: dict[str, FlaskClient], path: str) -> None:
    assert clients["admin"].get(path).status_code == 404


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [
        (UserError("wrong", where="here", remedy="do that"), 400, "wrong"),
        (ServiceError("the engine is away"), 503, "engine"),
        (StaleWrite("run 3 is no longer queued"), 409, "changed"),
        (IntegrityError("INSERT", {}, Exception("twice")), 409, "same time"),
        (RuntimeError("password=hunter2"), 500, "log"),
    ],
)
def test_what_goes_wrong_inside(app: Flask, anonymous: FlaskClient, error: Exception, status: int, words: str) -> None:
    @access(None)
    def broken() -> str:
        raise error

    app.add_url_rule("/api/broken", "broken", broken)
    app.add_url_rule("/broken", "broken_page", broken)
    answer = anonymous.get("/api/broken")
    assert words in problem(answer, status)["detail"]
    assert "hunter2" not in answer.text
    assert (status == 503) == ("Retry-After" in answer.headers)
    page = anonymous.get("/broken")
    assert (page.status_code, page.mimetype) == (status, "text/html")
    assert "hunter2" not in page.text


def test_error_pages_show_text_from_outside_as_text(app: Flask, anonymous: FlaskClient) -> None:
    @access(None)
    def broken() -> str:
        raise UserError("<script>alert(1)</script>")

    app.add_url_rule("/broken", "broken", broken)
    assert "<script>alert" not in anonymous.get("/broken").text


def test_an_error_page_that_breaks_itself_is_left_out(app: Flask, anonymous: FlaskClient) -> None:
    def page(status: int, message: str, remedy: str) -> str:
        raise ServiceError("the database is away")

    app.extensions[PAGE] = page
    answer = anonymous.get("/nothing")
    assert answer.status_code == 404
    assert "nothing at this address" in answer.text


@pytest.mark.parametrize("path", ["/healthz", "/login", "/api/v1/projects", "/nothing", "/api/v1/openapi.json"])
def test_every_answer_is_hardened(anonymous: FlaskClient, path: str) -> None:
    headers = anonymous.get(path).headers
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["Referrer-Policy"] == "same-origin"
    assert headers["Cache-Control"] == "no-store"


def test_the_description_has_every_call_of_the_api(app: Flask, anonymous: FlaskClient) -> None:
    described = anonymous.get("/api/v1/openapi.json").json
    assert described is not None
    told = {(method.upper(), path) for path, item in described["paths"].items() for method in item}
    import re

    there = {
        (method, re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule))
        for rule in app.url_map.iter_rules()
        if rule.rule.startswith("/api/v1/") and rule.endpoint != "api.description"
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }
    assert told == there
    for item in described["paths"].values():
        for call in item.values():
            assert "application/problem+json" in call["responses"]["422"]["content"]
            assert call.get("description") or call.get("summary")
    assert "Problem" in described["components"]["schemas"]
