"""How states, times and digests are shown: one place for words, tones and icons."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from cd.pipeline.queries import StepRow
from cd.store.base import now
from cd.units import format_seconds


@dataclass(frozen=True)
class State:
    """What a state looks like. `tone` picks the colour and `icon` the shape, so that neither is alone."""

    text: str
    tone: str
    icon: str


_STATES = {
    "queued": State("queued", "wait", "clock"),
    "waiting": State("waiting", "idle", "clock"),
    "running": State("running", "run", "spin"),
    "passed": State("passed", "ok", "check"),
    "reused": State("reused", "ok", "reuse"),
    "failed": State("failed", "bad", "cross"),
    "errored": State("errored", "bad", "alert"),
    "canceled": State("canceled", "idle", "stop"),
    "superseded": State("superseded", "idle", "skip"),
    "skipped": State("skipped", "idle", "skip"),
    "awaiting_approval": State("awaiting approval", "wait", "hand"),
    "deploying": State("deploying", "run", "spin"),
    "verifying": State("verifying", "run", "spin"),
    "succeeded": State("succeeded", "ok", "check"),
    "rejected": State("rejected", "bad", "cross"),
    "expired": State("expired", "idle", "clock"),
    "aborted": State("aborted", "bad", "stop"),
    "rolling_back": State("rolling back", "run", "spin"),
    "rolled_back": State("rolled back", "bad", "back"),
    "rollback_failed": State("rollback failed", "bad", "alert"),
    "live": State("live", "ok", "check"),
    "retired": State("retired", "idle", "skip"),
    "blocked": State("blocked", "bad", "stop"),
}

#: Why a container ended, in words.
CAUSES = {
    "out_of_memory": "out of memory",
    "timeout": "over its time limit",
    "service": "a service ended",
    "output": "too much output",
    "artifacts": "artifacts not kept",
}


def state(name: str) -> State:
    """The look of a state; one that is not known is shown by its name."""
    return _STATES.get(name) or State(name.replace("_", " "), "idle", "clock")


def shown(what: str | StepRow) -> State:
    """The look of a state, or of a build or stage: a failure that is allowed is neither green nor red."""
    if isinstance(what, str):
        return state(what)
    if what.allow_failure and what.state in ("failed", "errored"):
        return State(f"{what.state}, which it may", "wait", "alert")
    return State("left out", "idle", "skip") if what.left_out else state(what.state)


def age(at: datetime | None, until: datetime | None = None) -> str:
    """How long ago, in one unit: "now", "5 min", "3 h", "12 d"; dates after two months."""
    if at is None:
        return ""
    seconds = max(0.0, ((until or now()) - at).total_seconds())
    if seconds < 45:
        return "now"
    for size, limit, unit in ((60, 60, "min"), (3600, 48, "h"), (86400, 60, "d")):
        if seconds < size * limit - size / 2:
            return f"{max(1, round(seconds / size))} {unit}"
    return at.strftime("%d %b %Y")


def ago(at: datetime | None) -> str:
    """`age` as an end of a sentence."""
    text = age(at)
    if text in ("", "now"):
        return "just now" if text else ""
    return text if text[-1].isdigit() else f"{text} ago"


def took(begin: datetime | None, end: datetime | None) -> str:
    """A duration for people; up to now when it has no end."""
    return "" if begin is None else format_seconds(max(0.0, ((end or now()) - begin).total_seconds()))


def moment(at: datetime | None) -> str:
    """A time in full, for titles and `datetime` attributes."""
    return "" if at is None else at.strftime("%Y-%m-%dT%H:%M:%SZ")


def clock(at: datetime | str) -> str:
    """Hours, minutes and seconds of a time, given as such or in ISO form."""
    if isinstance(at, datetime):
        return at.strftime("%H:%M:%S")
    return at[11:19] if len(at) >= 19 else at


def digest(image: str | None) -> str:
    """The beginning of an image's digest."""
    if not image:
        return ""
    kind, _, value = image.rpartition(":")
    return f"{kind}:{value[:12]}" if kind else value[:12]


def sha(commit: str) -> str:
    """The beginning of a commit."""
    return commit[:8]


def plural(count: int, word: str) -> str:
    """ "1 run", "2 runs"."""
    return f"{count:,} {word}" + ("" if count == 1 else "s")
