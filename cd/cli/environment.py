"""`towpath environment …`, and what is done to one environment."""

from __future__ import annotations

from typing import BinaryIO

import click

from cd.cli import output
from cd.cli.client import connect, part
from cd.cli.output import json_option
from cd.cli.project import show_environments
from cd.cli.promotion import show_promotion


@click.group()
def environment() -> None:
    """Say where releases go, and by which policy."""


@environment.command()
@click.argument("project")
@click.argument("file", type=click.File("rb"))
@json_option
def apply(project: str, file: BinaryIO, as_json: bool) -> None:
    """Put the environments of FILE (YAML; `-` for standard input) in place of those the project has."""
    name = getattr(file, "name", "-")
    told = connect().put_file(f"/projects/{part(project)}/environments", file.read(), str(name))["items"]
    if as_json:
        output.show_json(told)
        return
    show_environments(told)


@environment.command("list")
@click.argument("project")
@json_option
def list_(project: str, as_json: bool) -> None:
    """List a project's environments, what is live there and what wants to be."""
    items = connect().get(f"/projects/{part(project)}/environments")["items"]
    if as_json:
        output.show_json(items)
        return
    show_environments(items)


@click.command()
@click.argument("project")
@click.argument("environment")
@click.option("--to", "release", type=click.IntRange(1), help="Number of the release; default: the one before.")
@click.option("--reason", help="Why; kept in the audit log.")
@json_option
def rollback(project: str, environment: str, release: int | None, reason: str | None, as_json: bool) -> None:
    """Bring an environment back to an earlier release.

    It is held from then on, so that no newer release takes its place by itself; see `towpath unhold`.
    """
    where = f"/projects/{part(project)}/environments/{part(environment)}/rollback"
    made = connect().post(where, release=release, reason=reason)
    show_promotion(made, as_json)


@click.command()
@click.argument("project")
@click.argument("environment")
@click.option("--reason", required=True, help="Why; shown to everybody.")
def hold(project: str, environment: str, reason: str) -> None:
    """Pin what runs in an environment: nothing is promoted there until `towpath unhold`."""
    connect().post(f"/projects/{part(project)}/environments/{part(environment)}/hold", reason=reason)
    click.echo(f"{output.plain(environment)} is held")


@click.command()
@click.argument("project")
@click.argument("environment")
def unhold(project: str, environment: str) -> None:
    """Let an environment go again."""
    connect().delete(f"/projects/{part(project)}/environments/{part(environment)}/hold")
    click.echo(f"{output.plain(environment)} is no longer held")
