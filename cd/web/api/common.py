"""What the API's modules share."""

from __future__ import annotations

from flask import Response
from flask_openapi3.blueprint import APIBlueprint
from pydantic import BaseModel

from cd.web import problems

PREFIX = "/api/v1"

#: Answers that any call may give.
PROBLEMS = problems.documented((400, 401, 403, 404, 409, 413, 422, 429, 503))


def part(name: str) -> APIBlueprint:
    """A part of the API: one resource."""
    return APIBlueprint(
        f"api-{name}", __name__, url_prefix=PREFIX, abp_security=[{"bearer": []}], abp_responses=PROBLEMS
    )


def shown(model: BaseModel, status: int = 200) -> Response:
    """A model as the answer."""
    return Response(model.model_dump_json() + "\n", status, mimetype="application/json")
