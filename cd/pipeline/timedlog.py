"""A log as text with the time of each line, and how long each one stood before the next."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from cd.pipeline.logs import LogStore
from cd.store.database import Database

#: Lines that are read at once.
LINES = 5000
#: Width of time and duration where they are not known.
UNKNOWN = " " * 24


def stamp(nanoseconds: int) -> str:
    """As RFC 3339 with milliseconds, in UTC; blanks of the same width when it is not known."""
    if not nanoseconds:
        return UNKNOWN
    told = datetime.fromtimestamp(nanoseconds // 10**9, UTC)
    return f"{told:%Y-%m-%dT%H:%M:%S}.{nanoseconds // 10**6 % 1000:03}Z"


def durations(times: Sequence[int]) -> list[float | None]:
    """Seconds from each line to the next, None where that is not known, as for the last one."""
    pairs = zip(times, [*times[1:], 0], strict=True)
    return [max(0, after - at) / 1e9 if at and after else None for at, after in pairs]


def timed(database: Database, logs: LogStore, step_id: int, attempt: int) -> Iterator[bytes]:
    """All lines, each behind its time and the seconds to the next; a line over 64 KiB is cut, and says so."""
    first = 0
    while True:
        with database.read() as session:
            # One line more than is told: the last one's duration is known by it.
            window = logs.window(session, step_id, attempt, first, LINES + 1)
        ended = first + len(window.lines) >= window.total
        told = len(window.lines) if ended or len(window.lines) == 1 else len(window.lines) - 1
        if not told:
            return
        lines = zip(window.lines[:told], window.times, durations(window.times), strict=False)
        yield b"".join(b"%s %9s  %s\n" % (stamp(at).encode(), _shown(took), line) for line, at, took in lines)
        first += told
        if ended:
            return


def _shown(seconds: float | None) -> bytes:
    return b"" if seconds is None else b"%.3f" % seconds
