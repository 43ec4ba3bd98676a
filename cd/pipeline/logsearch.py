"""Search over a whole log, chunk by chunk in constant memory: a call ends in time and says where the next goes on."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from time import monotonic

from cd.errors import UserError
from cd.pipeline.logs import LogStore
from cd.pipeline.records import LogChunk
from cd.store.database import Database

#: Bytes that are looked for at most, and bytes around a match that are shown, on each side.
LONGEST, AROUND = 1000, 100
#: A call looks at this many bytes and for this many seconds at most, and always at one chunk.
BYTES, SECONDS = 256 << 20, 1.0
#: Chunks whose places are asked for at once.
PLACES = 64


@dataclass(frozen=True)
class Match:
    """A line with the text in it: its number from 1, the first match in it, and what stands around that."""

    line: int
    position: int
    before: bytes
    found: bytes
    after: bytes


@dataclass(frozen=True)
class Found:
    """Matches of one call; `next` is the cursor to go on from, None when the log was searched to its end."""

    matches: tuple[Match, ...]
    next: str | None
    #: Bytes that this call looked at.
    searched: int


@dataclass
class _Place:
    """Where a search stands: next byte, number of newlines before it, the last line that was told already."""

    byte: int = 0
    lines: int = 0
    told: int = 0

    @staticmethod
    def parse(cursor: str) -> _Place:
        numbers = cursor.split(".") if cursor else ["0", "0", "0"]
        if len(numbers) != 3 or not all(one.isascii() and one.isdigit() and len(one) < 19 for one in numbers):
            raise UserError("that is no cursor of a search", remedy="leave it out to search from the beginning")
        return _Place(*map(int, numbers))

    def __str__(self) -> str:
        return f"{self.byte}.{self.lines}.{self.told}"


def pattern(text: str, *, case: bool = False) -> re.Pattern[bytes]:
    """What is looked for: the text itself; unless `case`, letters of either case. Raises UserError."""
    wanted = text.encode(errors="surrogateescape")
    if not wanted or len(wanted) > LONGEST or b"\n" in wanted:
        raise UserError(f"give between 1 and {LONGEST} bytes of one line to search for")
    if case or text.lower() == text.upper():
        return re.compile(re.escape(wanted))
    # Outside ASCII a letter's cases are different bytes: each is an alternative.
    letters = [{letter, letter.lower(), letter.upper()} for letter in text]
    parts = [b"|".join(sorted(re.escape(one.encode(errors="surrogateescape")) for one in some)) for some in letters]
    if text.isascii():
        return re.compile(re.escape(wanted), re.IGNORECASE)
    return re.compile(b"".join(b"(?:" + part + b")" for part in parts))


def search(
    database: Database,
    logs: LogStore,
    step_id: int,
    attempt: int,
    wanted: re.Pattern[bytes],
    *,
    cursor: str = "",
    limit: int = 100,
    seconds: float = SECONDS,
    most: int = BYTES,
) -> Found:
    """Lines from `cursor` on that hold the text, `limit` of them at most. No transaction is open while it looks."""
    place = _Place.parse(cursor)
    # Three bytes for one: the other case of a letter can be longer than the letter itself.
    overlap = 3 * LONGEST + AROUND
    start, until, searched = place.byte, monotonic() + seconds, 0
    matches: list[Match] = []
    before = b""
    for chunk in _chunks(database, logs, step_id, attempt, max(0, start - overlap)):
        # The chunk before the cursor's is looked at for what the border cuts: that alone would be no step on.
        if place.byte > start and (monotonic() > until or searched >= most):
            return Found(tuple(matches), str(place), searched)
        data = logs.load(chunk)
        buffer = before + data
        base = chunk.start - len(before)
        counted, number = max(0, place.byte - base), place.lines
        if place.byte > chunk.start + chunk.size:
            before = buffer[-overlap:]
            continue
        # What may go on in the next chunk is looked at with that one; the text around a match comes from this one.
        while hit := wanted.search(buffer, counted):
            number += buffer.count(b"\n", counted, hit.start())
            counted = hit.start()
            place.byte, place.lines = base + counted, number
            if number + 1 > place.told:
                if len(matches) >= limit:
                    return Found(tuple(matches), str(place), searched)
                matches.append(_match(number + 1, base, buffer, hit))
                place.told = number + 1
            # One match a line: the rest of it is passed over.
            end = buffer.find(b"\n", hit.end())
            if end < 0:
                break
            counted = end
        # A match that the chunk's end cuts begins at most so far before it.
        keep = max(counted, len(buffer) - overlap)
        number += buffer.count(b"\n", counted, keep)
        place.byte, place.lines = base + keep, number
        searched += len(data)
        before = buffer[keep - min(keep, AROUND) :]
    return Found(tuple(matches), None, searched)


def _match(number: int, base: int, buffer: bytes, hit: re.Match[bytes]) -> Match:
    before = buffer[max(0, hit.start() - AROUND) : hit.start()].rpartition(b"\n")[2]
    after = buffer[hit.end() : hit.end() + AROUND].partition(b"\n")[0]
    return Match(number, base + hit.start(), before, hit[0], after)


def _chunks(database: Database, logs: LogStore, step_id: int, attempt: int, start: int) -> Iterator[LogChunk]:
    while True:
        with database.read() as session:
            some = logs.chunks(session, step_id, attempt, start, PLACES)
        yield from some
        if len(some) < PLACES:
            return
        start = some[-1].start + some[-1].size
