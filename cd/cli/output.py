"""How commands print: tables for people, JSON for programs; nothing from outside reaches the terminal as a command."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

#: Escapes that only colour; everything else that begins with ESC is dropped.
_ESCAPE = re.compile(r"(\x1b\[[0-9;:]*m)|\x1b\[[0-?]*[ -/]*[@-~]|\x1b[\]PX^_].*?(?:\x07|\x1b\\|$)|\x1b[ -/]*[0-~]|\x1b")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1a\x1c-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")

STATES = {
    "passed": "green",
    "reused": "green",
    "succeeded": "green",
    "live": "green",
    "failed": "red",
    "errored": "red",
    "blocked": "red",
    "rejected": "red",
    "rollback_failed": "red",
    "running": "cyan",
    "deploying": "cyan",
    "verifying": "cyan",
    "waiting": "yellow",
    "awaiting_approval": "yellow",
    "queued": "yellow",
}


def json_option(command: F) -> F:
    """`--json`: print what the server said, for programs."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(command)


def show_json(data: Any) -> None:
    """Print JSON."""
    click.echo(json.dumps(data, indent=2, ensure_ascii=False))


def plain(value: Any) -> str:
    """One line that is safe to print, whatever it was: no control characters, no line breaks."""
    text = "" if value is None else str(value)
    return _CONTROL.sub("", _ESCAPE.sub("", text)).replace("\t", " ").replace("\n", " ")


def log_line(line: str, colours: bool) -> str:
    """A line of a log: colours stay where they are wanted, every other escape and control character goes."""
    kept = _ESCAPE.sub(lambda found: found[1] or "" if colours else "", line)
    # Of a progress bar the last state is shown.
    kept = _CONTROL.sub("", kept.rstrip("\r").rsplit("\r", 1)[-1])
    return f"{kept}\x1b[0m" if colours and "\x1b" in kept else kept


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]], empty: str) -> None:
    """Print rows below their headings, or `empty` when there is none."""
    cells = [[plain(value) for value in row] for row in rows]
    if not cells:
        click.echo(empty)
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    grid = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        grid.add_column(Text(column), overflow="fold")
    for row in cells:
        grid.add_row(*(Text(cell, style=STATES.get(cell, "")) for cell in row))
    # In a pipe nothing is folded: one row is one line.
    Console(width=None if sys.stdout.isatty() else 10_000, highlight=False).print(grid)


def facts(pairs: Iterable[tuple[str, Any]]) -> None:
    """Print names with their values; those without one are left out."""
    told = [(name, plain(value)) for name, value in pairs if value not in (None, "")]
    width = max((len(name) for name, _ in told), default=0)
    for name, value in told:
        click.echo(f"{name:<{width}}  {click.style(value, fg=STATES.get(value))}")


def ago(value: str | None) -> str:
    """An API's time, as how long ago that was."""
    from cd.units import format_seconds

    if value is None:
        return ""
    seconds = (datetime.now(UTC) - datetime.fromisoformat(value)).total_seconds()
    return f"{format_seconds(max(0, int(seconds)))} ago"


def lasted(began: str | None, ended: str | None) -> str:
    """How long something took, or has taken so far."""
    from cd.units import format_seconds

    if began is None:
        return ""
    end = datetime.fromisoformat(ended) if ended else datetime.now(UTC)
    return format_seconds(max(0.0, (end - datetime.fromisoformat(began)).total_seconds()))


def branch(ref: str) -> str:
    """A ref without what goes without saying."""
    return ref.removeprefix("refs/heads/").removeprefix("refs/")
