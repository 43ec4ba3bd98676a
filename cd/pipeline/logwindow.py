"""Some lines of a log, cut out of the chunks that they lie in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cd.pipeline import logtimes
from cd.pipeline.records import LogChunk

#: Of a longer line only the beginning is shown; a window ends early when its lines are larger than this together.
LINE_BYTES = 1 << 16
WINDOW_BYTES = 4 << 20


@dataclass(frozen=True)
class Window:
    """Some lines of a log, without their newlines. `first` counts from 0; `total` lines are stored by now.

    A line over LINE_BYTES is cut, and says so. `times` has the engine's time of each line in ns, 0 where it is unknown.
    """

    first: int
    lines: Sequence[bytes]
    total: int
    times: Sequence[int] = ()


class Cutter:
    """Cuts lines out of chunks that lie end to end."""

    def __init__(self, first: int, count: int) -> None:
        self.lines: list[bytes] = []
        self.times: list[int] = []
        #: Bytes of the present line that are not kept.
        self.more = 0
        self._first, self._count = first, count
        self._open = b""
        self._began = 0
        self._size = 0
        self._number = -1

    @property
    def done(self) -> bool:
        """Whether all lines are there, or as many as fit."""
        return len(self.lines) >= self._count or self._size >= WINDOW_BYTES

    @property
    def full(self) -> bool:
        """Whether more of the present line would not be shown."""
        return len(self._open) >= LINE_BYTES

    def take(self, chunk: LogChunk, data: bytes, times: logtimes.Times) -> None:
        """One more chunk."""
        if self._number < 0:
            self._number, self._began = chunk.first_line, logtimes.at(times, chunk.start)
        at = 0
        while not self.done:
            end = data.find(b"\n", at)
            self._add(data[at : end if end >= 0 else len(data)])
            if end < 0:
                return
            self._close()
            at = end + 1
            self._began = logtimes.at(times, chunk.start + at)

    def end(self) -> None:
        """Nothing follows: what is open is a line without its newline."""
        if not self.done and (self._open or self.more):
            self._close()

    def _add(self, data: bytes) -> None:
        if self._number >= self._first:
            room = max(0, LINE_BYTES - len(self._open))
            self._open += data[:room]
            self.more += max(0, len(data) - room)

    def _close(self) -> None:
        if self._number >= self._first:
            told = f" … {self.more:,} more bytes, see the raw log".encode() if self.more else b""
            self.lines.append(self._open + told)
            self.times.append(self._began)
            self._size += len(self._open)
        self._open, self.more = b"", 0
        self._number += 1
