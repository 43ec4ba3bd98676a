"""Errors as answers: RFC 9457 problem+json for programs, a page for people."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

import structlog
from flask import Flask, Response, current_app, request
from flask.typing import ResponseReturnValue
from flask_wtf.csrf import CSRFError
from pydantic import ValidationError
from werkzeug.exceptions import HTTPException

from cd.documents import DocumentError
from cd.errors import ServiceError, StaleWrite, TowpathError, UserError

log = structlog.get_logger()

#: (status, message, remedy) -> answer; how the pages show an error. Set by whoever adds pages.
PAGE = "towpath.error_page"
Page = Callable[[int, str, str], ResponseReturnValue]


def register(app: Flask) -> None:
    """Answer every error."""
    app.register_error_handler(TowpathError, _towpath)
    app.register_error_handler(CSRFError, _form)
    app.register_error_handler(HTTPException, _http)
    app.register_error_handler(Exception, _unexpected)


def for_programs() -> bool:
    """Whether whoever asks wants JSON."""
    return request.path.startswith(("/api/", "/hooks/", "/healthz", "/readyz", "/metrics"))


def problem(status: int, message: str, remedy: str = "", faults: list[dict[str, Any]] | None = None) -> Response:
    """A problem+json answer. `faults` say line and column, or the location in the body, of each fault."""
    body: dict[str, Any] = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": message,
    }
    if remedy:
        body["remedy"] = remedy
    if faults:
        body["faults"] = faults
    return Response(json.dumps(body) + "\n", status, mimetype="application/problem+json")


def _answer(status: int, message: str, remedy: str = "", faults: list[dict[str, Any]] | None = None) -> Any:
    page: Page | None = current_app.extensions.get(PAGE)
    if for_programs() or page is None:
        return problem(status, message, remedy, faults)
    return page(status, message, remedy)


def _towpath(error: TowpathError) -> Any:
    if isinstance(error, DocumentError):
        faults = [
            {"line": one.line, "column": one.column, "message": one.message, "remedy": one.remedy}
            for one in error.faults
        ]
        return _answer(error.status, str(error), "mend the file", faults)
    if isinstance(error, UserError):
        message = f"{error.where}: {error.message}" if error.where else error.message
        return _answer(error.status, message, error.remedy)
    if isinstance(error, StaleWrite):
        return _answer(409, "it has changed meanwhile", "look again and decide anew")
    if isinstance(error, ServiceError):
        log.warning("web.service_error", error=str(error), path=request.path)
        answer = current_app.make_response(_answer(503, error.message, error.remedy))
        answer.headers["Retry-After"] = "5"
        return answer
    raise error


def _form(error: CSRFError) -> Any:
    return _answer(400, "this form is too old, or was not sent from Towpath's own page", "load the page anew")


def _http(error: HTTPException) -> Any:
    if error.response is not None or error.code is None or error.code < 400:
        return error
    answer = current_app.make_response(_answer(error.code, error.description or error.name))
    for name, value in error.get_headers():
        if name.lower() not in ("content-type", "content-length"):
            answer.headers[name] = value
    return answer


def _unexpected(error: Exception) -> Any:
    number = secrets.token_hex(4)
    log.error("web.broke", number=number, path=request.path, exc_info=error)
    return _answer(500, f"something broke; it is in the log under {number}", "try again, or tell the operator")


def invalid(error: ValidationError) -> Response:
    """What pydantic found wrong in a request, each fault with its place."""
    faults = [
        {
            "location": ".".join(str(part) for part in one["loc"]) or "body",
            "message": str(one["msg"]).removeprefix("Value error, "),
            "remedy": "",
        }
        for one in error.errors()
    ]
    return problem(422, "the request has faults", "see the API's description at /api/v1/openapi.json", faults)
