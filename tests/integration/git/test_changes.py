"""What changed since a commit, told by the local repository alone."""

from __future__ import annotations

from pathlib import Path

import pytest
from gitforge import Work

from cd.pipeline import changes
from cd.pipeline.records import Project
from cd.pipeline.repositories import Repositories

MAIN = "refs/heads/main"


def test_paths_since_the_commits_parted(
    repositories: Repositories, connected: Project, work: Work, upstream: Path
) -> None:
    first = work.commit("first", same="1", moved="a longer text that git would take for the same file\n")
    work.git("mv", "moved", "elsewhere")
    topic = work.commit("topic", **{"ü \n.py": "1"})
    work.git("checkout", "--quiet", "-b", "other", first)
    other = work.commit("other", other="1")
    work.git("push", "--quiet", "origin", "main", "other")
    with repositories.checkout(connected, other, "refs/heads/other") as checkout:
        assert checkout.changed(first) == ("other",)
    with repositories.checkout(connected, topic, MAIN) as checkout:
        assert checkout.changed(first) == ("elsewhere", "moved", "ü \n.py")
        assert checkout.changed(other) == checkout.changed(first), "what the other side did is not of this commit"
        assert checkout.changed(topic) == ()


def test_what_can_not_be_told_is_none(
    repositories: Repositories,
    connected: Project,
    work: Work,
    upstream: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = work.commit("first", a="1")
    work.git("checkout", "--quiet", "--orphan", "apart")
    apart = work.commit("apart", b="1")
    last = work.commit("last", **{f"{'x' * 40}{number}": "" for number in range(9)})
    work.git("push", "--quiet", "origin", "main", "apart")
    with repositories.checkout(connected, first, MAIN):
        pass
    with repositories.checkout(connected, last, "refs/heads/apart") as checkout:
        assert checkout.changed(first) is None, "no history in common"
        assert checkout.changed("1" * 40) is None, "not here"
        assert checkout.changed("--output=/tmp/x") is None
        monkeypatch.setattr(changes, "LARGEST_DIFF", 100)
        assert checkout.changed(apart) is None, "more than is read"
