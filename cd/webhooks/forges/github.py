"""GitHub: pushes, tags and pull requests."""

from __future__ import annotations

from datetime import UTC, datetime
from urllib.parse import parse_qs

from pydantic import AwareDatetime

from cd.errors import UserError
from cd.webhooks import signature
from cd.webhooks.events import Change, Event, Ignored, commit_id, full_ref, message, name, ref_event
from cd.webhooks.forges.base import Payload, header_id, read
from cd.webhooks.signature import Headers

KEPT = ("content-type", "user-agent", "x-github-", "x-hub-signature-256")
SOURCE = "send GitHub's own payload"
#: Actions of a pull request that bring new code.
FRESH = frozenset({"opened", "synchronize", "reopened"})


class Author(Payload):
    """Who wrote a commit."""

    name: str | None = None
    username: str | None = None


class Commit(Payload):
    """The commit that a push ends at."""

    id: str
    message: str = ""
    author: Author = Author()


class Account(Payload):
    """A user of GitHub; pushers have a name, senders a login."""

    name: str | None = None
    login: str | None = None


class Repository(Payload):
    """A repository; `pushed_at` is Unix time in pushes, text elsewhere."""

    id: int | None = None
    full_name: str | None = None
    pushed_at: int | str | None = None


class Push(Payload):
    """X-GitHub-Event: push."""

    ref: str
    before: str
    after: str
    deleted: bool = False
    head_commit: Commit | None = None
    pusher: Account = Account()
    sender: Account = Account()
    repository: Repository = Repository()


class Side(Payload):
    """Head or base of a pull request; without a repository when the fork is gone."""

    sha: str
    repo: Repository | None = None


class Pull(Payload):
    """The pull request itself."""

    number: int
    title: str = ""
    user: Account | None = None
    head: Side
    base: Side
    updated_at: AwareDatetime | None = None


class PullRequest(Payload):
    """X-GitHub-Event: pull_request."""

    action: str
    pull_request: Pull
    before: str | None = None
    sender: Account = Account()


class Action(Payload):
    """What is read first of a pull request's event."""

    action: str


def verify(secret: str, headers: Headers, body: bytes, at: float) -> None:
    """See Forge. The SHA-1 signature that GitHub sends as well is not looked at."""
    signature.check_hex(secret, headers, "x-hub-signature-256", body)


def delivery_id(headers: Headers) -> str:
    """See Forge."""
    return header_id(headers, "x-github-delivery")


def event(headers: Headers, body: bytes) -> Event:
    """See Forge."""
    kind = headers.get("x-github-event", "").strip()
    if not kind:
        raise UserError("the header x-github-event is missing", remedy=SOURCE)
    body = _json(headers, body)
    if kind == "push":
        return _push(read(Push, body, SOURCE))
    if kind == "pull_request":
        action = read(Action, body, SOURCE).action
        if action not in FRESH:
            return Ignored(f"pull_request.{action}", f"a pull request that is {action} brings no new code")
        return _pull(read(PullRequest, body, SOURCE))
    read(Payload, body, SOURCE)
    if kind == "ping":
        return Ignored("ping", "pong")
    return Ignored(kind, f"{kind} events start no run")


def _json(headers: Headers, body: bytes) -> bytes:
    """The JSON itself: GitHub wraps it into a form unless told otherwise."""
    if not headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
        return body
    fields = parse_qs(body, max_num_fields=16)
    if b"payload" not in fields:
        raise UserError("the form has no field `payload`", where="body", remedy="set the content type to JSON")
    return fields[b"payload"][0]


def _push(push: Push) -> Event:
    ref = full_ref(push.ref)
    kind, sha, before = ref_event(ref), commit_id(push.after, "after"), commit_id(push.before, "before")
    if kind is None:
        return Ignored("push", f"{ref} is neither a branch nor a tag")
    if sha is None or push.deleted:
        return Ignored(kind, f"{ref} was deleted", gone=ref, before=before)
    head = push.head_commit
    if kind == "tag" and head is not None:
        # `after` of an annotated tag is the tag, not the commit.
        sha = commit_id(head.id, "head_commit.id") or sha
    return Change(
        event=kind,
        ref=ref,
        sha=sha,
        before=before,
        message=message(head.message if head else ""),
        author=name(head.author.username, head.author.name) if head else "",
        pusher=name(push.sender.login, push.pusher.name),
        pushed_at=_time(push.repository.pushed_at),
    )


def _pull(request: PullRequest) -> Event:
    pull = request.pull_request
    sha = commit_id(pull.head.sha, "pull_request.head.sha")
    if sha is None:
        return Ignored("pull_request", f"pull request {pull.number} has no commit")
    return Change(
        event="pull_request",
        ref=f"refs/pull/{pull.number}/head",
        sha=sha,
        before=commit_id(request.before, "before") if request.before else None,
        base=commit_id(pull.base.sha, "pull_request.base.sha"),
        message=message(pull.title),
        author=name(pull.user.login if pull.user else None),
        pusher=name(request.sender.login),
        trusted=_same(pull.head.repo, pull.base.repo),
        pushed_at=pull.updated_at,
    )


def _same(head: Repository | None, base: Repository | None) -> bool:
    """Whether a pull request comes from the repository itself; who does not say so is a stranger."""
    if head is None or base is None:
        return False
    if head.id is not None and base.id is not None:
        return head.id == base.id
    return head.full_name is not None and head.full_name == base.full_name


def _time(value: int | str | None) -> datetime | None:
    try:
        return datetime.fromtimestamp(value, UTC) if isinstance(value, int) else None
    except (OverflowError, ValueError, OSError):
        return None
