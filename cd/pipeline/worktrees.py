"""Folders with the files of one commit, for one build each. Whoever dies leaves one behind; the next removes it."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from cd.errors import ServiceError
from cd.pipeline.git import Git


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock file alone; others wait. It is free again when the holder dies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def worktree(folder: Path, git: Git, sha: str) -> Iterator[Path]:
    """The commit's files in a new folder below `folder`, gone afterwards. Submodules are empty folders in it."""
    made, lock = _made(folder)
    with lock:
        try:
            files = made / "files"
            files.mkdir()
            where = {"GIT_INDEX_FILE": str(made / "index"), "GIT_WORK_TREE": str(files)}
            # No entry in the repository: nothing of a worktree is left there by a crash.
            git.run("read-tree", "--reset", "-u", f"{sha}^{{tree}}", variables=where)
            yield files
        finally:
            shutil.rmtree(made, ignore_errors=True)


def _made(folder: Path) -> tuple[Path, BinaryIO]:
    """A new folder and its lock, held; the folders of the dead go first."""
    try:
        with locked(folder / ".lock"):
            sweep(folder)
            made = Path(tempfile.mkdtemp(prefix="w", dir=folder))
            lock = open(made / "lock", "wb")  # noqa: SIM115 - held open until the folder is gone
            fcntl.flock(lock, fcntl.LOCK_EX)
    except OSError as error:
        raise ServiceError(f"no worktree could be made: {error.strerror}", remedy=f"look at {folder}") from error
    return made, lock


def sweep(folder: Path) -> int:
    """Remove what dead workers left; how many. The caller holds the folder's lock."""
    removed = 0
    for one in os.scandir(folder):
        if one.is_dir(follow_symlinks=False) and _abandoned(Path(one.path)):
            shutil.rmtree(one.path, ignore_errors=True)
            removed += 1
    return removed


def _abandoned(path: Path) -> bool:
    try:
        with open(path / "lock", "rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except FileNotFoundError:
        return True  # its owner died between making the folder and its lock, or is removing it
    return True
