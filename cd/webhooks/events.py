"""What a webhook says, as frozen values; and the rules that all forges' payloads are held to."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from cd.errors import UserError

MAX_REF = 1 << 10
MAX_MESSAGE = 64 << 10
MAX_NAME = 255
_SHA = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


@dataclass(frozen=True)
class Change:
    """A ref came to point at `sha`: a push, a tag, or a pull request. Calls for a run."""

    #: push, tag or pull_request, as in Run.event.
    event: str
    #: Full ref, such as refs/heads/main or refs/pull/7/head.
    ref: str
    #: The commit to run, 40 or 64 hexadecimal digits.
    sha: str
    #: Where the ref was before; None for a new one, or where the forge does not say.
    before: str | None = None
    #: The commit that a pull request wants to be merged into; None for what is no pull request.
    base: str | None = None
    message: str = ""
    author: str = ""
    pusher: str = ""
    #: False for code of somebody who may not push here: a fork.
    trusted: bool = True
    #: By the forge's clock; None where it does not say.
    pushed_at: datetime | None = None

    @property
    def since(self) -> str | None:
        """The commit that its changes are told against: all of a pull request's, the last push's of a branch."""
        return self.base if self.event == "pull_request" else self.before


@dataclass(frozen=True)
class Ignored:
    """Nothing follows, for this reason. `gone` names a ref that was deleted, seen last at `before`."""

    event: str
    reason: str
    gone: str | None = None
    before: str | None = None


Event = Change | Ignored


def full_ref(value: str, where: str = "ref") -> str:
    """A full ref that can be stored and shown. Raises UserError."""
    if len(value.encode(errors="replace")) > MAX_REF:
        raise UserError(f"the ref is over {MAX_REF} bytes", where=where, remedy="rename the branch")
    if _CONTROL.search(value):
        raise UserError("the ref has control characters in it", where=where, remedy="rename the branch")
    if not value.startswith("refs/") or value.count("/") < 2 or value.endswith("/"):
        raise UserError(f"{value[:80]!r} is not a full ref", where=where, remedy="write it like refs/heads/main")
    return value


def commit_id(value: str, where: str) -> str | None:
    """A commit id in lower case; None for the zeros that stand for no commit. Raises UserError."""
    value = value.lower()
    if not _SHA.fullmatch(value):
        raise UserError(f"{value[:80]!r} is not a commit id", where=where, remedy="send all 40 hexadecimal digits")
    return value if value.strip("0") else None


def message(value: str | None) -> str:
    """A commit message, cut to 64 KiB, without what a database refuses."""
    text = _inert(value or "")
    raw = text.encode()
    return text if len(raw) <= MAX_MESSAGE else raw[:MAX_MESSAGE].decode(errors="ignore")


def name(*values: str | None) -> str:
    """The first of the names that says something, at most 255 characters."""
    return _inert(next((value for value in values if value), ""))[:MAX_NAME]


def ref_event(ref: str) -> str | None:
    """push for a branch, tag for a tag, None for other refs."""
    if ref.startswith("refs/heads/"):
        return "push"
    return "tag" if ref.startswith("refs/tags/") else None


def fault(errors: list[Any], source: str) -> UserError:
    """The first of pydantic's errors on a payload, with its place; `source` says who should send what."""
    first = errors[0]
    where = ".".join(str(part) for part in first["loc"])
    text = str(first["msg"]).removeprefix("Value error, ")
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    if first["type"] == "missing":
        text = "it is missing"
    return UserError(f"{text}{more}", where=where or "body", remedy=source)


def _inert(text: str) -> str:
    """PostgreSQL refuses NUL, and no database takes half a surrogate pair."""
    return text.replace("\0", "\ufffd").encode(errors="replace").decode()
