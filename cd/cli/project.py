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
        [
            ("project", told["slug"]),
            ("forge", told["forge"]),
            ("repository", told["clone_url"] or "hosted here"),
            *_settings(told),
        ]
    )
    click.echo()
    show_environments(told["environments"])
    click.echo()
    show_releases(told["releases"])
    click.echo()
    show_runs(told["runs"])


@project.command("set")
@click.argument("slug")
@click.option(
    "--supersede",
    type=click.Choice(["waiting", "running", "never"]),
    help="Which runs of a branch a newer push ends: those that wait, those too that run, or none.",
)
@click.option("--parallel", type=click.IntRange(0, 1000), help="Builds and stages at the same time; 0: no limit.")
@click.option("--keep-failed/--no-keep-failed", default=None, help="Keep a failed stage's files for `towpath shell`.")
@json_option
def set_(slug: str, supersede: str | None, parallel: int | None, keep_failed: bool | None, as_json: bool) -> None:
    """Change settings of a project; what is not given stays as it is."""
    if supersede is None and parallel is None and keep_failed is None:
        raise click.UsageError("give what to change: --supersede, --parallel or --keep-failed")
    told = connect().patch(f"/projects/{part(slug)}", supersede=supersede, parallel=parallel, keep_failed=keep_failed)
    if as_json:
        output.show_json(told)
        return
    output.facts([("project", told["slug"]), *_settings(told)])


def _settings(told: Any) -> list[tuple[str, str]]:
    return [
        ("a newer push ends", f"{told['supersede']} runs" if told["supersede"] != "never" else "no runs"),
        ("at the same time", f"{told['parallel']} builds and stages" if told["parallel"] else "no limit of its own"),
        ("failed stages", "files are kept" if told["keep_failed"] else "files are not kept"),
    ]


@project.command()
@click.argument("slug")
@click.option("--limit", type=click.IntRange(1, 200), default=50, show_default=True, help="How many at most.")
@json_option
def flakes(slug: str, limit: int, as_json: bool) -> None:
    """List stages that both passed and failed for the same image and key."""
    items = connect().get(f"/projects/{part(slug)}/flakes", limit=limit)["items"]
    if as_json:
        output.show_json(items)
        return
    rows = [
        (
            one["stage"],
            f"{one['passed']} × (last #{one['passed_run']})",
            f"{one['failed']} × (last #{one['failed_run']})",
            output.ago(one["last_at"]),
            one["image"][-12:],
            one["key"][:12],
        )
        for one in items
    ]
    output.table(("STAGE", "PASSED", "FAILED", "LAST", "IMAGE", "KEY"), rows, "no flakes: nothing contradicted itself")


@project.command()
@click.argument("slug")
@json_option
def reuse(slug: str, as_json: bool) -> None:
    """Show what standing on earlier results spared, and how often it was wrong."""
    told = connect().get(f"/projects/{part(slug)}/reuse")
    if as_json:
        output.show_json(told)
        return
    output.facts(
        [
            ("reused", f"{told['reused']} stages"),
            ("saved", f"{told['saved'] / 60:.1f} min"),
            ("run again", f"{told['audited']} of them, to see whether that was right"),
            ("false hits", str(told["false_hits"])),
        ]
    )
    rows = [
        (one["stage"], f"#{one['run_number']}", output.ago(one["at"]), one["image"][-12:], one["key"][:12])
        for one in told["newest"]
    ]
    if rows:
        click.echo()
        output.table(("FALSE HIT", "RUN", "FOUND", "IMAGE", "KEY"), rows, "")


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
        (
            f"#{one['number']}{' retired' if one['retired_at'] else ''}",
            f"#{one['run_number']}",
            one["sha"][:12],
            output.ago(one["created_at"]),
            one["subject"],
        )
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
