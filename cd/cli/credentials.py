"""Which server, and with which token: from the environment, or as `towpath login` kept it."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from cd.errors import UserError


@dataclass(frozen=True)
class Credentials:
    """A server's base URL without a trailing slash, and a token for it."""

    url: str
    token: str


def path() -> Path:
    """Where they are kept: `~/.config/towpath/credentials.json`, or below XDG_CONFIG_HOME."""
    base = os.environ.get("XDG_CONFIG_HOME") or Path("~/.config").expanduser()
    return Path(base) / "towpath" / "credentials.json"


def load() -> Credentials:
    """TOWPATH_URL and TOWPATH_TOKEN, else what is kept. A kept token goes to the server that it is for, no other.

    Raises UserError.
    """
    url, token = os.environ.get("TOWPATH_URL", "").rstrip("/"), os.environ.get("TOWPATH_TOKEN", "")
    kept = None if url and token else _kept()
    if kept is not None and (not url or url == kept.url):
        return Credentials(kept.url, token or kept.token)
    if url and token:
        return Credentials(url, token)
    if url or token:
        missing = "TOWPATH_TOKEN" if url else "TOWPATH_URL"
        raise UserError(f"{missing} is not set", remedy="set both, or neither and run `towpath login URL`")
    raise UserError("you are not logged in", remedy="run `towpath login URL`")


def save(credentials: Credentials) -> Path:
    """Keep them for this user alone; returns where."""
    where = path()
    where.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fresh = where.with_name(f".{where.name}.{os.getpid()}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(descriptor, "w", encoding="utf-8") as file:
        json.dump(asdict(credentials), file)
    fresh.replace(where)
    return where


def _kept() -> Credentials | None:
    where = path()
    try:
        told = json.loads(where.read_text(encoding="utf-8"))
        return Credentials(str(told["url"]), str(told["token"]))
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise UserError("the file is broken", where=str(where), remedy="run `towpath login URL` again") from error
