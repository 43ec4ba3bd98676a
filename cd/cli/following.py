"""Logs as lines in the terminal: of one step, or of a whole run while it goes on."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from time import monotonic
from typing import Any

from cd.cli import output
from cd.cli.client import Client, part
from cd.cli.stepprinter import Lines, StepPrinter
from cd.errors import ServiceError, TowpathError

#: Seconds between two looks at a run.
LOOK = 0.5
#: A server that is away for longer than this, in seconds, ends the following.
PATIENCE = 60.0
ENDED = frozenset({"passed", "failed", "errored", "canceled", "superseded"})
BEGUN = frozenset({"running", "passed", "failed", "errored", "canceled"})


def lines(client: Client, run: str, step: str, follow: bool) -> Iterator[str]:
    """Lines of a step's log, fit for this terminal; with `follow` until the step has ended."""
    colours, split = sys.stdout.isatty(), Lines()
    for data in _stream(client, run, step, follow):
        for line in split.add(data):
            yield output.log_line(line, colours)
    for line in split.add(b"", final=True):
        yield output.log_line(line, colours)


def _stream(client: Client, run: str, step: str, follow: bool) -> Iterator[bytes]:
    return client.stream(f"{run}/steps/{part(step)}/log", follow="true" if follow else None)


def follow(client: Client, run: str) -> Any:
    """Print what all steps of a run say until it has ended; returns the run as it is then."""
    followed = _Followed(client, run)
    reached, pause = monotonic(), threading.Event()
    while True:
        try:
            told = client.get(run)
            reached = monotonic()
        except ServiceError:
            if monotonic() - reached > PATIENCE:
                raise
            pause.wait(LOOK)
            continue
        followed.look(told["steps"])
        if told["state"] in ENDED:
            followed.finish()
            return told
        pause.wait(LOOK)


class _Followed:
    """Prints each step's log from a thread of its own."""

    def __init__(self, client: Client, run: str) -> None:
        self._client, self._run = client, run
        self._threads: dict[str, threading.Thread] = {}
        self._told: set[str] = set()
        self._printer = StepPrinter((), sys.stdout)

    def look(self, steps: list[Any]) -> None:
        """Begin to follow what has begun, say what ended without having run."""
        self._printer.name([step["name"] for step in steps])
        for step in steps:
            name = step["name"]
            if step["state"] in BEGUN and step["attempt"] and name not in self._threads:
                self._threads[name] = threading.Thread(target=self._print, args=(name,), daemon=True)
                self._threads[name].start()
            elif step["state"] in ("reused", "skipped") and name not in self._told:
                self._told.add(name)
                self._printer.say(name, f"{step['state']}: {step['reason']}")

    def finish(self) -> None:
        """Wait until all logs are printed to their ends."""
        for thread in self._threads.values():
            thread.join()
        self._printer.close()

    def _print(self, name: str) -> None:
        try:
            for data in _stream(self._client, self._run, name, follow=True):
                self._printer.write(name, data)
        except TowpathError as error:
            self._printer.say(name, f"the log broke off: {error}")
