"""Errors as answers: RFC 9457 for programs, a page for people."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

import structlog
from flask import Flask, Response, current_app, json, redirect, request
from flask.typing import ResponseReturnValue
from markupsafe import escape
from pydantic import BaseModel, Field, ValidationError
from sqlalchemy.exc import DataError, IntegrityError
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge

from cd.documents import DocumentError
from cd.errors import ServiceError, StaleWrite, TowpathError, Unauthorized, UserError
from cd.web.login import SECONDS, TooMany

log = structlog.get_logger()

#: Draws an error page: status, message, remedy. Pages put theirs into `app.extensions` under this name.
PAGE = "towpath_error_page"
Page = Callable[[int, str, str], ResponseReturnValue]


class FaultModel(BaseModel):
    """One thing wrong in what was sent: in a file by line and column from 1, in a request by `location`."""

    location: str = Field("", description="JSON pointer into the body, or the parameter's name.")
    line: int | None = None
    column: int | None = None
    message: str
    remedy: str = ""


class Problem(BaseModel):
    """What went wrong, as RFC 9457 says it."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    where: str = Field("", description="The place that is meant, where there is one.")
    remedy: str = Field("", description="What to do about it.")
    faults: list[FaultModel] = Field(default=[], description="Everything that is wrong in what was sent, in its order.")


def answer(problem: Problem) -> Response:
    """The problem as a response."""
    content = problem.model_dump(mode="json", exclude_defaults=True) | {"type": problem.type}
    return Response(json.dumps(content) + "\n", problem.status, mimetype="application/problem+json")


def make(status: int, detail: str, **more: Any) -> Problem:
    """A problem whose title is the phrase of its status."""
    return Problem(title=HTTPStatus(status).phrase, status=status, detail=detail, **more)


def of(error: TowpathError) -> Problem:
    """What to say of an error of Towpath."""
    match error:
        case DocumentError():
            faults = [
                FaultModel(line=one.line, column=one.column, message=one.message, remedy=one.remedy)
                for one in error.faults
            ]
            return make(error.status, f"{error.name} can't be taken", where=error.name, faults=faults)
        case UserError():
            return make(error.status, error.message, where=error.where, remedy=error.remedy)
        case ServiceError():
            return make(503, error.message, remedy=error.remedy or "try again in a moment")
        case _:
            return make(409, "it has changed meanwhile", remedy="look at it again and decide anew")


def register(app: Flask) -> None:
    """Every error gets an answer: of Towpath, of HTTP, and those that nobody thought of."""
    app.register_error_handler(TowpathError, _towpath)
    app.register_error_handler(HTTPException, _http)
    app.register_error_handler(IntegrityError, _twice)
    app.register_error_handler(DataError, _unstorable)
    app.register_error_handler(RecursionError, _too_deep)
    app.register_error_handler(Exception, _unexpected)


def for_programs() -> bool:
    """Whether the request is one of a program, which wants JSON."""
    return request.path.startswith(("/api/", "/hooks/", "/healthz", "/readyz", "/metrics"))


def _towpath(error: TowpathError) -> ResponseReturnValue:
    if not isinstance(error, UserError | StaleWrite):
        log.warning("request.failed", path=request.path, error=str(error))
    wants_login = isinstance(error, Unauthorized) and not for_programs() and request.method == "GET"
    if wants_login and "ui" in current_app.blueprints:
        return redirect(f"/login?next={quote(request.full_path.rstrip('?'))}", 303)
    response = _said(of(error))
    if isinstance(error, Unauthorized):
        response.headers["WWW-Authenticate"] = 'Bearer realm="Towpath"'
    if isinstance(error, ServiceError | TooMany):
        response.headers["Retry-After"] = str(SECONDS if isinstance(error, TooMany) else 5)
    return response


def _http(error: HTTPException) -> ResponseReturnValue:
    if error.response is not None or error.code is None or error.code < 400:
        return error.get_response()
    detail = error.description or HTTPStatus(error.code).phrase
    if isinstance(error, RequestEntityTooLarge):
        detail = f"the body is over {(current_app.config['MAX_CONTENT_LENGTH'] or 0) >> 10} KiB"
    elif error.code == 404:
        detail = "there is nothing at this address"
    response = _said(make(error.code, detail))
    for name, value in error.get_headers():
        if name in {"Allow", "Retry-After"}:
            response.headers[name] = value
    return response


def _twice(error: IntegrityError) -> ResponseReturnValue:
    log.warning("request.conflict", path=request.path, error=str(error.orig))
    return _said(make(409, "somebody else made the same at the same time", remedy="look at it again"))


def _unstorable(error: DataError) -> ResponseReturnValue:
    log.warning("request.unstorable", path=request.path, error=str(error.orig))
    return _said(make(400, "a value can't be stored", remedy="leave out NUL characters, make it shorter or smaller"))


def _too_deep(error: RecursionError) -> ResponseReturnValue:
    log.warning("request.too_deep", path=request.path, exc_info=error)
    return _said(make(400, "the body is nested too deeply", remedy="make it flatter"))


def _unexpected(error: Exception) -> ResponseReturnValue:
    number = uuid.uuid4().hex[:12]
    log.exception("request.broke", path=request.path, number=number)
    return _said(make(500, f"something broke in Towpath; the log has it as {number}", remedy="tell an admin"))


def _said(problem: Problem) -> Response:
    if for_programs():
        return answer(problem)
    page: Page = current_app.extensions.get(PAGE, _plain)
    text = f"{problem.where}: {problem.detail}" if problem.where else problem.detail
    try:
        return current_app.make_response(page(problem.status, text, problem.remedy))
    except Exception as error:  # noqa: BLE001 - the menu of a page may need the very thing that is away
        log.warning("request.no_error_page", error=str(error))
        return current_app.make_response(_plain(problem.status, text, problem.remedy))


def _plain(status: int, message: str, remedy: str) -> ResponseReturnValue:
    title = f"{status} {HTTPStatus(status).phrase}"
    return (
        f"<!doctype html><html lang=en><title>{title}</title><h1>{title}</h1><p>{escape(message)}<p>{escape(remedy)}\n",
        status,
    )


def invalid(error: ValidationError) -> Response:
    """The answer to a request that does not fit its model."""
    if _not_json():
        return answer(make(400, "the body is not JSON", remedy="send JSON with Content-Type: application/json"))
    faults = [
        FaultModel(
            location="/" + "/".join(str(part) for part in one["loc"]), message=one["msg"].removeprefix("Value error, ")
        )
        for one in error.errors()
    ]
    detail = "; ".join(f"{one.location}: {one.message}" for one in faults[:5])
    return answer(make(422, detail, faults=faults, remedy="see /api/v1/openapi.json"))


def _not_json() -> bool:
    if request.method in {"GET", "HEAD", "DELETE"}:
        return False
    return not isinstance(request.get_json(silent=True), dict)


def documented(statuses: Sequence[int]) -> dict[str | int, Any]:
    """For the description of the API: these answers are problems."""
    schema = {"schema": {"$ref": "#/components/schemas/Problem"}}
    return {
        str(status): {"description": HTTPStatus(status).phrase, "content": {"application/problem+json": schema}}
        for status in statuses
    }
