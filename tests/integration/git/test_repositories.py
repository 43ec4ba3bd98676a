"""Commits from real repositories over a real git server: had exactly, or refused in words."""

from __future__ import annotations

import multiprocessing
import os
from pathlib import Path

import pytest
from gitforge import Work, project

from cd.errors import NotFound, TowpathError, UserError
from cd.pipeline.records import Project
from cd.pipeline.repositories import Repositories

MAIN = "refs/heads/main"


def test_a_commit_is_read_without_a_worktree_and_written_out_when_asked(
    repositories: Repositories, connected: Project, work: Work, upstream: Path, home: Path
) -> None:
    sha = work.commit("first\n\nbody", Dockerfile="FROM scratch\n", **{".towpath.yml": "stages: {}\n"})
    work.git("push", "--quiet", "origin", "main")
    with repositories.checkout(connected, sha, MAIN) as checkout:
        assert (checkout.sha, checkout.tree) == (sha, work.git("rev-parse", "HEAD^{tree}"))
        assert (checkout.message, checkout.author) == ("first\n\nbody\n", "Ada <ada@example.org>")
        assert checkout.pipeline == b"stages: {}\n"
        assert checkout.read("Dockerfile") == b"FROM scratch\n"
        assert checkout.read("missing") is None
        assert not (home / "work").exists()
        with checkout.files() as files:
            assert sorted(one.name for one in files.iterdir()) == [".towpath.yml", "Dockerfile"]
            assert repositories.clean() == 0, "a folder in use is not a leftover"
        assert not files.exists()


def test_the_exact_commit_is_had_after_the_branch_moved_on_or_was_deleted(
    repositories: Repositories, connected: Project, work: Work, upstream: Path
) -> None:
    old = work.commit("old", a="1")
    work.git("push", "--quiet", "origin", "main", "main:topic")
    work.commit("new", a="2")
    work.git("push", "--quiet", "origin", "main")
    with repositories.checkout(connected, old, MAIN) as checkout:
        assert checkout.sha == old
    forced = work.commit("topic", b="1")
    work.git("push", "--quiet", "origin", "HEAD:topic")
    work.git("push", "--quiet", "origin", ":topic")
    with repositories.checkout(connected, forced, "refs/heads/topic") as checkout:
        assert checkout.sha == forced


def test_a_commit_that_is_gone_is_said_to_be(
    repositories: Repositories, connected: Project, work: Work, upstream: Path
) -> None:
    work.commit("there")
    work.git("push", "--quiet", "origin", "main")
    with pytest.raises(NotFound, match=r"commit 111111111111 is no longer.*topic was deleted or force-pushed"):
        with repositories.checkout(connected, "1" * 40, "refs/heads/topic"):
            pass


def test_an_empty_repository_is_said_to_be(repositories: Repositories, connected: Project, hosted: Project) -> None:
    repositories.create_hosted(hosted, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    for one in (connected, hosted):
        assert repositories.resolve(one, MAIN) is None
        with pytest.raises(NotFound, match="the repository is empty; push a commit"):
            with repositories.checkout(one, "1" * 40, MAIN):
                pass


def test_resolve_says_what_a_ref_names_now(
    repositories: Repositories, connected: Project, hosted: Project, work: Work, upstream: Path
) -> None:
    path = repositories.create_hosted(hosted, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    sha = work.commit("tagged")
    work.git("tag", "--annotate", "--message", "one", "v1")
    for remote, one in (("origin", connected), (str(path), hosted)):
        work.git("push", "--quiet", remote, "main", "v1")
        assert repositories.resolve(one, MAIN) == sha
        assert repositories.resolve(one, "refs/tags/v1") == sha, "a tag is peeled to its commit"
        assert repositories.resolve(one, "refs/heads/none") is None


@pytest.mark.parametrize("ref", ["refs/heads/a b", "refs/heads/a~1", "main", "refs/heads/-x", "refs/heads/a..b"])
def test_odd_refs_are_refused(repositories: Repositories, connected: Project, ref: str) -> None:
    with pytest.raises(UserError, match="not taken; use a name"):
        repositories.resolve(connected, ref)
    with pytest.raises(UserError, match="not taken; use a name"):
        with repositories.checkout(connected, "1" * 40, ref):
            pass


def test_a_missing_repository_is_the_users_to_correct(repositories: Repositories, forge: str) -> None:
    with pytest.raises(UserError, match="there is no such repository; check the clone URL"):
        repositories.resolve(project(f"{forge}/none.git"), MAIN)


def test_loopback_is_not_reached_unless_listed(home: Path, connected: Project) -> None:
    outside = Repositories(home)
    with pytest.raises(UserError, match="only https and ssh"):
        outside.resolve(connected, MAIN)
    for host in ("localhost", "2130706433", "0x7f.1"):
        with pytest.raises(UserError, match="inner network"):
            outside.resolve(project(f"https://{host}:1/shop.git"), MAIN)


def _plant(work: Work, name: str, target: str) -> str:
    (work.path / name).symlink_to(target)
    return work.commit(f"{name} is a link")


def test_symbolic_links_are_not_followed(
    repositories: Repositories, connected: Project, work: Work, upstream: Path
) -> None:
    dockerfile = _plant(work, "Dockerfile", "/etc/passwd")
    context = _plant(work, "web", "/etc")
    pipeline = _plant(work, ".towpath.yml", "/etc/shadow")
    work.git("push", "--quiet", "origin", "main")
    with repositories.checkout(connected, dockerfile, MAIN) as checkout:
        with pytest.raises(UserError, match="Dockerfile: a symbolic link"):
            checkout.read("Dockerfile")
    with repositories.checkout(connected, context, MAIN) as checkout:
        with pytest.raises(UserError, match="web: a symbolic link"):
            checkout.check_folder("web/app")
    with pytest.raises(UserError, match=r"\.towpath\.yml: a symbolic link"):
        with repositories.checkout(connected, pipeline, MAIN):
            pass


def test_submodules_and_filters_of_the_repository_do_nothing(
    repositories: Repositories, connected: Project, work: Work, upstream: Path, tmp_path: Path
) -> None:
    proof = tmp_path / "proof"
    hostile = f'[submodule "x]\\n[core]\\nfsmonitor = touch {proof}"]\n path = sub\n url = ext::sh -c "touch {proof}"\n'
    (work.path / ".gitmodules").write_text(hostile)
    (work.path / ".gitattributes").write_text("* filter=evil\n")
    work.git("update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},sub")
    work.git("add", ".gitattributes")
    work.git("-c", "core.protectHFS=false", "commit", "--quiet", "--message", "sub")
    sha = work.head()
    work.git("push", "--quiet", "origin", "main")
    with repositories.checkout(connected, sha, MAIN) as checkout, checkout.files() as files:
        assert list((files / "sub").iterdir()) == []
    assert not proof.exists()


def test_a_pipeline_file_over_256_kib_is_refused(
    repositories: Repositories, connected: Project, work: Work, upstream: Path
) -> None:
    sha = work.commit("large", **{".towpath.yml": "#" * (300 << 10)})
    work.git("push", "--quiet", "origin", "main")
    with pytest.raises(UserError, match=r"\.towpath\.yml: the file is over 256 KiB"):
        with repositories.checkout(connected, sha, MAIN):
            pass


def _fetch(home: Path, connected: Project, sha: str, told: multiprocessing.SimpleQueue[str]) -> None:
    try:
        with Repositories(home, internal_hosts={"localhost"}).checkout(connected, sha, MAIN) as checkout:
            told.put(checkout.sha)
    except TowpathError as error:
        told.put(str(error))


def test_workers_that_fetch_the_same_mirror_at_once_all_succeed(
    home: Path, connected: Project, work: Work, upstream: Path
) -> None:
    sha = work.commit("one", a="1")
    work.git("push", "--quiet", "origin", "main")
    told: multiprocessing.SimpleQueue[str] = multiprocessing.SimpleQueue()
    workers = [multiprocessing.Process(target=_fetch, args=(home, connected, sha, told)) for _ in range(4)]
    for one in workers:
        one.start()
    for one in workers:
        one.join()
    assert [told.get() for _ in workers] == [sha] * 4


def _die_with_a_worktree(home: Path, connected: Project, sha: str) -> None:
    with Repositories(home, internal_hosts={"localhost"}).checkout(connected, sha, MAIN) as checkout:
        with checkout.files():
            os._exit(9)


def test_what_a_crash_left_is_removed(
    repositories: Repositories, home: Path, connected: Project, work: Work, upstream: Path
) -> None:
    sha = work.commit("one", a="1")
    work.git("push", "--quiet", "origin", "main")
    worker = multiprocessing.Process(target=_die_with_a_worktree, args=(home, connected, sha))
    worker.start()
    worker.join()
    assert len([one for one in (home / "work").iterdir() if one.is_dir()]) == 1
    assert repositories.clean() == 1
    assert [one for one in (home / "work").iterdir() if one.is_dir()] == []


def test_git_sees_nothing_of_our_environment(
    repositories: Repositories, connected: Project, work: Work, upstream: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sha = work.commit("one")
    work.git("push", "--quiet", "origin", "main")
    monkeypatch.setenv("GIT_DIR", "/nowhere")
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", "http.proxy")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", "http://127.0.0.1:1")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    with repositories.checkout(connected, sha, MAIN) as checkout:
        assert checkout.sha == sha
