"""What the API's modules share."""

from __future__ import annotations

from typing import Any

from flask import Response
from flask_openapi3 import APIBlueprint
from pydantic import BaseModel

from cd.errors import Unauthorized
from cd.identity.people import Person
from cd.web.api.models import Problem
from cd.web.context import person

#: Answers that any call may give.
PROBLEMS: dict[str | int, Any] = dict.fromkeys((400, 401, 403, 404, 409, 413, 422, 503), Problem)


def part(name: str) -> APIBlueprint:
    """A part of the API: one resource."""
    return APIBlueprint(
        f"api-{name}", __name__, url_prefix="/api/v1", abp_security=[{"bearer": []}], abp_responses=PROBLEMS
    )


def who() -> Person:
    """The person asking. Raises Unauthorized."""
    found = person()
    if found is None:
        raise Unauthorized("nobody is signed in", remedy="send a token (Authorization: Bearer …)")
    return found


def shown(model: BaseModel, status: int = 200) -> Response:
    """A model as the answer."""
    return Response(model.model_dump_json() + "\n", status, mimetype="application/json")
