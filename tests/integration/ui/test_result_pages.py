"""Pages of tests and artifacts, as a client sees them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
from leaving import collect
from playwright.sync_api import Browser, expect
from sqlalchemy import select
from test_browser import complaints, sign_in
from ui_scene import HOSTILE, Scene
from ui_visitor import Visitor

from cd.pipeline import artifacts, testhistory
from cd.pipeline.artifacts import ArtifactStore
from cd.pipeline.records import Attempt, Project, Run, Step
from cd.store.base import now

FAILURE = (
    "def test_due_date_skips_weekend():\n&gt;       assert due(FRIDAY, days=1) == MONDAY\n"
    "E       AssertionError: due on Saturday, wanted Monday\n\ntests/test_invoice.py:41: AssertionError"
)


def junit(failed: bool) -> bytes:
    body = f'<failure message="AssertionError: due on Saturday, wanted Monday">{FAILURE}</failure>' if failed else ""
    hostile = HOSTILE.replace("<", "&lt;").replace(">", "&gt;")
    cases = [
        f'<testcase classname="tests.test_invoice" name="test_due_date_skips_weekend" time="6.1">{body}</testcase>',
        f'<testcase classname="tests.test_names" name="test_escape[{hostile}]" time="0.2">'
        f"{f'<error>{hostile}</error>' if failed else ''}</testcase>",
        '<testcase classname="tests.test_vat" name="test_reverse_charge"><skipped message="no rates"/></testcase>',
    ]
    cases += [
        f'<testcase classname="tests.test_orders" name="test_total[{n}]" time="{0.01 * n:.2f}"/>' for n in range(1, 130)
    ]
    return f'<testsuites><testsuite name="pytest">{"".join(cases)}</testsuite></testsuites>'.encode()


@dataclass
class Results:
    """What `reported` made: numbers of the runs of shop, oldest first, and the id of the step of the last one."""

    runs: list[int]
    step_id: int


@pytest.fixture
def reported(scene: Scene) -> Results:
    """The last runs of shop report the tests of `unit`; of the last one some fail and passed before."""
    with scene.services.database.read() as session:
        steps = session.execute(
            select(Run.number, Step.id)
            .join(Step, Step.run_id == Run.id)
            .where(Run.project_id == scene.projects["shop"], Step.name == "unit")
            .order_by(Run.number)
        ).all()[-8:]
    for place, (_, step_id) in enumerate(steps):
        leave(scene, step_id, failed=place in (3, len(steps) - 1), flip=place == len(steps) - 1)
    return Results([row[0] for row in steps], steps[-1][1])


def leave(scene: Scene, step_id: int, *, failed: bool, flip: bool) -> None:
    """What the stage leaves; with `flip` a second attempt for the same image comes out the other way."""
    with scene.services.database.write() as session:
        step = session.get_one(Step, step_id)
        step.image = step.image or f"sha256:{step_id:064x}"
        step.attempt = 2 if flip else 1
    for number in range(1, 3 if flip else 2):
        found = collect(
            scene.services.settings.folder,
            {
                "/work/junit.xml": junit(failed if number == step.attempt else not failed),
                "/work/dist/shop-1.4.0-py3-none-any.whl": b"PK" + b"w" * 48_213,
                f"/work/dist/{HOSTILE.replace('/', '_')}": b"<script>alert(3)</script>",
                "/work/coverage/index.html": b"<script>alert(4)</script>",
            },
            step_id=step_id,
            attempt=number,
            reports={"junit": "/work/junit.xml"},
            artifacts=["/work/dist/*", "/work/coverage"],
        )
        with scene.services.database.write() as session:
            step = session.get_one(Step, step_id)
            found.store(session, step, number)
            session.add(
                Attempt(
                    project_id=step.project_id,
                    run_id=step.run_id,
                    step_id=step.id,
                    number=number,
                    name=step.name,
                    image=step.image or "",
                    key="k",
                    state="failed" if failed else "passed",
                    seconds=29.1,
                    report=found.report,
                    created_at=now(),
                )
            )


def text(visitor: Visitor, path: str) -> str:
    page = visitor.get(path)
    assert "<script>alert" not in page
    return page


def test_the_page_of_a_run_shows_what_failed_and_what_was_left(
    visit: Callable[[str], Visitor], scene: Scene, reported: Results
) -> None:
    page = text(visit("vic"), f"/projects/shop/runs/{reported.runs[-1]}")
    assert "2 tests failed" in page
    assert page.count("With the same image and stage it also passed") == 2
    assert "test_due_date_skips_weekend" in page
    assert "due on Saturday, wanted Monday" in page
    assert "/work/dist/shop-1.4.0-py3-none-any.whl" in page
    assert "3 files" in page


def test_a_run_without_reports_has_no_such_cards(visit: Callable[[str], Visitor], scene: Scene) -> None:
    with scene.services.database.read() as session:
        number = session.scalars(select(Run.number).where(Run.project_id == scene.projects["mailer"])).first()
    page = text(visit("vic"), f"/projects/mailer/runs/{number}")
    assert 'aria-label="Tests"' not in page
    assert 'aria-label="Artifacts"' not in page


def test_all_tests_of_a_stage(visit: Callable[[str], Visitor], scene: Scene, reported: Results) -> None:
    visitor, base = visit("vic"), f"/projects/shop/runs/{reported.runs[-1]}/steps/unit/tests"
    page = text(visitor, base)
    assert "132 tests in 1 suite" in page
    assert 'rel="next"' in page
    assert "test_total[129]" not in page
    assert "test_total[129]" in text(visitor, f"{base}?after=100")
    only = text(visitor, f"{base}?state=skipped")
    assert "test_reverse_charge" in only
    assert "test_total" not in only
    assert "No test fits." in text(visitor, f"{base}?q=%25")
    assert visitor.client.get(f"/projects/shop/runs/{reported.runs[-1]}/steps/lint/tests").status_code == 404


def test_the_history_of_a_test_and_the_tests_of_a_project(
    visit: Callable[[str], Visitor], scene: Scene, reported: Results
) -> None:
    visitor = visit("vic")
    page = text(visitor, "/projects/shop/tests")
    assert page.index('id="flaky"') < page.index("test_due_date_skips_weekend") < page.index('id="failing"')
    with scene.services.database.read() as session:
        (flaky, *_) = testhistory.ranked(session, scene.projects["shop"])["flaky"]
    page = text(visitor, f"/projects/shop/tests/{flaky.case_id}")
    assert "both ways" in page
    assert "of 9 failed" in page
    assert "No reports yet" in text(visitor, "/projects/handbook/tests")
    assert visitor.client.get(f"/projects/mailer/tests/{flaky.case_id}").status_code == 404


def test_an_artifact_comes_as_a_file_and_never_as_a_page(
    visit: Callable[[str], Visitor], scene: Scene, reported: Results
) -> None:
    visitor, base = visit("vic"), f"/api/v1/projects/shop/runs/{reported.runs[-1]}"
    with scene.services.database.read() as session:
        run_id = session.get_one(Step, reported.step_id).run_id
        rows = artifacts.of_run(session, run_id)
    html = next(row for row in rows if row.path.endswith("index.html"))
    answer = visitor.client.get(f"{base}/artifacts/{html.id}")
    assert answer.data == b"<script>alert(4)</script>"
    assert answer.headers["Content-Type"] == "application/octet-stream"
    assert answer.headers["Content-Disposition"].startswith('attachment; filename="index.html"')
    assert answer.headers["Content-Security-Policy"].startswith("sandbox")
    assert answer.headers["X-Content-SHA256"] == html.sha256
    assert visitor.client.get(f"{base}/artifacts.tar").data[257:262] == b"ustar"
    assert visitor.client.get(f"{base}/artifacts/999999").status_code == 404
    ArtifactStore(scene.services.settings.blobs).remove(html.blob)
    assert visitor.client.get(f"{base}/artifacts/{html.id}").status_code == 503


def test_another_run_does_not_give_it(visit: Callable[[str], Visitor], scene: Scene, reported: Results) -> None:
    visitor = visit("vic")
    with scene.services.database.read() as session:
        row = artifacts.of_run(session, session.get_one(Step, reported.step_id).run_id)[0]
        project = session.get_one(Project, scene.projects["shop"])
    assert project.slug == "shop"
    assert visitor.client.get(f"/api/v1/projects/shop/runs/{reported.runs[0]}/artifacts/{row.id}").status_code == 404
    assert visitor.client.get(f"/api/v1/projects/mailer/runs/1/artifacts/{row.id}").status_code == 404


def test_from_a_failure_to_its_history_and_a_download_in_a_browser(
    chromium: Browser, address: str, scene: Scene, reported: Results
) -> None:
    context = chromium.new_context(base_url=address, accept_downloads=True)
    context.set_default_timeout(15_000)
    page = sign_in(context, "vic")
    found = complaints(page)
    page.goto(f"/projects/shop/runs/{reported.runs[-1]}")
    failures = page.get_by_label("Failed tests")
    expect(failures).to_contain_text("due on Saturday, wanted Monday")
    with page.expect_download() as download:
        page.get_by_label("Artifacts").get_by_role("link", name="shop-1.4.0").click()
    assert download.value.suggested_filename == "shop-1.4.0-py3-none-any.whl"
    assert download.value.path().stat().st_size == 48_215
    failures.get_by_role("link", name="History of this test").last.click()
    expect(page.get_by_role("heading", name="test_due_date_skips_weekend")).to_be_visible()
    expect(page.get_by_role("img", name="Time of each result")).to_be_visible()
    page.get_by_role("link", name="tests", exact=True).click()
    expect(page.get_by_role("heading", name="Flaky")).to_be_visible()
    assert found == []
    context.close()
