"""Any sender that signs as Standard Webhooks do: the hook of hosted repositories, or a script of one's own."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AwareDatetime, Field

from cd.webhooks import signature
from cd.webhooks.events import Change, Event, Ignored, commit_id, full_ref, message, name, ref_event
from cd.webhooks.forges.base import Payload, header_id, read
from cd.webhooks.signature import Headers

KEPT = ("content-type", "user-agent", "webhook-")
SOURCE = 'send JSON like {"type": "push", "ref": "refs/heads/main", "after": "<commit id>"}'


class Commit(Payload):
    """The commit that the ref points at; for an annotated tag the one that the tag names."""

    id: str | None = None
    message: str | None = None
    author: str | None = None


class Push(Payload):
    """The only type so far. Nothing but `type`, `ref` and `after` must be there."""

    type: Literal["push"]
    ref: str
    before: str | None = None
    after: str
    deleted: bool = False
    commit: Commit | None = None
    pusher: str | None = None
    created_at: AwareDatetime | None = None


class Kind(Payload):
    """What is read first."""

    type: Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[!-~]+$")]


def verify(secret: str, headers: Headers, body: bytes, at: float) -> None:
    """See Forge."""
    signature.check_standard(secret, headers, body, at)


def delivery_id(headers: Headers) -> str:
    """See Forge."""
    return header_id(headers, "webhook-id")


def event(headers: Headers, body: bytes) -> Event:
    """See Forge."""
    kind = read(Kind, body, SOURCE).type
    if kind == "ping":
        return Ignored("ping", "pong")
    if kind != "push":
        return Ignored(kind, f"{kind} events start no run")
    return _push(read(Push, body, SOURCE))


def _push(push: Push) -> Event:
    ref = full_ref(push.ref)
    kind, sha = ref_event(ref), commit_id(push.after, "after")
    before = commit_id(push.before, "before") if push.before else None
    if kind is None:
        return Ignored("push", f"{ref} is neither a branch nor a tag")
    if sha is None or push.deleted:
        return Ignored(kind, f"{ref} was deleted", gone=ref, before=before)
    commit = push.commit or Commit()
    if kind == "tag" and commit.id:
        sha = commit_id(commit.id, "commit.id") or sha
    return Change(
        event=kind,
        ref=ref,
        sha=sha,
        before=before,
        message=message(commit.message),
        author=name(commit.author),
        pusher=name(push.pusher),
        pushed_at=push.created_at,
    )
