"""`towpath secret …`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from cd.cli import output
from cd.cli.client import connect, part
from cd.cli.output import json_option
from cd.errors import TooLarge, UserError

#: The server takes no more either; a file is not read further than that, in bytes.
MOST = 64 << 10


@click.group()
def secret() -> None:
    """Keep what stages and builds must know and nobody may see."""


@secret.command("set")
@click.argument("project")
@click.argument("name")
@click.option(
    "--from-file",
    "file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Take the value from this file, to the last byte.",
)
@json_option
def set_(project: str, name: str, file: Path | None, as_json: bool) -> None:
    """Store a secret, in the place of one of that name.

    The value is read from standard input, where one line end behind it does not count, or asked for at a terminal. It
    is never shown again. A stage gets it as the variable NAME when its `secrets` list it.
    """
    value = _of_file(file) if file is not None else _of_input()
    told = connect().put(f"/projects/{part(project)}/secrets/{part(name)}", value=value)
    if as_json:
        output.show_json(told)
        return
    click.echo(f"{output.plain(told['name'])} is stored, version {told['version']}")


@secret.command("list")
@click.argument("project")
@json_option
def list_(project: str, as_json: bool) -> None:
    """List a project's secrets, without their values."""
    items = connect().get(f"/projects/{part(project)}/secrets")["items"]
    if as_json:
        output.show_json(items)
        return
    rows = [(one["name"], one["version"], one["changed_by"], output.ago(one["changed_at"])) for one in items]
    output.table(("SECRET", "VERSION", "CHANGED BY", "CHANGED"), rows, "no secrets; `secret set` stores one")


@secret.command()
@click.argument("project")
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
def delete(project: str, name: str, yes: bool) -> None:
    """Forget a secret; stages that ask for it fail from then on."""
    if not yes:
        click.confirm(f"Forget {name} of {project}?", abort=True, err=True)
    connect().delete(f"/projects/{part(project)}/secrets/{part(name)}")
    click.echo(f"{output.plain(name)} is forgotten")


def _of_file(file: Path) -> str:
    with file.open("rb") as opened:
        return _text(opened.read(MOST + 1), str(file))


def _of_input() -> str:
    if sys.stdin.isatty():
        asked: str = click.prompt("Value", hide_input=True, confirmation_prompt=True, err=True)
        return asked
    data = sys.stdin.buffer.read(MOST + 3)
    for end in (b"\r\n", b"\n"):
        if data.endswith(end):
            return _text(data.removesuffix(end), "standard input")
    return _text(data, "standard input")


def _text(data: bytes, where: str) -> str:
    if len(data) > MOST:
        raise TooLarge(f"the value is over {MOST >> 10} KiB", where=where, remedy="keep it elsewhere")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise UserError("the value is no UTF-8", where=where, remedy="encode it as base64") from error
