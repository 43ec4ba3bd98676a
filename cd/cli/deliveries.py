"""`towpath deliveries …`."""

from __future__ import annotations

import click

from cd.cli import output
from cd.cli.client import connect, part
from cd.cli.output import json_option

number = click.argument("delivery", type=click.IntRange(1))


@click.group()
def deliveries() -> None:
    """Look at received webhooks."""


@deliveries.command("list")
@click.argument("project")
@click.option("--limit", type=click.IntRange(1), default=20, show_default=True, help="How many at most.")
@json_option
def list_(project: str, limit: int, as_json: bool) -> None:
    """List the webhooks that a project received, newest first."""
    items = connect().pages(f"/projects/{part(project)}/deliveries", limit)
    if as_json:
        output.show_json(items)
        return
    rows = [
        (
            one["id"],
            output.ago(one["received_at"]),
            one["event"],
            one["outcome"],
            f"#{one['run']}" if one["run"] else "",
            one["reason"],
        )
        for one in items
    ]
    output.table(("DELIVERY", "RECEIVED", "EVENT", "OUTCOME", "RUN", "REASON"), rows, "no webhooks yet")


@deliveries.command()
@number
@json_option
def show(delivery: int, as_json: bool) -> None:
    """Show one webhook with its headers, and its body as it came."""
    told = connect().get(f"/deliveries/{delivery}")
    if as_json:
        output.show_json(told)
        return
    shown = ("id", "delivery_id", "event", "received_at", "outcome", "reason", "run")
    output.facts([*((name, told[name]) for name in shown), *sorted(told["headers"].items())])
    click.echo()
    for line in told["body"].split("\n"):
        click.echo(output.log_line(line, colours=False))


@deliveries.command()
@number
@json_option
def replay(delivery: int, as_json: bool) -> None:
    """Do again what a webhook calls for: a new run, even if there was one."""
    told = connect().post(f"/deliveries/{delivery}/replay")
    if as_json:
        output.show_json(told)
        return
    output.facts([("outcome", told["outcome"]), ("reason", told["reason"]), ("run", told["run"])])
