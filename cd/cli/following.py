"""Logs as lines in the terminal: of one step, or of a whole run while it goes on."""

from __future__ import annotations

import codecs
import itertools
import sys
import threading
from collections.abc import Iterable, Iterator
from time import monotonic
from typing import Any

import click

from cd.cli import output
from cd.cli.client import Client, part
from cd.errors import ServiceError, TowpathError

#: Seconds between two looks at a run.
LOOK = 0.5
#: A server that is away for longer than this, in seconds, ends the following.
PATIENCE = 60.0
ENDED = frozenset({"passed", "failed", "errored", "canceled", "superseded"})
BEGUN = frozenset({"running", "passed", "failed", "errored", "canceled"})
COLOURS = ("cyan", "magenta", "blue", "yellow", "green", "bright_cyan", "bright_magenta", "bright_blue")
#: A longer line is printed in pieces, in characters.
LONGEST = 1 << 16


def lines(client: Client, run: str, step: str, follow: bool) -> Iterator[str]:
    """Lines of a step's log, fit for this terminal; with `follow` until the step has ended."""
    colours = sys.stdout.isatty()
    data = client.stream(f"{run}/steps/{part(step)}/log", follow="true" if follow else None)
    for line in split(data):
        yield output.log_line(line, colours)


def split(data: Iterable[bytes]) -> Iterator[str]:
    """Bytes as lines, a piece at a time when there is no end to a line."""
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    rest = ""
    for piece in itertools.chain(map(decoder.decode, data), [""]):
        *whole, rest = (rest + piece).split("\n")
        yield from whole
        while len(rest) > LONGEST:
            yield rest[:LONGEST]
            rest = rest[LONGEST:]
    if rest:
        yield rest


def follow(client: Client, run: str) -> Any:
    """Print what all steps of a run say until it has ended; returns the run as it is then."""
    printer = Printer(client, run)
    reached = monotonic()
    pause = threading.Event()
    while True:
        try:
            told = client.get(run)
            reached = monotonic()
        except ServiceError:
            if monotonic() - reached > PATIENCE:
                raise
            pause.wait(LOOK)
            continue
        printer.look(told["steps"])
        if told["state"] in ENDED:
            printer.finish()
            return told
        pause.wait(LOOK)


class Printer:
    """Prints each step's log from a thread of its own, line by line behind the step's name."""

    def __init__(self, client: Client, run: str) -> None:
        self._client, self._run = client, run
        self._threads: dict[str, threading.Thread] = {}
        self._told: set[str] = set()
        self._width = 0

    def look(self, steps: list[Any]) -> None:
        """Begin to follow what has begun, say what ended without having run."""
        self._width = max((len(step["name"]) for step in steps), default=0)
        for step in steps:
            name = step["name"]
            if step["state"] in BEGUN and step["attempt"] and name not in self._threads:
                thread = threading.Thread(target=self._print, args=(name, len(self._threads)), daemon=True)
                self._threads[name] = thread
                thread.start()
            elif step["state"] in ("reused", "skipped") and name not in self._told:
                self._told.add(name)
                click.echo(f"{name:>{self._width}} │ {step['state']}: {output.plain(step['reason'])}")

    def finish(self) -> None:
        """Wait until all logs are printed to their ends."""
        for thread in self._threads.values():
            thread.join()

    def _print(self, name: str, number: int) -> None:
        label = click.style(f"{name:>{self._width}} │", fg=COLOURS[number % len(COLOURS)])
        try:
            for line in lines(self._client, self._run, name, follow=True):
                click.echo(f"{label} {line}")
        except TowpathError as error:
            click.echo(f"{label} the log broke off: {error}", err=True)
