"""Reading commits, trees and files out of a repository through one running `git cat-file --batch`."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType

from cd.errors import ServiceError, TooLarge, UserError
from cd.pipeline.git import Git

TREE, FILE, EXECUTABLE, SYMLINK, SUBMODULE = "40000", "100644", "100755", "120000", "160000"
LARGEST_TREE = 64 << 20
LARGEST_COMMIT = 1 << 20


@dataclass(frozen=True)
class Entry:
    """One line of a tree: git's mode and the id of what it names."""

    mode: str
    id: str


@dataclass(frozen=True)
class Commit:
    """What a commit says of itself. `author` as "Name <mail>"."""

    id: str
    tree: str
    author: str
    message: str


class Objects:
    """Reads objects by id or name. Use it as a context manager; it holds one git process."""

    def __init__(self, git: Git) -> None:
        self._git = git
        self._process = git.start(["cat-file", "--batch"], istream=subprocess.PIPE)

    def __enter__(self) -> Objects:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        process = self._process.proc
        if process is None:
            return
        process.stdin.close()
        process.stdout.close()
        process.stderr.close()
        # An object that was too large stays unread in the pipe: git ends on the broken pipe, or on this.
        process.terminate()
        process.wait()

    def read(self, name: str, limit: int) -> tuple[str, str, bytes] | None:
        """Id, type and content of an object; None when there is none. Raises TooLarge over `limit` bytes."""
        process = self._process.proc
        try:
            process.stdin.write(name.encode() + b"\n")
            process.stdin.flush()
            words = process.stdout.readline().split()
        except OSError as error:
            raise ServiceError(f"git ended while it was asked for {name}") from error
        if not words:
            raise ServiceError(
                f"git could not read the repository: {process.stderr.read(500).decode(errors='replace')}"
            )
        if len(words) != 3 or not words[2].isdigit():
            return None
        size = int(words[2])
        if size > limit:
            raise TooLarge(f"{size} bytes are more than the {limit} that are read", where=name)
        content: bytes = process.stdout.read(size + 1)[:-1]
        return words[0].decode(), words[1].decode(), content

    def commit(self, sha: str) -> Commit | None:
        """The commit, None when the repository does not have it."""
        found = self.read(f"{sha}^{{commit}}", LARGEST_COMMIT)
        return parse_commit(found[0], found[2]) if found else None

    def tree(self, name: str) -> Mapping[str, Entry]:
        """The entries of a tree, by name."""
        found = self.read(name, LARGEST_TREE)
        if found is None or found[1] != "tree":
            raise ServiceError(f"the repository lacks the tree {name}", retryable=False)
        return parse_tree(found[2], len(found[0]) // 2)

    def find(self, tree: str, path: str) -> Entry | None:
        """What `path` names below a tree. Raises UserError when a part of the way is a symbolic link."""
        entry: Entry | None = Entry(TREE, tree)
        walked: list[str] = []
        for part in (part for part in path.split("/") if part not in ("", ".")):
            if entry is None or entry.mode != TREE:
                return None
            walked.append(part)
            entry = self.tree(entry.id).get(part)
            if entry is not None and entry.mode == SYMLINK:
                raise UserError(
                    "a symbolic link, which is not followed", where="/".join(walked), remedy="commit the real thing"
                )
        return entry

    def file(self, tree: str, path: str, limit: int) -> bytes | None:
        """Content of a regular file, None when there is nothing. Raises UserError for anything else, TooLarge."""
        entry = self.find(tree, path)
        if entry is None:
            return None
        if entry.mode not in (FILE, EXECUTABLE):
            kind = "a submodule" if entry.mode == SUBMODULE else "a folder"
            raise UserError(f"{kind}, but a file is wanted here", where=path)
        try:
            found = self.read(entry.id, limit)
        except TooLarge as error:
            raise TooLarge(f"the file is over {limit >> 10} KiB", where=path, remedy="make it smaller") from error
        return found[2] if found else None


def parse_commit(sha: str, raw: bytes) -> Commit:
    """A commit object's content."""
    head, _, message = raw.partition(b"\n\n")
    fields = dict(line.split(b" ", 1) for line in reversed(head.split(b"\n")) if b" " in line and line[:1] != b" ")
    author = fields.get(b"author", b"").rpartition(b">")
    return Commit(sha, fields[b"tree"].decode(), _text(author[0] + author[1]), _text(message))


def parse_tree(raw: bytes, id_bytes: int) -> dict[str, Entry]:
    """A tree object's content; `id_bytes` is 20, or 32 in a SHA-256 repository."""
    entries: dict[str, Entry] = {}
    at = 0
    while at < len(raw):
        space = raw.index(b" ", at)
        end = raw.index(b"\0", space)
        name = raw[space + 1 : end].decode(errors="surrogateescape")
        entries[name] = Entry(raw[at:space].decode(), raw[end + 1 : end + 1 + id_bytes].hex())
        at = end + 1 + id_bytes
    return entries


def _text(raw: bytes) -> str:
    """Text that every database takes."""
    return raw.decode(errors="replace").replace("\0", "\N{REPLACEMENT CHARACTER}")
