"""Promotions: asked for, voted on, explained."""

from __future__ import annotations

from typing import Any

import click

from cd.cli import output
from cd.cli.client import connect, part
from cd.cli.output import json_option
from cd.errors import Conflict

number = click.argument("promotion", type=click.IntRange(1))


@click.group()
def promotion() -> None:
    """See what wants to go where."""


@promotion.command("list")
@click.argument("project", required=False)
@click.option("--environment", help="Only into this environment; takes a project.")
@click.option("--limit", type=click.IntRange(1), default=20, show_default=True, help="How many at most.")
@json_option
def list_(project: str | None, environment: str | None, limit: int, as_json: bool) -> None:
    """List the promotions of a project; without one, those of all projects that wait for a vote."""
    if project is None and environment is not None:
        raise click.UsageError("--environment takes a project")
    client = connect()
    if project is None:
        items = client.get("/promotions")["items"][:limit]
    else:
        items = client.pages(f"/projects/{part(project)}/promotions", limit, environment=environment)
    if as_json:
        output.show_json(items)
        return
    rows = [
        (
            one["id"],
            one["state"],
            f"{one['project']}/{one['environment']}",
            f"#{one['release']['number']}",
            output.ago(one["created_at"]),
            one["release"]["subject"],
        )
        for one in items
    ]
    empty = "nothing waits for a vote" if project is None else "no promotions"
    output.table(("PROMOTION", "STATE", "INTO", "RELEASE", "SINCE", "SUBJECT"), rows, empty)


@promotion.command()
@number
@json_option
def show(promotion: int, as_json: bool) -> None:
    """Show a promotion with its gates, votes and what was done."""
    show_promotion(connect().get(f"/promotions/{promotion}"), as_json)


@promotion.command()
@number
@json_option
def cancel(promotion: int, as_json: bool) -> None:
    """Take a promotion back while nothing is deployed yet."""
    show_promotion(connect().post(f"/promotions/{promotion}/cancel"), as_json)


@click.command()
@click.argument("project")
@click.argument("release", type=click.IntRange(1))
@click.argument("environment")
@json_option
def promote(project: str, release: int, environment: str, as_json: bool) -> None:
    """Ask for a release to be brought into an environment."""
    made = connect().post(f"/projects/{part(project)}/promotions", release=release, environment=environment)
    show_promotion(made, as_json)


@click.command()
@number
@click.option("--comment", help="Why; kept with the vote.")
@click.option("--fingerprint", help="Of what you looked at; the vote counts only if it is still that.")
@json_option
def approve(promotion: int, comment: str | None, fingerprint: str | None, as_json: bool) -> None:
    """Vote for a promotion as it is now; `towpath why` shows what that is."""
    _vote("approve", promotion, comment, fingerprint, as_json)


@click.command()
@number
@click.option("--comment", help="Why; kept with the vote.")
@click.option("--fingerprint", help="Of what you looked at; the vote counts only if it is still that.")
@json_option
def reject(promotion: int, comment: str | None, fingerprint: str | None, as_json: bool) -> None:
    """Vote against a promotion, which ends it."""
    _vote("reject", promotion, comment, fingerprint, as_json)


def _vote(verb: str, promotion: int, comment: str | None, fingerprint: str | None, as_json: bool) -> None:
    client, where = connect(), f"/promotions/{promotion}"
    seen = client.get(where)["fingerprint"]
    if fingerprint not in (None, seen):
        raise Conflict(f"promotion {promotion} is not what it was", remedy=f"look again: `towpath why {promotion}`")
    show_promotion(client.post(f"{where}/{verb}", fingerprint=seen, comment=comment), as_json)


@click.command()
@number
@json_option
def why(promotion: int, as_json: bool) -> None:
    """Say what a promotion waits for, and who can help."""
    show_promotion(connect().get(f"/promotions/{promotion}"), as_json)


def show_promotion(told: Any, as_json: bool) -> None:
    """One promotion, with all that can be told of it."""
    if as_json:
        output.show_json(told)
        return
    release = told["release"]
    output.facts(
        [
            ("promotion", told["id"]),
            ("state", told["state"]),
            ("reason", told["reason"]),
            ("release", f"#{release['number']} of {told['project']}: {release['subject']}"),
            ("into", told["environment"]),
            ("image", release["image"]),
            ("fingerprint", told["fingerprint"]),
            ("you", told.get("why_not")),
        ]
    )
    show_gates(told["gates"])
    show_votes(told["votes"])
    show_timeline(told["timeline"])


def show_gates(gates: list[Any]) -> None:
    """What it waits for."""
    if gates:
        click.echo()
        rows = [(gate["name"], gate["state"], gate["evidence"], gate["who"]) for gate in gates]
        output.table(("GATE", "STATE", "BECAUSE", "WHO CAN HELP"), rows, "")


def show_votes(votes: list[Any]) -> None:
    """Who said what of it."""
    if votes:
        click.echo()
        rows = [
            (vote["username"], vote["vote"] if vote["stands"] else f"{vote['vote']} (void)", vote["comment"])
            for vote in votes
        ]
        output.table(("WHO", "VOTE", "COMMENT"), rows, "")


def show_timeline(timeline: list[Any]) -> None:
    """What was done to deploy it."""
    if timeline:
        click.echo()
        rows = [(one["at"], "" if one["ok"] else "failed", one["what"]) for one in timeline]
        output.table(("WHEN", "", "WHAT"), rows, "")
