from __future__ import annotations

from datetime import UTC, datetime, timedelta

from cd.webhooks.events import Change
from cd.webhooks.order import Newest, continues, overtaken

A, B, C = "a" * 40, "b" * 40, "c" * 40
NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)


def change(sha: str, before: str | None = None, at: datetime | None = None) -> Change:
    return Change("push", "refs/heads/main", sha, before, pushed_at=at)


def test_the_first_of_a_ref_is_never_overtaken() -> None:
    assert not overtaken(change(A), None, False)


def test_a_push_that_begins_at_the_newest_continues_it() -> None:
    assert continues(change(C, B), Newest(B, A, None))
    assert not continues(change(C, A), Newest(B, A, None))
    assert not continues(change(A), None)


def test_a_push_back_to_an_older_commit_is_news_and_its_copy_is_not() -> None:
    back = change(A, B)
    assert continues(back, Newest(B, A, None))
    assert not continues(back, Newest(A, B, None))


def test_where_the_newest_began_is_older() -> None:
    assert "begins at this commit" in overtaken(change(A), Newest(B, A, None), False)


def test_where_any_known_one_began_is_older() -> None:
    assert overtaken(change(A), Newest(C, B, None), True)


def test_the_forges_clock_tells_when_the_chain_does_not() -> None:
    assert "newer" in overtaken(change(A, None, NOON), Newest(C, B, NOON + timedelta(seconds=1)), False)
    assert not overtaken(change(A, None, NOON), Newest(C, B, NOON), False)
    assert not overtaken(change(A, None, NOON), Newest(C, B, None), False)


def test_after_its_deletion_a_ref_begins_anew() -> None:
    assert not overtaken(change(A, None, NOON), Newest(None, B, None), True)
