"""`towpath tests` and `towpath artifact` against a real server."""
# ruff: noqa: F401, F811 - fixtures of another module

from __future__ import annotations

from pathlib import Path

import pytest
from leaving import collect
from sqlalchemy import select
from test_cli_server import Towpath, data, demo, run, services, towpath, url

from cd.cli.artifact import local_path
from cd.errors import UserError
from cd.pipeline.artifacts import ArtifactStore
from cd.pipeline.records import Artifact, Attempt, Run, Step
from cd.store.base import now
from cd.wiring import Services

REPORT = b"""<testsuite name="s"><testcase classname="c" name="good" time="2"/>
<testcase classname="c" name="bad\xe2\x80\xae" time="1"><failure message="no&#10;&#x85;">x</failure></testcase>
</testsuite>"""


@pytest.fixture
def left(services: Services, run: Run) -> int:
    """Id of a step that left a report and three artifacts."""
    with services.database.read() as session:
        step_id = session.scalars(select(Step.id).where(Step.run_id == run.id, Step.kind == "stage")).one()
    files = {
        "/work/junit.xml": REPORT,
        "/work/dist/a.whl": b"wheel" * 100_000,
        "/work/dist/deep/b.txt": b"text",
        "/work/dist/..hidden": b"",
    }
    found = collect(
        services.settings.folder, files, step_id=step_id, reports={"junit": "/work/junit.xml"}, artifacts=["/work/dist"]
    )
    with services.database.write() as session:
        step = session.get_one(Step, step_id)
        step.attempt = 1
        found.store(session, step, 1)
        session.add(
            Attempt(
                project_id=step.project_id, run_id=step.run_id, step_id=step.id, number=1, name=step.name, image="i",
                key="k", state="failed", seconds=1.0, report=found.report, created_at=now(),
            )
        )  # fmt: skip
    return step_id


def test_tests_of_a_run_and_their_history(towpath: Towpath, left: int) -> None:
    shown = towpath("tests", "show", "demo", 1).stdout
    assert "unit" in shown
    assert "c bad" in shown
    assert "\u202e" not in shown
    assert data(towpath("tests", "show", "demo", 1, "--json"))[0]["summary"]["failed"] == 1
    assert [
        one["name"] for one in data(towpath("tests", "show", "demo", 1, "unit", "--state", "passed", "--json"))
    ] == ["good"]
    assert "good" in towpath("tests", "show", "demo", 1, "unit", "--search", "goo").stdout
    (failing,) = data(towpath("tests", "list", "demo", "--json"))
    assert failing["failures"] == 1
    assert "#1" in towpath("tests", "list", "demo", "--order", "slowest").stdout
    assert "no such tests" in towpath("tests", "list", "demo", "--order", "flaky").stdout
    assert "failed" in towpath("tests", "history", "demo", failing["id"]).stdout
    assert "has no such test" in towpath("tests", "history", "demo", 999, code=1).stderr
    assert "no stage 'lint'" in towpath("tests", "show", "demo", 1, "lint", code=1).stderr


def test_all_tests_of_a_long_report_come(towpath: Towpath, services: Services, left: int) -> None:
    many = "".join(f"<testcase name='t{number}'/>" for number in range(450))
    files = {"/work/junit.xml": f"<testsuite>{many}</testsuite>".encode()}
    found = collect(services.settings.folder, files, step_id=left, attempt=2, reports={"junit": "/work/junit.xml"})
    with services.database.write() as session:
        step = session.get_one(Step, left)
        step.attempt = 2
        found.store(session, step, 2)
    names = [one["name"] for one in data(towpath("tests", "show", "demo", 1, "unit", "--json"))]
    assert names == [f"t{number}" for number in range(450)]


def test_artifacts_are_listed_and_fetched(towpath: Towpath, left: int, tmp_path: Path) -> None:
    shown = towpath("artifact", "list", "demo", 1).stdout
    assert "/work/dist/a.whl" in shown
    assert "488.3 KiB" in shown
    towpath("artifact", "get", "demo", 1, "-o", tmp_path / "out")
    got = {str(path.relative_to(tmp_path / "out")): path.read_bytes() for path in (tmp_path / "out").rglob("*.*")}
    assert got == {
        "unit/work/dist/a.whl": b"wheel" * 100_000,
        "unit/work/dist/deep/b.txt": b"text",
        "unit/work/dist/..hidden": b"",
    }
    only = towpath("artifact", "get", "demo", 1, "*.whl", "--step", "unit", "-o", tmp_path / "one").stdout
    assert only.strip() == str(tmp_path / "one/unit/work/dist/a.whl")
    assert towpath("artifact", "get", "demo", 1, "*/b.txt", "-o", "-").stdout == "text"
    assert "one can be printed" in towpath("artifact", "get", "demo", 1, "-o", "-", code=1).stderr
    assert "fits *.zip" in towpath("artifact", "get", "demo", 1, "*.zip", code=1).stderr


def test_a_damaged_or_expired_artifact_is_not_taken(
    towpath: Towpath, services: Services, left: int, tmp_path: Path
) -> None:
    with services.database.write() as session:
        one = session.scalars(select(Artifact).where(Artifact.path == "/work/dist/a.whl")).one()
        ArtifactStore(services.settings.blobs).write(one.blob, [b"other" * 100_000])
        session.scalars(select(Artifact).where(Artifact.path == "/work/dist/deep/b.txt")).one().removed_at = now()
    assert "came damaged" in towpath("artifact", "get", "demo", 1, "*.whl", "-o", tmp_path / "out", code=1).stderr
    assert [path for path in (tmp_path / "out").rglob("*") if path.is_file()] == []
    assert "expired" in towpath("artifact", "list", "demo", 1).stdout
    assert "expired ones are gone" in towpath("artifact", "get", "demo", 1, "*b.txt", code=1).stderr


@pytest.mark.parametrize("path", ["/work/../../x", "/work/./x", "/work//x", "/work/a\\b", "", "/work/x\0"])
def test_no_name_leads_out_of_the_folder(path: str) -> None:
    with pytest.raises(UserError):
        local_path(Path("out"), "unit", path)


def test_a_step_s_name_is_one_folder() -> None:
    assert local_path(Path("out"), "unit:a/b", "/work/x") == Path("out/unit:a_b/work/x")
    assert local_path(Path("out"), "unit", "/work/..x") == Path("out/unit/work/..x")
