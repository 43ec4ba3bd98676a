"""From the bytes of `.towpath.yml` to a Pipeline."""

from __future__ import annotations

from typing import Any

from cd.documents import load
from cd.pipeline.definition import Pipeline, across

FILE = ".towpath.yml"


def parse(text: bytes, name: str = FILE) -> Pipeline:
    """Read a pipeline file. Raises cd.documents.DocumentError with every fault's line, column and remedy."""
    return load(text, Pipeline, name, across)


def json_schema() -> dict[str, Any]:
    """JSON Schema of the file, for editors: all but what concerns several places, such as needs and sums of cells."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **Pipeline.model_json_schema(by_alias=True),
        "title": "Towpath pipeline file",
    }
