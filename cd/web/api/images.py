"""Images: what of Towpath's takes room on the engine, and why it stays."""

from __future__ import annotations

from collections.abc import Sequence

from flask import Response
from pydantic import BaseModel, Field

from cd.identity.people import Role
from cd.pipeline.collection import Candidate, taken
from cd.web.api.common import part, shown
from cd.web.context import access, services

api = part("images")


class Reason(BaseModel):
    why: str = Field(description="What needs them; empty for those that may go.")
    count: int
    bytes: int


class ImagesTold(BaseModel):
    count: int
    bytes: int = Field(description="What they take together, without layers that other images need anyway.")
    limit: int = Field(description="TOWPATH_IMAGES_LIMIT.")
    reasons: list[Reason]


@api.get("/images", responses={200: ImagesTold})
@access(Role.admin)
def show_images() -> Response:
    """Images made by Towpath on the engine of the web process, counted by what needs them."""
    parts = services()
    candidates, total = parts.disk().look()
    by_reason: dict[str, list[Candidate]] = {}
    for one in candidates:
        by_reason.setdefault(one.why, []).append(one)
    reasons = [_reason(why, found) for why, found in sorted(by_reason.items())]
    return shown(ImagesTold(count=len(candidates), bytes=total, limit=parts.settings.images_limit, reasons=reasons))


def _reason(why: str, found: Sequence[Candidate]) -> Reason:
    return Reason(why=why, count=len(found), bytes=taken(found))
