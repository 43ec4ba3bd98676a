"""`towpath schema`."""

from __future__ import annotations

import click

from cd.cli import output


@click.command()
def schema() -> None:
    """Print the JSON Schema of the pipeline file, for editors.

    A server has the same at /schema/pipeline.json.
    """
    from cd.pipeline.parse import json_schema

    output.show_json(json_schema())
