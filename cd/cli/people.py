"""`towpath user …` and `towpath token …`."""

from __future__ import annotations

import sys

import click

from cd.cli import output
from cd.cli.client import connect, part
from cd.cli.output import json_option

ROLES = click.Choice(["viewer", "developer", "approver", "admin"])
stdin_option = click.option("--password-stdin", is_flag=True, help="Read the password from standard input.")


@click.group()
def user() -> None:
    """Manage accounts."""


@user.command("list")
@json_option
def list_users(as_json: bool) -> None:
    """List all accounts."""
    items = connect().get("/users")["items"]
    if as_json:
        output.show_json(items)
        return
    rows = [
        (one["username"], one["role"], output.ago(one["created_at"]), output.ago(one["disabled_at"])) for one in items
    ]
    output.table(("USER", "ROLE", "SINCE", "DISABLED"), rows, "no accounts")


@user.command()
@click.argument("username")
@click.option("--role", type=ROLES, default="developer", show_default=True, help="What they may do.")
@stdin_option
@json_option
def create(username: str, role: str, password_stdin: bool, as_json: bool) -> None:
    """Add an account; asks for its password."""
    made = connect().post("/users", username=username, password=_password(password_stdin), role=role)
    if as_json:
        output.show_json(made)
        return
    click.echo(f"{output.plain(made['username'])} is {made['role']}")


@user.command()
@click.argument("username")
@click.argument("role", type=ROLES)
def role(username: str, role: str) -> None:
    """Give an account another role."""
    connect().patch(f"/users/{part(username)}", role=role)
    click.echo(f"{output.plain(username)} is {role}")


@user.command()
@click.argument("username")
@stdin_option
def password(username: str, password_stdin: bool) -> None:
    """Set a new password; the account's browser sessions end."""
    connect().patch(f"/users/{part(username)}", password=_password(password_stdin))
    click.echo(f"{output.plain(username)} has a new password")


@user.command()
@click.argument("username")
def disable(username: str) -> None:
    """Lock an account out: its sessions end, its tokens stop working."""
    connect().patch(f"/users/{part(username)}", disabled=True)
    click.echo(f"{output.plain(username)} is locked out")


@user.command()
@click.argument("username")
def enable(username: str) -> None:
    """Let a disabled account in again."""
    connect().patch(f"/users/{part(username)}", disabled=False)
    click.echo(f"{output.plain(username)} may sign in")


@click.group()
def token() -> None:
    """Manage your API tokens."""


@token.command("list")
@json_option
def list_tokens(as_json: bool) -> None:
    """List your tokens that work."""
    items = connect().get("/tokens")["items"]
    if as_json:
        output.show_json(items)
        return
    rows = [(one["id"], one["name"], output.ago(one["created_at"]), output.ago(one["last_used_at"])) for one in items]
    output.table(("TOKEN", "NAME", "MADE", "LAST USED"), rows, "no tokens")


@token.command("create")
@click.argument("name")
@json_option
def create_token(name: str, as_json: bool) -> None:
    """Make a token, as mighty as you are; it is printed, and shown only now."""
    made = connect().post("/tokens", name=name)
    if as_json:
        output.show_json(made)
        return
    click.echo(made["token"])


@token.command()
@click.argument("token", type=click.IntRange(1))
def revoke(token: int) -> None:
    """Make the token of that number worthless."""
    connect().delete(f"/tokens/{token}")
    click.echo(f"token {token} is worthless now")


def _password(from_stdin: bool) -> str:
    if from_stdin:
        return sys.stdin.readline().rstrip("\n")
    asked: str = click.prompt("Password", hide_input=True, confirmation_prompt=True)
    return asked
