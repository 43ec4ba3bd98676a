"""State machines of promotions and deployments, as data."""

from __future__ import annotations

from cd.store.states import Machine

_LEAVE = frozenset({"rejected", "expired", "superseded", "canceled"})
_ENDED: frozenset[str] = frozenset()

PROMOTION = Machine(
    "promotion",
    {
        "waiting": _LEAVE | {"awaiting_approval", "queued"},
        "awaiting_approval": _LEAVE | {"waiting", "queued"},
        "queued": _LEAVE | {"waiting", "awaiting_approval", "deploying"},
        "deploying": frozenset({"verifying", "failed", "errored", "aborted"}),
        "verifying": frozenset({"succeeded", "failed", "errored", "aborted", "rolling_back"}),
        "rolling_back": frozenset({"rolled_back", "rollback_failed"}),
        "succeeded": _ENDED,
        "rejected": _ENDED,
        "expired": _ENDED,
        "superseded": _ENDED,
        "canceled": _ENDED,
        "failed": _ENDED,
        "errored": _ENDED,
        "aborted": _ENDED,
        "rolled_back": _ENDED,
        "rollback_failed": _ENDED,
    },
)

#: `live` is the one that serves; `retired` was live once.
DEPLOYMENT = Machine(
    "deployment",
    {
        "deploying": frozenset({"live", "failed", "errored", "rolled_back"}),
        "live": frozenset({"retired"}),
        "retired": _ENDED,
        "failed": _ENDED,
        "errored": _ENDED,
        "rolled_back": _ENDED,
    },
)

#: Promotion states in which votes count and a newer release may take its place.
PENDING = frozenset({"waiting", "awaiting_approval", "queued"})
