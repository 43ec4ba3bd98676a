"""Patterns of files in /work and /tmp: `*`, `?` and `[…]` within a name, `**` for any number of folders.

A pattern that fits a folder fits all in it. Matching takes time in proportion to path and pattern, whatever they are.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cd.errors import UserError

#: Folders that a stage can write to.
FOLDERS = ("work", "tmp")
_MAGIC = re.compile(r"[*?\[]")
#: In the place of a segment: any number of folders.
_ANY = None


@dataclass(frozen=True)
class Glob:
    """One pattern. `root` is the longest path without a wildcard: all that it fits is that, or lies below."""

    text: str
    root: str
    segments: tuple[re.Pattern[str] | None, ...]

    def matches(self, path: str) -> bool:
        """Whether an absolute path, or a folder above it, fits."""
        names = path.split("/")[1:]
        # Where the last ** was, and up to which name it was taken to reach: only that choice is ever taken back.
        star, reach = -1, 0
        at = name = 0
        while at < len(self.segments):
            segment = self.segments[at]
            if segment is _ANY:
                if at + 1 == len(self.segments):
                    return name < len(names)
                star, reach, at = at, name, at + 1
            elif name < len(names) and segment.match(names[name]):
                at, name = at + 1, name + 1
            elif star >= 0 and name < len(names):
                reach += 1
                at, name = star + 1, reach
            else:
                return False
        return True


def glob(text: str) -> Glob:
    """Read a pattern. Raises UserError for one that is not of a place where a stage can leave files."""
    names = text.split("/")
    if names[0] or ".." in names or len(names) < 2 or names[1] not in FOLDERS or "\0" in text:
        raise UserError("a stage leaves files only in /work and /tmp", where=text, remedy="write /work/… or /tmp/…")
    names = [name for name in names[1:] if name not in ("", ".")]
    plain = next((at for at, name in enumerate(names) if _MAGIC.search(name)), len(names))
    return Glob(text, "/" + "/".join(names[:plain]), _segments(names))


def relative(text: str) -> Glob:
    """A pattern of names that begin nowhere in particular, such as files of a repository or branches.

    What it is asked for is written with a `/` in front.
    """
    return Glob(text, "/", _segments([name for name in text.split("/") if name not in ("", ".")]))


def _segments(names: Sequence[str]) -> tuple[re.Pattern[str] | None, ...]:
    return tuple(_ANY if name == "**" else re.compile(fnmatch.translate(name)) for name in names)


def roots(globs: Iterable[Glob]) -> Sequence[str]:
    """The fewest paths that hold all that the patterns fit."""
    found: list[str] = []
    for root in sorted({one.root for one in globs}):
        if not any(root == known or root.startswith(known + "/") for known in found):
            found.append(root)
    return found
