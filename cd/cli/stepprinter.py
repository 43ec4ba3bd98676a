"""Lines of several steps in one terminal, each behind its step's name."""

from __future__ import annotations

import codecs
import threading
from collections.abc import Sequence
from typing import TextIO

import click

from cd.cli import output

COLOURS = ("cyan", "magenta", "blue", "yellow", "green", "bright_cyan", "bright_magenta", "bright_blue")
#: A longer line is printed in pieces, in characters.
LONGEST = 1 << 16


class Lines:
    """Bytes as lines, a piece at a time when there is no end to a line."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._rest = ""

    def add(self, data: bytes, final: bool = False) -> list[str]:
        """Lines that are whole now; with `final` all that is left."""
        *whole, rest = (self._rest + self._decoder.decode(data, final)).split("\n")
        while len(rest) > LONGEST:
            whole.append(rest[:LONGEST])
            rest = rest[LONGEST:]
        if final and rest:
            whole.append(rest)
            rest = ""
        self._rest = rest
        return whole


class StepPrinter:
    """Prints what steps say; may be called from several threads."""

    def __init__(self, steps: Sequence[str], stream: TextIO) -> None:
        self._stream, self._colours = stream, stream.isatty()
        self._lock = threading.Lock()
        self._lines: dict[str, Lines] = {}
        self._labels: dict[str, str] = {}
        self.name(steps)

    def name(self, steps: Sequence[str]) -> None:
        """Make the labels of these steps equally wide."""
        width = max(map(len, steps), default=0)
        for number, step in enumerate(steps):
            self._labels[step] = click.style(f"{step:>{width}} │", fg=COLOURS[number % len(COLOURS)])

    def write(self, step: str, data: bytes, final: bool = False) -> None:
        """Print the lines that these bytes complete; with `final` what is left too."""
        with self._lock:
            for line in self._lines.setdefault(step, Lines()).add(data, final):
                self._say(step, line)

    def say(self, step: str, text: str) -> None:
        """Print one line of our own."""
        with self._lock:
            self._say(step, text)

    def close(self) -> None:
        """Print all lines that were never ended."""
        for step in list(self._lines):
            self.write(step, b"", final=True)

    def _say(self, step: str, line: str) -> None:
        # Without a terminal click drops the label's colours.
        click.echo(f"{self._labels.get(step, step)} {output.log_line(line, self._colours)}", file=self._stream)
