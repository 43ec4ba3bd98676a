from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from cd.errors import UserError
from cd.webhooks.events import Change, Ignored
from cd.webhooks.forges import github

FIXTURES = Path(__file__).parents[4] / "shared" / "fixtures" / "webhooks" / "github"

PUSH: dict[str, Any] = {
    "ref": "refs/heads/main",
    "before": "a" * 40,
    "after": "b" * 40,
    "head_commit": {"id": "b" * 40, "message": "Fix it", "author": {"name": "Ann B", "username": "ann"}},
    "pusher": {"name": "bob"},
    "repository": {"pushed_at": 1700000000},
}


def fixture(name: str) -> bytes:
    path = FIXTURES / f"{name}.json"
    if not path.exists():
        pytest.skip(f"{path} is not on this machine")
    return path.read_bytes()


def event(kind: str, body: bytes, **headers: str) -> Change | Ignored:
    return github.event({"x-github-event": kind, **headers}, body)


@pytest.mark.parametrize(
    ("name", "ref", "sha", "before", "who"),
    [
        ("HookPush", "refs/heads/main", "366701fde727", "2f780193b136", ("nupplaphil", "6543")),
        ("HookPushForced", "refs/heads/main", "f7220f1f7532", "5ea737297f2e", None),
        ("octokit-push-with-new-branch.payload", "refs/heads/master", "6113728f27ae", None, None),
        ("octokit-push-with-no-username-committer.payload", "refs/heads/master", "6113728f27ae", None, None),
    ],
)
def test_pushes(name: str, ref: str, sha: str, before: str | None, who: tuple[str, str] | None) -> None:
    change = event("push", fixture(name))
    assert isinstance(change, Change)
    assert (change.event, change.ref, change.trusted) == ("push", ref, True)
    assert change.sha.startswith(sha)
    assert (change.before or "")[:12] == (before or "")
    assert change.message
    assert who is None or (change.author, change.pusher) == who
    assert change.pushed_at is not None


def test_a_tag() -> None:
    change = event("push", fixture("HookTag"))
    assert isinstance(change, Change)
    assert (change.event, change.ref) == ("tag", "refs/tags/the-tag-v1")
    assert change.sha == "67012991d6c69b1c58378346fca366b864d8d1a1"


def test_an_annotated_tag_runs_the_commit_that_it_names() -> None:
    body = json.dumps({**PUSH, "ref": "refs/tags/v1", "after": "c" * 40, "before": "0" * 40}).encode()
    change = event("push", body)
    assert isinstance(change, Change)
    assert (change.sha, change.before) == ("b" * 40, None)


@pytest.mark.parametrize("name", ["octokit-push-payload", "octokit-push-1.payload"])
def test_a_deleted_ref_is_ignored(name: str) -> None:
    ignored = event("push", fixture(name))
    assert isinstance(ignored, Ignored)
    assert ignored.reason == "refs/tags/simple-tag was deleted"
    assert ignored.gone == "refs/tags/simple-tag"


@pytest.mark.parametrize(
    ("name", "trusted"),
    [
        ("octokit-pull_request-opened.payload", True),
        ("octokit-pull_request-synchronize.payload", True),
        ("HookPullRequestReopened", True),
        ("HookPullRequest", False),
    ],
)
def test_pull_requests_with_new_code_run(name: str, trusted: bool) -> None:
    body = fixture(name)
    change, told = event("pull_request", body), json.loads(body)["pull_request"]
    assert isinstance(change, Change)
    assert change.event == "pull_request"
    assert change.ref == f"refs/pull/{told['number']}/head"
    assert change.sha == told["head"]["sha"]
    assert change.since == told["base"]["sha"]
    assert change.message == told["title"]
    assert change.trusted is trusted


@pytest.mark.parametrize("fork", [{"id": 2, "full_name": "eve/repo"}, None])
def test_a_pull_request_from_a_fork_is_not_trusted(fork: dict[str, Any] | None) -> None:
    told = json.loads(fixture("octokit-pull_request-opened.payload"))
    told["pull_request"]["head"]["repo"] = fork
    change = event("pull_request", json.dumps(told).encode())
    assert isinstance(change, Change)
    assert not change.trusted


@pytest.mark.parametrize("name", ["Closed", "Merged", "Edited", "LabelAdded", "AssigneeAdded", "ReviewRequested"])
def test_pull_requests_without_new_code_are_ignored(name: str) -> None:
    body = fixture(f"HookPullRequest{name}")
    ignored = event("pull_request", body)
    assert isinstance(ignored, Ignored)
    assert json.loads(body)["action"] in ignored.reason


@pytest.mark.parametrize(
    ("kind", "name"),
    [("create", "octokit-create-payload"), ("delete", "octokit-delete-payload"), ("release", "HookRelease")],
)
def test_other_events_are_ignored_with_a_reason(kind: str, name: str) -> None:
    assert event(kind, fixture(name)) == Ignored(kind, f"{kind} events start no run")


def test_a_ping_is_answered() -> None:
    assert event("ping", fixture("octokit-ping-payload")) == Ignored("ping", "pong")


def test_a_form_is_taken_as_well() -> None:
    body = urlencode({"payload": json.dumps(PUSH)}).encode()
    change = event("push", body, **{"content-type": "application/x-www-form-urlencoded"})
    assert isinstance(change, Change)
    assert change.sha == "b" * 40
    with pytest.raises(UserError, match="payload"):
        event("push", b"a=b", **{"content-type": "application/x-www-form-urlencoded"})


@pytest.mark.parametrize(
    ("changed", "where"),
    [
        ({"after": "xyz"}, "after"),
        ({"after": None}, "after"),
        ({"ref": "main"}, "ref"),
        ({"ref": "refs/heads/a\nb"}, "ref"),
        ({"ref": "refs/heads/" + "a" * 1024}, "ref"),
        ({"head_commit": {"message": 7}}, "head_commit.id"),
        ({"head_commit": []}, "head_commit"),
    ],
)
def test_a_faulty_payload_names_the_place(changed: dict[str, Any], where: str) -> None:
    with pytest.raises(UserError) as caught:
        event("push", json.dumps({**PUSH, **changed}).encode())
    assert caught.value.where == where
    assert caught.value.remedy
    assert caught.value.status == 400


@pytest.mark.parametrize("body", [b"", b"{", b"\xff\xfe", b"[1]", b"null", b'"text"', b'{"ref": "\\ud800"}'])
def test_what_is_no_json_object_is_a_clear_fault(body: bytes) -> None:
    for kind in ("push", "pull_request", "ping"):
        with pytest.raises(UserError):
            event(kind, body)


def test_names_from_outside_are_kept_as_they_are_but_for_nul() -> None:
    head = {"id": "b" * 40, "message": "\0<script>'\" 🚀", "author": {"name": "x" * 1000}}
    change = event("push", json.dumps({**PUSH, "ref": "refs/heads/<b>'\"🚀", "head_commit": head}).encode())
    assert isinstance(change, Change)
    assert change.ref == "refs/heads/<b>'\"🚀"
    assert change.message == "\ufffd<script>'\" 🚀"
    assert len(change.author) == 255


def test_a_long_message_is_cut_at_a_whole_character() -> None:
    head = {**PUSH["head_commit"], "message": "é" * 500_000}
    change = event("push", json.dumps({**PUSH, "head_commit": head}).encode())
    assert isinstance(change, Change)
    assert change.message == "é" * (32 << 10)
