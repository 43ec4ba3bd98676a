"""`towpath tests …`."""

from __future__ import annotations

from typing import Any

import click

from cd.cli import output
from cd.cli.client import connect, part
from cd.cli.output import json_option
from cd.cli.run import number_argument, project_argument, where

STATES = ("passed", "failed", "error", "skipped")


@click.group()
def tests() -> None:
    """Look at the tests that stages reported."""


@tests.command()
@project_argument
@number_argument
@click.argument("stage", required=False)
@click.option("--state", type=click.Choice(STATES), help="Only tests of STAGE that came out like this.")
@click.option("--search", default="", help="Only tests of STAGE with this in their name.")
@json_option
def show(*, project: str, number: int, stage: str | None, state: str | None, search: str, as_json: bool) -> None:
    """Show the counts of a run and what failed; with STAGE all of its tests."""
    client = connect()
    if stage is None:
        _show_run(client.get(f"{where(project, number)}/tests")["items"], as_json)
        return
    path = f"{where(project, number)}/steps/{part(stage)}/tests"
    _show_results(client.pages(path, 100_000, state=state, search=search or None), as_json)


@tests.command("list")
@project_argument
@click.option(
    "--order",
    type=click.Choice(("failing", "slowest", "flaky")),
    default="failing",
    show_default=True,
    help="Which ones; a flaky test passed and failed with the same image and stage key.",
)
@click.option("--limit", type=click.IntRange(1, 200), default=20, show_default=True, help="How many at most.")
@json_option
def list_(project: str, order: str, limit: int, as_json: bool) -> None:
    """List the tests of the last 50 runs that fail, take long, or are flaky."""
    items = connect().get(f"/projects/{part(project)}/tests", order=order, limit=limit)["items"]
    if as_json:
        output.show_json(items)
        return
    rows = [
        (
            one["id"],
            one["stage"],
            _name(one),
            f"{one['failures']} of {one['runs']}",
            one["flips"] or "",
            _seconds(one["mean_seconds"]),
            f"#{one['last_run']}",
        )
        for one in items
    ]
    output.table(("ID", "STAGE", "TEST", "FAILED", "FLAKY", "MEAN", "LAST RUN"), rows, "no such tests")


@tests.command()
@project_argument
@click.argument("test", type=click.IntRange(1))
@json_option
def history(project: str, test: int, as_json: bool) -> None:
    """Show how a test came out in the last runs; TEST is its id, as `towpath tests list` and `show` say."""
    told = connect().get(f"/projects/{part(project)}/tests/{test}")
    if as_json:
        output.show_json(told)
        return
    output.facts([("test", _name(told)), ("stage", told["stage"])])
    click.echo()
    rows = [
        (
            f"#{one['run_number']}" + (f" ({one['attempt']})" if one["attempt"] > 1 else ""),
            one["state"],
            _seconds(one["seconds"]),
            output.branch(one["ref"]),
            one["sha"][:8],
            output.ago(one["at"]),
            "flaky" if one["flaky"] else "",
            one["text"].split("\n", 1)[0][:100],
        )
        for one in told["past"]
    ]
    output.table(("RUN", "STATE", "TOOK", "BRANCH", "COMMIT", "WHEN", "", "SAID"), rows, "no results")


def _show_run(items: list[Any], as_json: bool) -> None:
    if as_json:
        output.show_json(items)
        return
    rows = []
    for one in items:
        counts = one["summary"]
        rows.append(
            (
                one["step"],
                *(counts[name] for name in ("tests", "passed", "failed", "errors", "skipped")),
                _seconds(counts["seconds"]),
                f"#{one['reused']}" if one["reused"] else "",
            )
        )
    output.table(("STAGE", "TESTS", "PASSED", "FAILED", "ERRORS", "SKIPPED", "TOOK", "FROM"), rows, "no reports")
    for one in items:
        for result in one["failures"]:
            click.echo()
            click.secho(f"{output.plain(one['step'])}: {_name(result)}", bold=True)
            for line in result["text"].splitlines():
                click.echo(f"  {output.log_line(line, colours=False)}")


def _show_results(items: list[Any], as_json: bool) -> None:
    if as_json:
        output.show_json(items)
        return
    rows = [
        (one["id"], one["state"], _seconds(one["seconds"]), _name(one), one["text"].split("\n", 1)[0][:100])
        for one in items
    ]
    output.table(("ID", "STATE", "TOOK", "TEST", "SAID"), rows, "no such tests")


def _name(one: Any) -> str:
    return output.plain(f"{one['classname']} {one['name']}".strip() or "(no name)")


def _seconds(value: float) -> str:
    from cd.units import format_seconds

    return format_seconds(value)
