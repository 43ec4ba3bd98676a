"""`towpath project …`."""

from __future__ import annotations

from typing import Any

import click

from cd.cli import output
from cd.cli.client import connect, part
from cd.cli.output import json_option


@click.group()
def project() -> None:
    """Connect repositories."""


@project.command()
@click.argument("slug")
@click.option("--clone-url", help="Where the repository is: https or ssh.")
@click.option("--forge", default="generic", show_default=True, help="Whose webhooks come: github, or generic.")
@click.option("--hosted", is_flag=True, help="Make a repository on the server, to be pushed to without a forge.")
@json_option
def create(slug: str, clone_url: str | None, forge: str, hosted: bool, as_json: bool) -> None:
    """Connect a repository; prints the webhook's URL and secret, which is shown only now."""
    if hosted == (clone_url is not None):
        raise click.UsageError("give either --clone-url or --hosted")
    made = connect().post("/projects", slug=slug, forge=forge, clone_url=clone_url, hosted=hosted)
    if as_json:
        output.show_json(made)
        return
    output.facts(
        [
            ("project", made["slug"]),
            ("push to", made["push_url"]),
            ("webhook URL", made["webhook_url"]),
            ("webhook secret", made["webhook_secret"]),
        ]
    )
    if not hosted:
        click.echo(f"Enter both at {made['forge']}; the secret is not shown again.")


@project.command("list")
@json_option
def list_(as_json: bool) -> None:
    """List all projects."""
    items = connect().get("/projects")["items"]
    if as_json:
        output.show_json(items)
        return
    rows = [
        (one["slug"], one["forge"], one["clone_url"] or "hosted here", output.ago(one["created_at"])) for one in items
    ]
    output.table(("PROJECT", "FORGE", "REPOSITORY", "CONNECTED"), rows, "no projects; make one with `project create`")


@project.command()
@click.argument("slug")
@json_option
def show(slug: str, as_json: bool) -> None:
    """Show a project: its environments, its last releases and runs."""
    client, where = connect(), f"/projects/{part(slug)}"
    told: dict[str, Any] = client.get(where)
    told["environments"] = client.get(f"{where}/environments")["items"]
    told["releases"] = client.get(f"{where}/releases", limit=10)["items"]
    told["runs"] = client.get(f"{where}/runs", limit=10)["items"]
    if as_json:
        output.show_json(told)
        return
    output.facts(
        [("project", told["slug"]), ("forge", told["forge"]), ("repository", told["clone_url"] or "hosted here")]
    )
    click.echo()
    show_environments(told["environments"])
    click.echo()
    show_releases(told["releases"])
    click.echo()
    show_runs(told["runs"])


@project.command()
@click.argument("slug")
@click.option("--yes", is_flag=True, help="Do not ask.")
def delete(slug: str, yes: bool) -> None:
    """Let a project go: what it deployed is removed, its history stays."""
    if not yes:
        click.confirm(f"Delete {slug} and remove what it deployed?", abort=True, err=True)
    connect().delete(f"/projects/{part(slug)}")
    click.echo(f"{output.plain(slug)} is deleted")


def show_environments(items: list[Any]) -> None:
    """Environments with what is live and what wants to be."""
    rows = []
    for one in items:
        live, waiting = one["live"], one["open"]
        rows.append(
            (
                one["name"],
                f"release #{live['release']['number']}" if live else "nothing",
                f"promotion {waiting['id']}: #{waiting['release']['number']} {waiting['state']}" if waiting else "",
                f"{one['held_by']}: {one['hold']}" if one["hold"] is not None else "",
                one["url"],
            )
        )
    output.table(("ENVIRONMENT", "LIVE", "COMING", "HELD BY", "URL"), rows, "no environments; see `environment apply`")


def show_releases(items: list[Any]) -> None:
    """Releases, newest first."""
    rows = [
        (f"#{one['number']}", f"#{one['run_number']}", one["sha"][:12], output.ago(one["created_at"]), one["subject"])
        for one in items
    ]
    output.table(("RELEASE", "RUN", "COMMIT", "MADE", "SUBJECT"), rows, "no releases yet")


def show_runs(items: list[Any]) -> None:
    """Runs, newest first."""
    rows = [
        (
            f"#{one['number']}",
            one["state"],
            output.branch(one["ref"]),
            one["sha"][:12],
            output.ago(one["created_at"]),
            output.lasted(one["started_at"], one["finished_at"]),
            one["subject"] or one["reason"],
        )
        for one in items
    ]
    output.table(("RUN", "STATE", "REF", "COMMIT", "CREATED", "TOOK", "SUBJECT"), rows, "no runs yet; push a commit")
