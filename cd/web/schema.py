"""What editors ask for: the JSON Schema of the pipeline file."""

from __future__ import annotations

from flask import Blueprint, jsonify
from flask.typing import ResponseReturnValue

from cd.pipeline.parse import json_schema
from cd.web.context import access

blueprint = Blueprint("schema", __name__)


@blueprint.get("/schema/pipeline.json")
@access(None)
def pipeline() -> ResponseReturnValue:
    """Open to everybody, from any origin: an editor has no account, and it holds nothing of this server."""
    response = jsonify(json_schema())
    response.content_type = "application/schema+json"
    response.headers["Access-Control-Allow-Origin"] = "*"
    response.headers["Cross-Origin-Resource-Policy"] = "cross-origin"
    response.cache_control.public, response.cache_control.max_age = True, 3600
    return response
