"""The working tree as a commit of it would be: what git ignores is left out, what is not committed yet is in."""

from __future__ import annotations

import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import git

from cd.documents import MAX_BYTES
from cd.errors import UserError
from cd.pipeline import dockerfile
from cd.pipeline.checkout import LARGEST_DOCKERFILE
from cd.pipeline.definition import ImageSpec
from cd.pipeline.dockerfile import Dockerfile
from cd.pipeline.parse import FILE


@dataclass(frozen=True)
class Snapshot:
    """A copy of the working tree at `files`; `root` is where it was taken."""

    root: Path
    files: Path
    #: What is checked out; None when that is no branch.
    branch: str | None = None

    @property
    def pipeline(self) -> bytes | None:
        """The bytes of the pipeline file, None when there is none."""
        return self._read(FILE, MAX_BYTES + 1)

    def dockerfile(self, spec: ImageSpec) -> Dockerfile:
        """The Dockerfile. Raises UserError when there is none, or when it may not be used."""
        if not self._inside(spec.context).is_dir():
            raise UserError(
                "the build context is not a folder of this repository",
                where=spec.context,
                remedy=f"correct image.context in {FILE}",
            )
        text = self._read(spec.dockerfile, LARGEST_DOCKERFILE)
        if text is None:
            raise UserError(
                "there is no such file here, or git ignores it",
                where=spec.dockerfile,
                remedy=f"add a Dockerfile, or set image.dockerfile in {FILE}",
            )
        return dockerfile.parse(text, spec.dockerfile)

    def _read(self, name: str, most: int) -> bytes | None:
        path = self._inside(name)
        if not path.is_file():
            return None
        with path.open("rb") as file:
            return file.read(most)

    def _inside(self, name: str) -> Path:
        """The path, with no symbolic link on the way: a server would not follow it either."""
        path = self.files
        for step in Path(name).parts:
            path = path / step
            if path.is_symlink():
                raise UserError("a symbolic link is not followed", where=name, remedy="name the file itself")
        return path


@contextmanager
def taken(folder: Path) -> Iterator[Snapshot]:
    """A copy of the working tree that `folder` is in, gone afterwards. Raises UserError when it is in none."""
    try:
        root = Path(git.Git(folder).rev_parse("--show-toplevel"))
        listed = git.Git(root).ls_files("--cached", "--others", "--exclude-standard", "--deduplicate", "-z")
    except git.exc.GitError as error:
        raise UserError("not a working tree of git", where=str(folder), remedy="go into one, or `git init`") from error
    with tempfile.TemporaryDirectory(prefix="towpath-exec-") as made:
        files = Path(made)
        files.chmod(0o755)
        for name in filter(None, listed.split("\0")):
            _copy(root / name, files / name)
        yield Snapshot(root, files, _branch(root))


def _branch(root: Path) -> str | None:
    """The branch, which need not have a commit yet."""
    try:
        return str(git.Git(root).symbolic_ref("--short", "--quiet", "HEAD"))
    except git.exc.GitError:
        return None


def _copy(source: Path, target: Path) -> None:
    """One file as git would check it out; a submodule is an empty folder, and what was removed is not there."""
    if not source.is_symlink() and not source.exists():
        return
    target.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    if source.is_symlink():
        target.symlink_to(source.readlink())
    elif source.is_dir():
        target.mkdir(mode=0o755, exist_ok=True)
    elif source.is_file():
        shutil.copyfile(source, target)
        target.chmod(0o755 if source.stat().st_mode & stat.S_IXUSR else 0o644)
