"""Whether a change that arrives now was overtaken: forges send pushes in no certain order."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from cd.webhooks.events import Change


@dataclass(frozen=True)
class Newest:
    """The newest change of the same ref that is known. `sha` is None when that was its deletion."""

    sha: str | None
    before: str | None
    pushed_at: datetime | None


def continues(change: Change, newest: Newest | None) -> bool:
    """Whether the change begins where the newest one ended: nothing can have overtaken it.

    This holds for a push back to an older commit as well, which is news though the commit is not; a copy of an
    older delivery under a new id does not begin there.
    """
    return newest is not None and newest.sha is not None and change.before == newest.sha != change.sha


def overtaken(change: Change, newest: Newest | None, left_behind: bool) -> str:
    """Why the change is older than what is known of its ref; empty when it is not, or when that can't be told.

    For changes that do not continue the newest one.

    `left_behind`: some known change of the ref began at this change's commit.
    """
    if newest is None or newest.sha is None:
        return ""
    if change.sha == newest.before or left_behind:
        return "a newer push of this ref, which begins at this commit, arrived before it"
    if change.pushed_at and newest.pushed_at and change.pushed_at < newest.pushed_at:
        return f"a push of {newest.pushed_at:%Y-%m-%d %H:%M:%S} UTC, which is newer, arrived before it"
    return ""
