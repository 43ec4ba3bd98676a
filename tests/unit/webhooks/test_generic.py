from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from cd.errors import UserError
from cd.pipeline import post_receive
from cd.webhooks.events import Change, Event, Ignored
from cd.webhooks.forges import FORGES, generic

LEAST = {"type": "push", "ref": "refs/heads/main", "after": "b" * 40}


def event(told: Any) -> Event:
    return generic.event({}, json.dumps(told).encode())


def test_type_ref_and_after_are_enough() -> None:
    assert event(LEAST) == Change("push", "refs/heads/main", "b" * 40)


def test_everything() -> None:
    told = {
        **LEAST,
        "after": "B" * 40,
        "before": "a" * 40,
        "deleted": False,
        "commit": {"id": "b" * 40, "message": "Fix", "author": "Ann <a@example.org>"},
        "pusher": "ann",
        "created_at": "2026-11-24T12:00:00Z",
    }
    assert event(told) == Change(
        event="push",
        ref="refs/heads/main",
        sha="b" * 40,
        before="a" * 40,
        message="Fix",
        author="Ann <a@example.org>",
        pusher="ann",
        pushed_at=datetime(2026, 11, 24, 12, tzinfo=UTC),
    )


def test_a_tag_runs_the_commit_that_it_names() -> None:
    told = {**LEAST, "ref": "refs/tags/v1", "commit": {"id": "c" * 40}}
    assert event(told) == Change("tag", "refs/tags/v1", "c" * 40)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"after": "0" * 40, "before": "a" * 40}, "refs/heads/main was deleted"),
        ({"deleted": True}, "refs/heads/main was deleted"),
        ({"ref": "refs/notes/commits"}, "refs/notes/commits is neither a branch nor a tag"),
        ({"type": "ping"}, "pong"),
        ({"type": "deploy"}, "deploy events start no run"),
    ],
)
def test_ignored_with_a_reason(changed: dict[str, Any], reason: str) -> None:
    ignored = event({**LEAST, **changed})
    assert isinstance(ignored, Ignored)
    assert ignored.reason == reason


@pytest.mark.parametrize(
    ("told", "where"),
    [
        ([], "body"),
        ({}, "type"),
        ({"type": "push"}, "ref"),
        ({**LEAST, "after": "HEAD"}, "after"),
        ({**LEAST, "before": "1"}, "before"),
        ({**LEAST, "commit": {"message": []}}, "commit.message"),
        ({**LEAST, "created_at": "yesterday"}, "created_at"),
        ({**LEAST, "created_at": "2026-11-24T12:00:00"}, "created_at"),
        ({**LEAST, "deleted": "perhaps"}, "deleted"),
    ],
)
def test_faults_name_the_place_and_what_to_do(told: Any, where: str) -> None:
    with pytest.raises(UserError) as caught:
        event(told)
    assert caught.value.where == where
    assert caught.value.remedy


def test_broken_json_says_where() -> None:
    with pytest.raises(UserError, match="line 1 column 8"):
        generic.event({}, b'{"type":')


@pytest.mark.parametrize(("value", "fault"), [("", "missing"), ("x" * 201, "over 200"), ("a\tb", "printable")])
def test_a_delivery_needs_a_plain_id(value: str, fault: str) -> None:
    with pytest.raises(UserError, match=fault):
        generic.delivery_id({"webhook-id": value})


def test_the_hook_of_hosted_repositories_and_this_agree() -> None:
    secret, body = "whsec_" + "QUJD" * 8, b'{"type": "ping"}'
    headers = post_receive.headers(secret, "msg_1", body)
    generic.verify(secret, headers, body, datetime.now(UTC).timestamp())
    assert generic.delivery_id(headers) == "msg_1"


def test_no_forge_stores_a_secret() -> None:
    for forge in FORGES.values():
        assert not any(name.startswith(forge.KEPT) for name in ("authorization", "cookie", "x-gitlab-token"))
