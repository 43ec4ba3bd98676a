"""When the lines of a log were written: for some positions the engine's time, good until the next of them."""

from __future__ import annotations

import sys
from array import array
from bisect import bisect_right
from collections.abc import Sequence

import zstandard

#: Position in the log, and ns since 1970.
Times = Sequence[tuple[int, int]]


def pack(times: Times, start: int) -> bytes:
    """Times of a chunk that begins at `start`, as bytes."""
    numbers = array("q", [number for position, time in times for number in (position - start, time)])
    if sys.byteorder == "big":
        numbers.byteswap()
    return zstandard.compress(numbers.tobytes(), 3)


def unpack(packed: bytes, start: int, size: int) -> list[tuple[int, int]]:
    """The way back; `size` is the chunk's, which has at most that many times."""
    numbers = array("q")
    numbers.frombytes(zstandard.decompress(packed, max_output_size=16 * (size + 1)))
    if sys.byteorder == "big":
        numbers.byteswap()
    return [(start + numbers[at], numbers[at + 1]) for at in range(0, len(numbers), 2)]


def at(times: Times, position: int) -> int:
    """The time in force at a position, in ns; 0 when it is not known."""
    index = bisect_right(times, (position, sys.maxsize))
    return times[index - 1][1] if index else 0
