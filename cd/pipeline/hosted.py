"""Hosted repositories on disk: the bare repository, its hook, and the pushes that the hook kept."""

from __future__ import annotations

import json
import os
import secrets
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from time import time

from cd.errors import ServiceError
from cd.pipeline import post_receive
from cd.pipeline.git import Git

#: A kept push younger than this, in seconds, is still the hook's own to deliver.
HOOK_AGE = post_receive.PATIENCE + 2
#: The kernel cuts a longer first line of a script.
LONGEST_SHEBANG = 250


@dataclass(frozen=True)
class Spooled:
    """A push that could not be handed over; `headers` are signed now."""

    project_id: int
    slug: str
    headers: dict[str, str]
    body: bytes
    path: Path

    def done(self) -> None:
        """It was taken: forget it."""
        self.path.unlink(missing_ok=True)

    def refuse(self) -> None:
        """It will never be taken: keep it aside for an admin, out of the way."""
        aside = self.path.parent.parent / "refused"
        aside.mkdir(exist_ok=True)
        self.path.replace(aside / self.path.name)


def create(path: Path, home: Path, told: dict[str, str], project_id: int) -> None:
    """Make the repository with its hook; one that is there gets the hook anew."""
    if not (path / "HEAD").exists():
        fresh = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        Git(fresh, home).run("init", "--quiet", "--bare", "--initial-branch=main", "--template=", str(fresh))
        _prepare(fresh, told, project_id)
        fresh.rename(path)
    else:
        _prepare(path, told, project_id)


def _prepare(path: Path, told: dict[str, str], project_id: int) -> None:
    (path / post_receive.SPOOL).mkdir(parents=True, exist_ok=True)
    (path / "hooks").mkdir(exist_ok=True)
    write(path / post_receive.FOLDER / "hook.json", json.dumps({**told, "id": project_id}), 0o600)
    write(path / "hooks" / "post-receive", script(sys.executable), 0o755)


def script(python: str) -> str:
    """The hook's text, for this interpreter, without the site packages that it does not need."""
    source = Path(post_receive.__file__).read_text(encoding="utf-8")
    shebang = f"#!{python} -IS\n"
    if " " not in python and len(shebang) < LONGEST_SHEBANG:
        return shebang + source
    raise ServiceError(
        f"the path of Python is too long or has a space in it: {python}",
        retryable=False,
        remedy="install Towpath in a virtualenv with a shorter path",
    )


def write(path: Path, text: str, mode: int) -> None:
    """Replace a file whole, unless it says the same already."""
    if path.exists() and path.read_text(encoding="utf-8") == text:
        return
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with open(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    fresh.chmod(mode)
    fresh.replace(path)


def owner(path: Path) -> int | None:
    """Id of the project that the repository was made for, None when there is no repository."""
    try:
        told = json.loads((path / post_receive.FOLDER / "hook.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return int(told["id"])


def spooled(repositories: Path) -> Iterator[Spooled]:
    """All pushes that were kept a while ago, oldest first in each repository."""
    latest = time() - HOOK_AGE
    for spool in sorted(repositories.glob(f"*.git/{post_receive.SPOOL}")):
        kept = sorted(one.name for one in os.scandir(spool) if one.name.endswith(".json"))
        for path in (spool / name for name in kept):
            found = _kept(path, latest)
            if found is not None:
                yield found


def _kept(path: Path, latest: float) -> Spooled | None:
    try:
        if path.stat().st_mtime > latest:
            return None
        body = path.read_bytes()
        told = json.loads((path.parent.parent / "hook.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None  # the hook delivered it at this moment
    name = path.stem.split("-", 1)[1]
    return Spooled(told["id"], told["project"], post_receive.headers(told["secret"], name, body), body, path)
