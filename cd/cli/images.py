"""`towpath images`."""

from __future__ import annotations

import click

from cd.cli import output
from cd.cli.client import connect
from cd.cli.output import json_option


@click.command()
@json_option
def images(as_json: bool) -> None:
    """Show what images take of the engine's disk, and what needs them."""
    told = connect().get("/images")
    if as_json:
        output.show_json(told)
        return
    output.facts(
        [
            ("images", str(told["count"])),
            ("together", f"{told['bytes'] / (1 << 20):,.0f} MiB"),
            ("bound", f"{told['limit'] / (1 << 20):,.0f} MiB (TOWPATH_IMAGES_LIMIT)"),
        ]
    )
    rows = [
        (
            one["why"] or "nothing: they go when room is needed",
            str(one["count"]),
            f"{one['bytes'] / (1 << 20):,.0f} MiB",
        )
        for one in told["reasons"]
    ]
    if rows:
        click.echo()
        output.table(("NEEDED BY", "IMAGES", "SIZE, SHARED LAYERS TOO"), rows, "")
