"""`towpath artifact …`."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import click

from cd.cli import output
from cd.cli.client import Client, connect
from cd.cli.output import json_option
from cd.cli.run import number_argument, project_argument, where
from cd.errors import NotFound, ServiceError, UserError


@click.group()
def artifact() -> None:
    """List and fetch what stages left to be kept."""


@artifact.command("list")
@project_argument
@number_argument
@json_option
def list_(project: str, number: int, as_json: bool) -> None:
    """List the artifacts of a run; those of a reused stage are of the run that earned its verdict."""
    items = _items(connect(), project, number)
    if as_json:
        output.show_json(items)
        return
    rows = [
        (
            one["step"],
            one["path"],
            _size(one["size"]),
            f"#{one['run_number']}",
            "expired" if one["removed_at"] else one["expires_at"][:10],
        )
        for one in items
    ]
    output.table(("STAGE", "PATH", "SIZE", "MADE BY", "KEPT UNTIL"), rows, "no artifacts")


@artifact.command()
@project_argument
@number_argument
@click.argument("patterns", nargs=-1)
@click.option("--step", help="Only those of this stage.")
@click.option(
    "-o",
    "--to",
    "folder",
    type=click.Path(path_type=Path),
    default=".",
    show_default=True,
    help="Folder to write to; - writes one file to standard output.",
)
def get(project: str, number: int, patterns: tuple[str, ...], step: str | None, folder: Path) -> None:
    """Fetch artifacts of a run: all, or those whose path fits one of PATTERNS, such as '*.whl'.

    Each comes to FOLDER/STAGE/PATH, checked against its SHA-256.
    """
    client = connect()
    chosen = _chosen(_items(client, project, number), patterns, step)
    if str(folder) == "-":
        _print(client, project, number, chosen)
        return
    for one in chosen:
        target = local_path(folder, one["step"], one["path"])
        _fetch(client, f"{where(project, number)}/artifacts/{one['id']}", target, one["sha256"])
        click.echo(output.plain(target))


def _items(client: Client, project: str, number: int) -> list[Any]:
    items: list[Any] = client.get(f"{where(project, number)}/artifacts")["items"]
    return items


def _chosen(items: Sequence[Any], patterns: Sequence[str], step: str | None) -> list[Any]:
    there = [one for one in items if one["removed_at"] is None and step in (None, one["step"])]
    fitting = [one for one in there if not patterns or any(fnmatchcase(one["path"], each) for each in patterns)]
    if not fitting:
        told = ", ".join(patterns) if patterns else "anything"
        raise NotFound(f"no artifact fits {told}", remedy="see `towpath artifact list`; expired ones are gone")
    return fitting


def _print(client: Client, project: str, number: int, chosen: Sequence[Any]) -> None:
    if len(chosen) > 1:
        raise UserError(f"{len(chosen)} artifacts fit, but one can be printed", remedy="say which one")
    for piece in client.stream(f"{where(project, number)}/artifacts/{chosen[0]['id']}"):
        click.echo(piece, nl=False)


def local_path(folder: Path, step: str, path: str) -> Path:
    """Where an artifact is written to. Raises UserError for a name that would lead out of the folder."""
    names = [step.replace("/", "_"), *path.strip("/").split("/")]
    if any(name in ("", ".", "..") or "\\" in name or "\0" in name for name in names):
        raise UserError(f"{output.plain(path)!r} can't be written safely", remedy="fetch it with -o -")
    return folder.joinpath(*names)


def _fetch(client: Client, address: str, target: Path, sha256: str) -> None:
    """Written beside its place and moved there when it is whole."""
    part = target.with_name(f".{target.name[:100]}.part")
    digest = hashlib.sha256()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            for piece in client.stream(address):
                digest.update(piece)
                file.write(piece)
        if digest.hexdigest() != sha256:
            raise ServiceError(f"{output.plain(target)} came damaged", remedy="fetch it again")
        part.replace(target)
    except OSError as error:
        raise UserError(f"can't be written: {error.strerror}", where=str(target), remedy="choose another -o") from error
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


def _size(value: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} GiB"
