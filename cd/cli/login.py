"""`towpath login`."""

from __future__ import annotations

import socket
import sys

import click

from cd.cli import credentials
from cd.cli.client import Client
from cd.cli.credentials import Credentials
from cd.errors import Unauthorized, UserError


@click.command()
@click.argument("url")
@click.option("--username", help="Your name there; asked for otherwise.")
@click.option("--password-stdin", is_flag=True, help="Read the password from standard input.")
@click.option("--token-stdin", is_flag=True, help="Read a token from standard input instead of asking for a new one.")
@click.option("--name", help="Name of the new token; default: this machine's.")
def login(url: str, username: str | None, password_stdin: bool, token_stdin: bool, name: str | None) -> None:
    """Get a token of a server and keep it.

    URL is where its pages are, such as https://towpath.example.org. The token is kept in ~/.config/towpath, for you
    alone; TOWPATH_URL and TOWPATH_TOKEN stand above it.
    """
    url = url.rstrip("/")
    if token_stdin:
        told = Credentials(url, sys.stdin.readline().strip())
    else:
        told = _new(url, username or click.prompt("Username"), _password(password_stdin), name or socket.gethostname())
    who = Client(told).get("/me")
    where = credentials.save(told)
    click.echo(f"logged in to {url} as {who['username']} ({who['role']}); the token is in {where}")


def _password(from_stdin: bool) -> str:
    if from_stdin:
        return sys.stdin.readline().rstrip("\n")
    asked: str = click.prompt("Password", hide_input=True)
    return asked


def _new(url: str, username: str, password: str, name: str) -> Credentials:
    try:
        made = Client(Credentials(url, "")).post("/tokens", name=name[:64], username=username, password=password)
    except Unauthorized as error:
        raise UserError(error.message, remedy="check name and password") from error
    return Credentials(url, made["token"])
