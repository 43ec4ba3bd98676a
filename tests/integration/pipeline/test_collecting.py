"""What stages leave: which of it is kept, which is refused, and what is said of it."""

from __future__ import annotations

import tarfile
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import pytest
import rows
from leaving import collect, entry, report
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from cd.errors import NotFound
from cd.pipeline import artifacts, reports, taking, testhistory
from cd.pipeline.artifacts import ArtifactStore
from cd.pipeline.collecting import Collected
from cd.pipeline.definition import StageSpec
from cd.pipeline.records import Artifact, Attempt, Run, Step, TestCase, TestResult, Verdict
from cd.store.base import now
from cd.store.database import Database

IMAGE = "sha256:" + "1" * 64
STAGE = "stages:\n  unit: {run: pytest}\n"


def stored(home: Path) -> dict[str, bytes]:
    folder = home / "blobs"
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def kept(collected: Collected) -> dict[str, int]:
    return {path: one.size for path, one in collected.artifacts}


def test_a_stage_that_asks_for_nothing_is_not_looked_at(tmp_path: Path) -> None:
    assert collect(tmp_path, {"/work/x": b"1"}) == Collected()
    assert stored(tmp_path) == {}


def test_reports_and_artifacts_are_told_apart(tmp_path: Path) -> None:
    files = {
        "/work/junit.xml": report(a="passed", b="failed"),
        "/work/more/junit-2.xml": report(c="skipped", d="error"),
        "/work/dist/app.whl": b"wheel",
        "/work/dist/docs/index.html": b"",
        "/work/other": b"other",
        "/tmp/core": b"core",
    }
    found = collect(
        tmp_path,
        files,
        reports={"junit": ["/work/*.xml", "/work/more/*"]},
        artifacts=["/work/dist/*", "/work/junit.xml"],
    )
    assert found.report == {
        "files": 2, "suites": 2, "tests": 4, "passed": 1, "failed": 1, "errors": 1, "skipped": 1, "seconds": 2.0,
    }  # fmt: skip
    assert (found.notes, found.lost) == ((), "")
    sizes = {"/work/junit.xml": len(files["/work/junit.xml"]), "/work/dist/app.whl": 5, "/work/dist/docs/index.html": 0}
    assert kept(found) == sizes
    assert sorted(stored(tmp_path).values()) == sorted([b"wheel", b"", files["/work/junit.xml"]])
    assert [case.name for case in found.cases] == ["d", "b", "a", "c"]


def test_links_devices_and_names_that_lead_out_are_left_out(tmp_path: Path) -> None:
    files = {
        "/work/out/passwd": entry(tarfile.SYMTYPE, "/etc/passwd"),
        "/work/out/second": entry(tarfile.LNKTYPE, "/etc/shadow"),
        "/work/out/null": entry(tarfile.CHRTYPE),
        "/work/out/pipe": entry(tarfile.FIFOTYPE),
        "/work/out/../../../../etc/cron.d/x": b"evil",
        "/work/out/good": b"good",
    }
    found = collect(tmp_path, files, artifacts=["/work/out/**"])
    assert kept(found) == {"/work/out/good": 4}
    assert found.lost == ""
    told = "; ".join(found.notes)
    for name in ("passwd", "second", "null", "pipe", "cron.d/x"):
        assert name in told
    assert list(stored(tmp_path).values()) == [b"good"]
    assert [path.name for path in tmp_path.iterdir()] == ["blobs"]


def test_more_than_the_quota_is_lost_and_said_so(tmp_path: Path) -> None:
    files = {"/work/a": b"x" * 600, "/work/b": b"x" * 600, "/work/c": b"x" * 300}
    found = collect(tmp_path, files, limit=1000, artifacts=["/work/?"])
    assert kept(found) == {"/work/a": 600, "/work/c": 300}
    assert found.lost == "artifacts can't be kept: /work/b and what came before are more than 1,000 bytes"


def test_a_sparse_file_that_claims_ten_gigabytes_is_not_read_to_its_end(tmp_path: Path) -> None:
    limits = {"disk": "1MiB"}
    files = {"/work/zeros": b"\0" * (300 << 20)}
    found = collect(tmp_path, files, limits=limits, artifacts=["/work/**/report"])
    assert "more than can be read" in found.lost


def test_too_many_files_are_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(taking, "MAX_FILES", 3)
    found = collect(tmp_path, {f"/work/{n}": b"" for n in range(5)}, artifacts=["/work/*"])
    assert len(found.artifacts) == 3
    assert found.lost == "artifacts can't be kept: more than 3 files match; pack them into one"


def test_a_path_that_is_too_long_is_lost(tmp_path: Path) -> None:
    found = collect(tmp_path, {"/work/" + "d/" * 600 + "x": b""}, artifacts=["/work/*"])
    assert "a path of more than 1000 characters" in found.lost


@pytest.mark.parametrize(
    "content,said",
    [
        (b"<testsuites><testsuite>", "no element found"),
        (b"\x00\x01binary", "not well-formed"),
        (b"<html></html>", "it begins with <html>"),
        (b'<!DOCTYPE x [<!ENTITY a "b">]><testsuite/>', "declares an entity"),
        (b"", "no element found"),
    ],
)
def test_a_bad_report_is_noted_and_the_others_count(tmp_path: Path, content: bytes, said: str) -> None:
    files = {"/work/bad.xml": content, "/work/good.xml": report(a="passed")}
    found = collect(tmp_path, files, reports={"junit": "/work/*.xml"}, artifacts=["/work/bad.xml"])
    assert found.report is not None
    assert (found.report["files"], found.report["tests"]) == (1, 1)
    (note,) = found.notes
    assert note.startswith("a report that can't be read: /work/bad.xml: ")
    assert said in note
    assert found.lost == ""
    assert kept(found) == {"/work/bad.xml": len(content)}


def test_a_report_that_is_too_large_is_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(taking, "MAX_REPORT", 1 << 20)
    found = collect(tmp_path, {"/work/junit.xml": b" " * (2 << 20)}, reports={"junit": "/work/junit.xml"})
    assert found.notes == ("no report: larger than 1 MiB: /work/junit.xml",)
    assert found.report is None


def test_what_is_not_there_is_noted(tmp_path: Path) -> None:
    found = collect(tmp_path, {}, reports={"junit": "/work/junit.xml"}, artifacts=["/work/dist/*", "/tmp/x"])
    assert found.notes == ("no report at /work/junit.xml", "no file at /work/dist/*, /tmp/x")
    assert found.lost == ""


def test_a_pattern_elsewhere_that_an_older_version_let_pass_is_said(tmp_path: Path) -> None:
    spec = StageSpec.model_validate({"run": "true"}).model_copy(update={"artifacts": ("/etc/*",)})
    take = taking.Take(ArtifactStore(f"file://{tmp_path}"), "artifact/1/1/1", 1000, ())
    take.want(spec)
    assert "only in /work and /tmp" in take.lost


#: Longer than what is said of a report may be.
SECRET = "s3cr3t-v4lue-of-token" * 20


def test_secrets_are_in_no_report_and_no_artifact(tmp_path: Path) -> None:
    text = (
        f"<testsuite name='s'><testcase classname='c' name='n {SECRET}'><failure message='{SECRET}'>"
        f"got {SECRET} &#115;{SECRET[1:]} {'x' * 20_000}{SECRET}</failure></testcase></testsuite>"
    )
    files = {
        "/work/junit.xml": text.encode(),
        "/work/bad.xml": f"<{SECRET}>".encode(),
        "/work/config": b"x" * (1 << 20) + f"token={SECRET}\n".encode(),
        "/work/fine": b"fine",
        f"/work/{SECRET}": b"",
    }
    found = collect(
        tmp_path, files, limit=4 << 20, secrets=(SECRET,), reports={"junit": "/work/*.xml"}, artifacts=["/work/*"]
    )
    assert SECRET[:30] not in repr(found)
    assert found.cases[0].name == "n " + "*" * len(SECRET)
    assert "/work/config holds the value of a secret" in found.lost
    assert kept(found) == {"/work/fine": 4}
    assert not [data for data in stored(tmp_path).values() if SECRET.encode() in data]


def test_a_second_worker_collects_the_same_and_nothing_is_left_over(tmp_path: Path) -> None:
    files = {"/work/a": b"1", "/work/b": b"2"}
    first = collect(tmp_path, files, fence=1, artifacts=["/work/*"])
    again = collect(tmp_path, files, fence=2, artifacts=["/work/*"])
    assert [(path, one.sha256) for path, one in first.artifacts] == [
        (path, one.sha256) for path, one in again.artifacts
    ]
    assert sorted(stored(tmp_path)) == sorted(one.blob for _, one in again.artifacts)


class Shop:
    """A project whose runs are made by hand."""

    def __init__(self, database: Database, home: Path) -> None:
        self.database, self.home = database, home
        with database.write() as session:
            self.project_id = rows.project(session).id

    def run(self, *, image: str = IMAGE, reused: int | None = None, **states: str) -> tuple[int, int]:
        """A run whose stage reported these tests, or that reused a verdict; ids of run and step."""
        from cd.pipeline.records import Project

        with self.database.write() as session:
            run = rows.run(session, session.get_one(Project, self.project_id), STAGE)
            session.flush()
            step = session.scalars(select(Step).where(Step.run_id == run.id, Step.kind == "stage")).one()
            step.image, step.attempt, step.finished_at = image, 1, now()
            ids = run.id, step.id
            if reused is not None:
                step.state, step.attempt = "reused", 0
                step.verdict_id = self._verdict(session, reused, run).id
        if reused is None:
            self.attempt(ids[1], 1, image, **states)
        return ids

    def _verdict(self, session: Session, step_id: int, run: Run) -> Verdict:
        earner = session.get_one(Step, step_id)
        verdict = Verdict(
            project_id=self.project_id, image=IMAGE, key="k", step_id=step_id, run_id=earner.run_id, seconds=1.0,
            created_at=now(),
        )  # fmt: skip
        session.add(verdict)
        session.flush()
        return verdict

    def attempt(self, step_id: int, number: int, image: str = IMAGE, **states: str) -> Collected:
        files = {"/work/junit.xml": report(**states), "/work/out": b"out"}
        found = collect(
            self.home,
            files,
            step_id=step_id,
            attempt=number,
            reports={"junit": "/work/junit.xml"},
            artifacts=["/work/out"],
        )
        with self.database.write() as session:
            step = session.get_one(Step, step_id)
            found.store(session, step, number)
            bad = any(state in testhistory.BAD for state in states.values())
            session.add(
                Attempt(
                    project_id=step.project_id, run_id=step.run_id, step_id=step.id, number=number, name=step.name,
                    image=image, key="k", state="failed" if bad else "passed", seconds=1.0, report=found.report,
                    created_at=now(),
                )
            )  # fmt: skip
        return found


@pytest.fixture
def shop(database: Database, tmp_path: Path) -> Shop:
    return Shop(database, tmp_path)


def names(found: Sequence[testhistory.RankedRow]) -> list[str]:
    return [one.name for one in found]


def test_the_tests_of_a_run(shop: Shop) -> None:
    run_id, _ = shop.run(a="passed", b="failed", c="skipped", d="error")
    with shop.database.read() as session:
        (found,) = testhistory.of_run(session, run_id)
        assert (found.step, found.reused, found.summary.tests) == ("unit", None, 4)
        assert [(one.name, one.state, one.text) for one in found.failures] == [
            ("d", "error", ""),
            ("b", "failed", "no"),
        ]
        rows_found, more = testhistory.results(session, run_id, "unit", limit=3)
        assert [one.name for one in rows_found] == ["d", "b", "a"]
        assert more == 3
        assert [one.name for one in testhistory.results(session, run_id, "unit", after=3, limit=3)[0]] == ["c"]
        assert [one.name for one in testhistory.results(session, run_id, "unit", states=["passed"], limit=3)[0]] == [
            "a"
        ]
        assert testhistory.results(session, run_id, "unit", search="%", limit=3)[0] == []
        with pytest.raises(NotFound):
            testhistory.results(session, run_id, "lint", limit=3)


def test_a_test_is_one_row_and_its_history_grows(shop: Shop) -> None:
    for state in ("passed", "failed", "passed"):
        shop.run(image=IMAGE.replace("1", "2") if state == "failed" else IMAGE, a=state)
    with shop.database.read() as session:
        (one,) = session.scalars(select(TestCase)).all()
        found = testhistory.history(session, shop.project_id, one.id)
        assert [(past.run_number, past.state, past.flaky) for past in found.past] == [
            (3, "passed", False), (2, "failed", False), (1, "passed", False),
        ]  # fmt: skip
        with pytest.raises(NotFound):
            testhistory.history(session, shop.project_id + 1, one.id)


def test_both_results_for_the_same_image_and_key_are_a_proven_flake(shop: Shop) -> None:
    _, step_id = shop.run(a="failed", b="failed", c="passed")
    shop.attempt(step_id, 2, a="passed", b="failed", c="skipped")
    with shop.database.read() as session:
        (flaky,) = testhistory.ranked(session, shop.project_id)["flaky"]
        assert (flaky.name, flaky.flips, flaky.failures, flaky.runs, flaky.last_run) == ("a", 1, 1, 2, 1)
        past = testhistory.history(session, shop.project_id, flaky.case_id).past
        assert [(one.attempt, one.state, one.flaky) for one in past] == [(2, "passed", True), (1, "failed", True)]
        assert names(testhistory.ranked(session, shop.project_id)["failing"]) == ["b", "a"]
        assert len(testhistory.ranked(session, shop.project_id)["slowest"]) == 3
        assert testhistory.ranked(session, shop.project_id + 1)["slowest"] == []


def test_a_reused_stage_shows_what_its_verdict_was_earned_with(shop: Shop) -> None:
    earned, step_id = shop.run(a="passed")
    run_id, _ = shop.run(reused=step_id)
    with shop.database.read() as session:
        (tests,) = testhistory.of_run(session, run_id)
        assert (tests.reused, tests.summary.passed) == (1, 1)
        (artifact,) = artifacts.of_run(session, run_id)
        assert (artifact.run_number, artifact.step, artifact.path) == (1, "unit", "/work/out")
        assert artifacts.find(session, run_id, artifact.id) == artifact
        assert [one.blob for one in artifacts.of_run(session, earned)] == [artifact.blob]


def test_the_last_attempt_counts(shop: Shop) -> None:
    run_id, step_id = shop.run(a="failed")
    shop.attempt(step_id, 2, a="passed")
    with shop.database.write() as session:
        session.get_one(Step, step_id).attempt = 2
    with shop.database.read() as session:
        assert [one.summary.failed for one in testhistory.of_run(session, run_id)] == [0]
        assert len(artifacts.of_run(session, run_id)) == 1


def expire(database: Database, step_id: int) -> None:
    with database.write() as session:
        for one in session.scalars(select(Artifact).where(Artifact.step_id == step_id)):
            one.expires_at = now() - timedelta(days=1)


def test_expired_artifacts_are_removed_once(shop: Shop, tmp_path: Path) -> None:
    run_id, step_id = shop.run(a="passed")
    shop.run(a="passed")
    store = ArtifactStore(f"file://{tmp_path / 'blobs'}")
    assert artifacts.clean(shop.database, store, 30) == 0
    expire(shop.database, step_id)
    assert len(stored(tmp_path)) == 2
    assert [artifacts.clean(shop.database, store, 30) for _ in range(2)] == [1, 0]
    assert len(stored(tmp_path)) == 1
    with shop.database.read() as session:
        (gone,) = artifacts.of_run(session, run_id)
        assert gone.removed_at is not None
        with pytest.raises(NotFound, match="expired"):
            artifacts.find(session, run_id, gone.id)


def test_what_a_later_run_reuses_is_kept_for_it(shop: Shop, tmp_path: Path) -> None:
    _, step_id = shop.run(a="passed")
    shop.run(reused=step_id)
    expire(shop.database, step_id)
    store = ArtifactStore(f"file://{tmp_path / 'blobs'}")
    assert artifacts.clean(shop.database, store, 30) == 0
    with shop.database.read() as session:
        assert session.scalars(select(Artifact.expires_at)).one() > now() + timedelta(days=29)


def test_results_of_long_ago_are_removed_oldest_first(shop: Shop) -> None:
    _, old = shop.run(a="passed")
    shop.attempt(old, 2, a="failed")
    _, young = shop.run(a="passed")
    with shop.database.write() as session:
        session.get_one(Step, old).finished_at = now() - timedelta(days=91)
    assert [reports.clean(shop.database) for _ in range(2)] == [1, 0]
    with shop.database.read() as session:
        assert session.scalars(select(TestResult.step_id)).all() == [young]


def test_no_more_tests_are_kept_than_pages_can_bear(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reports, "MAX_CASES", 2000)
    many = {f"t{number}": "passed" for number in range(2100)} | {"bad": "failed"}
    _, step_id = shop.run(**many)
    found = shop.attempt(step_id, 2, **many)
    assert found.notes == ("of its tests 2000 are listed, the other 101 are only counted",)
    with shop.database.read() as session:
        assert session.scalar(select(func.count()).select_from(TestCase)) == 2000
        assert session.scalar(select(func.count()).select_from(TestResult)) == 4000
        assert names(testhistory.ranked(session, shop.project_id)["failing"]) == ["bad"]


def test_a_name_that_is_told_of_twice_is_one_test(shop: Shop, tmp_path: Path) -> None:
    cases = b"<testcase name='a' time='1'/><testcase name='a' time='2'><failure/></testcase>"
    twice = b"<testsuite name='s'>" + cases + b"</testsuite>"
    found = collect(tmp_path, {"/work/j.xml": twice}, reports={"junit": "/work/j.xml"})
    assert [(one.name, one.state, one.seconds) for one in found.cases] == [("a", "failed", 3.0)]
    assert found.report is not None
    assert (found.report["tests"], found.report["passed"], found.report["failed"]) == (2, 1, 1)
