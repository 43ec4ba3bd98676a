"""The pipeline file's schema is there for editors, which have no account."""

from __future__ import annotations

from flask.testing import FlaskClient

from cd.pipeline.parse import json_schema


def test_the_schema_is_open_to_everybody(anonymous: FlaskClient) -> None:
    answer = anonymous.get("/schema/pipeline.json")
    assert answer.status_code == 200
    assert answer.content_type == "application/schema+json"
    assert answer.json == json_schema()
    assert answer.headers["Access-Control-Allow-Origin"] == "*"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Cache-Control"] == "public, max-age=3600"
