"""`towpath validate`."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cd.cli import output
from cd.cli.output import json_option

if TYPE_CHECKING:
    from cd.documents import Fault


@click.command()
@click.argument("file", type=click.Path(dir_okay=False, allow_dash=True), default=".towpath.yml")
@json_option
@click.pass_context
def validate(ctx: click.Context, file: str, as_json: bool) -> None:
    """Check a pipeline file.

    Every fault is told with its line and column. FILE is .towpath.yml unless given; `-` is standard input.
    Status 1 when there is any fault.
    """
    faults, refused = _look(_read(file), file)
    valid = not faults and not refused
    if as_json:
        told = {"valid": valid, "faults": [asdict(fault) for fault in faults], "refused": refused, "remarks": []}
        output.show_json(told)
    else:
        for line in (*faults, *refused):
            click.echo(f"{file}:{'' if line in faults else ' '}{output.plain(line)}", err=True)
        if valid:
            click.echo(f"{file} is valid")
    if not valid:
        ctx.exit(1)


def _read(file: str) -> bytes:
    from cd.documents import MAX_BYTES
    from cd.errors import UserError

    try:
        # No more than is needed to see that it is too large.
        with sys.stdin.buffer if file == "-" else Path(file).open("rb") as stream:
            return stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise UserError(f"can't be read: {error.strerror}", where=file, remedy="give the file's path") from error


def _look(text: bytes, file: str) -> tuple[tuple[Fault, ...], list[str]]:
    """What is wrong, and what this version would refuse to run."""
    from cd.documents import DocumentError
    from cd.pipeline.definition import unsupported
    from cd.pipeline.parse import parse

    try:
        pipeline = parse(text, file)
    except DocumentError as error:
        return error.faults, []
    refused = [f"{line} can't be done by this version: remove it for now" for line in unsupported(pipeline)]
    return (), refused
