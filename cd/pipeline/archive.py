"""Reading a tar that nobody vouches for: nothing is unpacked, names are only text, and there is an end to it."""

from __future__ import annotations

import posixpath
import tarfile
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any

from cd.errors import ServiceError, TowpathError

#: Bytes that are read at a time.
PIECE = 1 << 20
#: Entries of one tar that are looked at.
MAX_ENTRIES = 200_000


class Endless(TowpathError):
    """There is more in it than a stage can have: a sparse file that claims to be huge, or too many files."""


@dataclass(frozen=True)
class Entry:
    """One file of a tar. `path` is absolute; `refused` says why it is not read, and is empty for a plain file.

    `pieces` gives its content once, before the next entry is asked for.
    """

    path: str
    size: int
    refused: str
    _content: IO[bytes] | None

    def pieces(self) -> Iterator[bytes]:
        """The content in pieces of at most 1 MiB. Raises as `walk` does."""
        with _translated(self.path):
            while self._content is not None and (piece := self._content.read(PIECE)):
                yield piece


@dataclass
class Budget:
    """How many bytes of tars may still be read."""

    left: int


def walk(pieces: Iterator[bytes], folder: str, budget: Budget) -> Generator[Entry, None, None]:
    """The files of a tar whose names are relative to `folder`; folders are left out.

    Raises Endless when the budget is used up, ServiceError when the tar is damaged.
    """
    count = 0
    stream: Any = _Stream(pieces, budget)
    with (
        _translated(folder),
        tarfile.open(fileobj=stream, mode="r|", bufsize=PIECE, errors="surrogateescape", encoding="utf-8") as tar,
    ):
        while (member := tar.next()) is not None:
            vars(tar)["members"] = []  # it would keep all of them
            count += 1
            if count > MAX_ENTRIES:
                raise Endless(f"there are more than {MAX_ENTRIES} files in it")
            if not member.isdir():
                content = tar.extractfile(member) if member.isreg() else None
                yield Entry(_path(folder, member.name), member.size, _refusal(member), content)


@contextmanager
def _translated(path: str) -> Iterator[None]:
    try:
        yield
    except (tarfile.TarError, EOFError) as error:
        raise ServiceError(f"the engine's copy of {path} is damaged: {error}") from error


def _path(folder: str, name: str) -> str:
    """What was no UTF-8 becomes U+FFFD."""
    whole = name if name.startswith("/") else posixpath.join(folder, name.removeprefix("./"))
    return whole.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _refusal(member: tarfile.TarInfo) -> str:
    if member.name.startswith("/") or ".." in member.name.split("/"):
        return "its name leads out of its folder"
    if member.issym():
        return "it is a symbolic link"
    if member.islnk():
        return "it is a second name (hard link) of another file"
    return "" if member.isreg() else "it is no plain file"


class _Stream:
    """What tarfile reads from: the pieces end to end, and no more than the budget of them."""

    def __init__(self, pieces: Iterator[bytes], budget: Budget) -> None:
        self._pieces, self._budget = pieces, budget
        self._rest = bytearray()

    def read(self, size: int) -> bytes:
        while len(self._rest) < size and (piece := next(self._pieces, None)) is not None:
            self._budget.left -= len(piece)
            if self._budget.left < 0:
                raise Endless("there is more in it than fits on the stage's disk")
            self._rest += piece
        found = bytes(self._rest[:size])
        del self._rest[:size]
        return found
