"""`/api/v1`: one module a resource, each with a blueprint; `register` adds them all and their description."""

from __future__ import annotations

from flask import Response, jsonify
from flask_openapi3 import OpenAPI

from cd.web.api import artifacts, deliveries, images, logs, people, projects, promotions, runs, secrets, shell, tests
from cd.web.context import access

PREFIX = "/api/v1"
PARTS = (
    projects.api,
    runs.api,
    logs.api,
    promotions.api,
    people.api,
    deliveries.api,
    artifacts.api,
    tests.api,
    secrets.api,
    images.api,
    shell.api,
)


def register(app: OpenAPI) -> None:
    """Add every resource, and the description of them."""
    for part in PARTS:
        app.register_api(part)

    @access(None)
    def description() -> Response:
        """What this API can do, in OpenAPI's words."""
        return jsonify(app.api_doc)

    app.add_url_rule(f"{PREFIX}/openapi.json", "api.description", description)
