"""`towpath audit …`."""

from __future__ import annotations

import json

import click

from cd.cli import output
from cd.cli.client import connect
from cd.cli.output import json_option


@click.group()
def audit() -> None:
    """Read and check the audit log."""


@audit.command("list")
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True, help="How many at most.")
@json_option
def list_(limit: int, as_json: bool) -> None:
    """List who decided what, newest first."""
    items = connect().pages("/audit", limit)
    if as_json:
        output.show_json(items)
        return
    rows = [
        (
            one["id"],
            one["at"],
            one["actor"],
            one["action"],
            one["subject"],
            json.dumps(one["detail"]) if one["detail"] else "",
        )
        for one in items
    ]
    output.table(("ENTRY", "WHEN", "WHO", "WHAT", "TO WHAT", "DETAIL"), rows, "no entries")


@audit.command()
@json_option
@click.pass_context
def verify(ctx: click.Context, as_json: bool) -> None:
    """Check that no entry was changed, removed or put between; status 1 when one was."""
    told = connect().get("/audit/verify")
    if as_json:
        output.show_json(told)
    elif told["intact"]:
        click.echo("the audit log is whole")
    else:
        click.echo(f"the audit log is broken: {output.plain(told['broken'])}", err=True)
    if not told["intact"]:
        ctx.exit(1)
