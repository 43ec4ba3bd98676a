"""A commit as a build sees it: what it says of itself, single files, and all files in a folder when asked for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from cd.documents import MAX_BYTES
from cd.errors import UserError
from cd.pipeline.changes import changed
from cd.pipeline.git import Git
from cd.pipeline.objects import TREE, Commit, Objects
from cd.pipeline.parse import FILE
from cd.pipeline.worktrees import worktree

LARGEST_DOCKERFILE = 1 << 20


@dataclass(frozen=True)
class Checkout:
    """One commit. `pipeline` holds the bytes of `.towpath.yml`, None when there is none."""

    sha: str
    tree: str
    message: str
    author: str
    pipeline: bytes | None
    _git: Git
    _objects: Objects
    _work: Path

    def read(self, path: str) -> bytes | None:
        """A regular file of at most 1 MiB, None when there is nothing. Raises UserError."""
        return self._objects.file(self.tree, path, LARGEST_DOCKERFILE)

    def check_folder(self, path: str) -> None:
        """Raises UserError unless `path` is a folder that no symbolic link leads to."""
        entry = self._objects.find(self.tree, path)
        if entry is None or entry.mode != TREE:
            found = "does not exist in this commit" if entry is None else "is not a folder of this repository"
            raise UserError(f"the build context {found}", where=path, remedy=f"correct image.context in {FILE}")

    def changed(self, before: str) -> tuple[str, ...] | None:
        """Paths that differ from where this commit and `before` parted; None when the repository can't tell.

        Nothing is fetched for it. A file that was renamed counts under both names.
        """
        return changed(self._git, before, self.sha)

    def files(self) -> AbstractContextManager[Path]:
        """All files in a folder that is gone afterwards."""
        return worktree(self._work, self._git, self.sha)


@contextmanager
def opened(git: Git, sha: str, work: Path) -> Iterator[Checkout | None]:
    """Look at a commit; None when the repository does not have it."""
    with Objects(git) as objects:
        commit = objects.commit(sha)
        yield None if commit is None else _checkout(git, objects, commit, work)


def _checkout(git: Git, objects: Objects, commit: Commit, work: Path) -> Checkout:
    pipeline = objects.file(commit.tree, FILE, MAX_BYTES)
    return Checkout(commit.id, commit.tree, commit.message, commit.author, pipeline, git, objects, work)
