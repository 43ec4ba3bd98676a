"""`towpath run …`."""

from __future__ import annotations

from typing import Any

import click

from cd.cli import output
from cd.cli.client import Client, connect, part
from cd.cli.output import json_option
from cd.cli.project import show_runs

GOOD = "passed"

project_argument = click.argument("project")
number_argument = click.argument("number", type=click.IntRange(1))
follow_option = click.option("-f", "--follow", is_flag=True, help="Follow its log to the end.")


def where(project: str, number: int | None = None) -> str:
    """Path of a project's runs, or of one of them."""
    runs = f"/projects/{part(project)}/runs"
    return runs if number is None else f"{runs}/{number}"


@click.group()
def run() -> None:
    """Start, watch and end runs."""


@run.command()
@project_argument
@click.option("--ref", default="main", show_default=True, help="Branch, tag or full ref.")
@follow_option
@json_option
@click.pass_context
def start(ctx: click.Context, project: str, ref: str, follow: bool, as_json: bool) -> None:
    """Start a run of what a branch or tag is now."""
    client = connect()
    _started(ctx, client, project, client.post(where(project), ref=ref), follow=follow, as_json=as_json)


@run.command()
@project_argument
@number_argument
@click.option("--failed", is_flag=True, help="Only what did not pass; refused when nothing failed.")
@click.option("--fresh", is_flag=True, help="Build and test everything again, whatever is known.")
@follow_option
@json_option
@click.pass_context
def retry(
    ctx: click.Context, *, project: str, number: int, failed: bool, fresh: bool, follow: bool, as_json: bool
) -> None:
    """Run a commit once more: what is known stands, and what passed in a run that did not pass is kept.

    With --fresh nothing is kept.
    """
    if failed and fresh:
        raise click.UsageError("give either --failed or --fresh")
    client = connect()
    again = client.post(f"{where(project, number)}/retry", fresh=fresh, failed=failed)
    _started(ctx, client, project, again, follow=follow, as_json=as_json)


def _started(ctx: click.Context, client: Client, project: str, made: Any, *, follow: bool, as_json: bool) -> None:
    if as_json:
        output.show_json(made)
    else:
        click.echo(f"run #{made['number']} {client.url}/projects/{part(project)}/runs/{made['number']}")
    if follow:
        _follow(ctx, client, project, made["number"])


@run.command("list")
@project_argument
@click.option("--limit", type=click.IntRange(1), default=20, show_default=True, help="How many at most.")
@json_option
def list_(project: str, limit: int, as_json: bool) -> None:
    """List runs, newest first."""
    items = connect().pages(where(project), limit)
    if as_json:
        output.show_json(items)
        return
    show_runs(items)


@run.command()
@project_argument
@number_argument
@json_option
def show(project: str, number: int, as_json: bool) -> None:
    """Show a run with its build and stages."""
    show_run(connect().get(where(project, number)), as_json)


@run.command()
@project_argument
@number_argument
@json_option
def cancel(project: str, number: int, as_json: bool) -> None:
    """End a run; its containers are stopped."""
    show_run(connect().post(f"{where(project, number)}/cancel"), as_json)


@run.command()
@project_argument
@number_argument
@click.argument("step", required=False)
@follow_option
@click.option("--grep", metavar="TEXT", help="Only lines with this text, in either case, behind their numbers.")
@click.option("--times", is_flag=True, help="Each line behind its time and how many seconds passed to the next.")
@click.pass_context
def logs(
    ctx: click.Context, *, project: str, number: int, step: str | None, follow: bool, grep: str | None, times: bool
) -> None:
    """Print the log of a step (`build`, or a stage), or of all of them one after the other.

    With -f and no STEP the run is followed to its end, each line behind the name of its step; the status is 0 when it
    passed, 1 when it did not.
    """
    if follow + times + (grep is not None) > 1:
        raise click.UsageError("give one of --follow, --grep and --times")
    client = connect()
    if grep is not None or times:
        steps = [step] if step else [one["name"] for one in client.get(where(project, number))["steps"]]
        for name in steps:
            click.secho(f"── {name}", bold=True, err=True)
            _looked(client, f"{where(project, number)}/steps/{part(name)}/log", grep)
        return
    if follow and step is None:
        _follow(ctx, client, project, number)
    elif step is not None:
        _print(client, project, number, step, follow)
    else:
        for one in client.get(where(project, number))["steps"]:
            click.secho(f"── {one['name']}: {one['state']}", bold=True, err=True)
            _print(client, project, number, one["name"], follow=False)


def _print(client: Client, project: str, number: int, step: str, follow: bool) -> None:
    from cd.cli import following

    for line in following.lines(client, where(project, number), step, follow):
        click.echo(line)


def _looked(client: Client, log: str, grep: str | None) -> None:
    """Print a log with times, or what a search over all of it finds, page by page."""
    if grep is None:
        for data in client.stream(log, times="true"):
            click.echo(data, nl=False)
        return
    cursor: str | None = ""
    while cursor is not None:
        page = client.get(f"{log}/search", q=grep, limit=1000, cursor=cursor)
        for one in page["items"]:
            click.echo(f"{one['line']}: " + output.plain(one["before"] + one["found"] + one["after"]))
        cursor = page["next"]


def _follow(ctx: click.Context, client: Client, project: str, number: int) -> None:
    from cd.cli import following

    ended = following.follow(client, where(project, number))
    reason = f": {output.plain(ended['reason'])}" if ended["reason"] else ""
    click.secho(f"run #{number} {ended['state']}{reason}", bold=True, fg=output.STATES.get(ended["state"]), err=True)
    if ended["state"] != GOOD:
        ctx.exit(1)


def _why(step: Any) -> str:
    """Its reason; for a step that waits why, and about how long."""
    wait = step.get("waits")
    if not wait:
        return str(step["reason"])
    about = "" if wait["seconds"] is None else f"; about {round(wait['seconds'])} s"
    return f"{wait['reason']}{about}"


def show_run(told: Any, as_json: bool) -> None:
    """One run, with all that can be told of it."""
    if as_json:
        output.show_json(told)
        return
    output.facts(
        [
            ("run", f"#{told['number']} of {told['slug']}"),
            ("state", told["state"]),
            ("reason", told["reason"]),
            ("ref", output.branch(told["ref"])),
            ("commit", told["sha"]),
            ("subject", told["subject"]),
            ("author", told["author"]),
            ("pushed by", told["pusher"]),
            ("trusted", "" if told["trusted"] else "no: it is from a fork"),
            ("image", told["image"]),
            ("release", f"#{told['release']}" if told["release"] else ""),
            ("took", output.lasted(told["started_at"], told["finished_at"])),
            *(("note", note) for note in told["notes"]),
        ]
    )
    click.echo()
    rows = [
        (
            step["name"],
            step["state"],
            output.lasted(step["started_at"], step["finished_at"]),
            ", ".join(step["needs"]),
            _why(step),
        )
        for step in told["steps"]
    ]
    output.table(("STEP", "STATE", "TOOK", "NEEDS", "REASON"), rows, "no steps")
