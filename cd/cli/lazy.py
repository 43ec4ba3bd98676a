"""A click group that imports a command only when it is invoked, so that `towpath --help` is quick."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import click

from cd.errors import TowpathError


class Entry(NamedTuple):
    """Where a command is, as module and attribute, and what it does in one line."""

    module: str
    attribute: str
    short: str


class LazyGroup(click.Group):
    """Shows and runs the commands of a table. Errors of Towpath end it with their text and status 1."""

    def __init__(self, *args: Any, entries: Mapping[str, Entry], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.entries = entries

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order of the table."""
        return list(self.entries)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command."""
        entry = self.entries.get(cmd_name)
        if entry is None:
            return None
        command: click.Command = getattr(importlib.import_module(entry.module), entry.attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The table, without importing what it names."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.short) for name, entry in self.entries.items()])

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; what a person can mend is told without a traceback."""
        try:
            return super().invoke(ctx)
        except TowpathError as error:
            click.echo(f"towpath: {error}", err=True)
            ctx.exit(1)
