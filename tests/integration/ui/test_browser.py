"""Pages in a real browser: with scripts they keep themselves fresh, without them they still do their work."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect
from ui_scene import PASSWORD, Scene

from cd.pipeline.records import Run, Step
from cd.pipeline.runs import end_run
from cd.promote import releases
from cd.promote.records import Promotion


@pytest.fixture
def context(chromium: Browser, address: str, scene: Scene) -> Iterator[BrowserContext]:
    made = chromium.new_context(base_url=address)
    made.set_default_timeout(15_000)
    yield made
    made.close()


def sign_in(context: BrowserContext, name: str = "maya") -> Page:
    page = context.new_page()
    page.goto("/login")
    page.get_by_label("User name").fill(name)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("heading", name="Board")).to_be_visible()
    return page


def complaints(page: Page) -> list[str]:
    found: list[str] = []
    page.on("console", lambda message: found.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: found.append(str(error)))
    page.on("dialog", lambda dialog: found.append(f"dialog {dialog.message}"))
    return found


def test_from_the_board_to_an_approval(context: BrowserContext, scene: Scene) -> None:
    page = sign_in(context)
    found = complaints(page)
    page.get_by_role("link", name="Approve #27").click()
    page.get_by_label("Comment").fill("go on")
    page.get_by_role("button", name="Approve #27 for prod").click()
    expect(page.get_by_role("status").filter(has_text="Your approval counts.")).to_be_visible()
    expect(page.get_by_label("Votes")).to_contain_text("go on")
    assert found == []


def test_the_board_changes_by_itself_and_keeps_what_is_open(context: BrowserContext, scene: Scene) -> None:
    page = sign_in(context)
    found = complaints(page)
    expect(page.get_by_role("link", name="Approve #27")).to_be_visible()
    page.locator("details.menu summary").click()
    page.evaluate("window.mine = 1")
    with scene.services.database.write() as session:
        shop = session.query(Run).filter_by(project_id=scene.projects["shop"], number=31).one()
        end_run(session, shop, "canceled", "by hand", releases.run_ended)
    expect(page.locator("#p-shop").locator("..").locator(".last")).to_contain_text("canceled")
    assert page.evaluate("window.mine") == 1  # the page was not loaded again
    expect(page.get_by_role("button", name="Sign out")).to_be_visible()
    assert found == []


def test_a_log_line_appears_as_it_is_written(context: BrowserContext, scene: Scene) -> None:
    page = sign_in(context)
    found = complaints(page)
    page.goto("/projects/shop/runs/31?step=integration")
    expect(page.locator("#L8")).to_contain_text("Saturday")
    with scene.services.database.read() as session:
        step = session.query(Step).join(Run, Run.id == Step.run_id).filter(
            Run.project_id == scene.projects["shop"], Run.number == 31, Step.name == "integration"
        ).one()  # fmt: skip
    with scene.services.logs.writer(step.id, 1, step.fence) as writer:
        writer.write(b"half a \x1b[32mli")
        expect(page.locator("#L9 .f2")).to_have_text("li")
        writer.write(b"ne\x1b[0m\n<script>document.title = 'hacked'</script>\n")
        expect(page.locator("#L9 .f2")).to_have_text("line")
        expect(page.locator("#L10")).to_contain_text("<script>")
    assert "hacked" not in page.title()
    assert found == []


def test_without_scripts_everything_still_works(chromium: Browser, address: str, scene: Scene) -> None:
    context = chromium.new_context(base_url=address, java_script_enabled=False)
    context.set_default_timeout(15_000)
    page = sign_in(context)
    page.get_by_role("link", name="Approve #27").click()
    page.get_by_role("button", name="Approve #27 for prod").click()
    expect(page.get_by_label("Votes")).to_contain_text("maya")
    page.goto("/projects/shop/runs/31?step=integration")
    expect(page.locator("#L8")).to_contain_text("Saturday")
    page.goto("/projects/shop/environments/staging")
    page.get_by_text("Hold", exact=True).click()
    page.get_by_role("textbox", name="Why", exact=True).fill("no scripts here")
    page.get_by_role("button", name="Hold staging").click()
    expect(page.locator("main")).to_contain_text("Held by maya: no scripts here")
    context.close()


def test_pages_fit_a_phone_and_say_what_their_controls_are(context: BrowserContext, scene: Scene) -> None:
    page = sign_in(context)
    page.set_viewport_size({"width": 400, "height": 800})
    for path in ("/", "/projects/shop", "/projects/shop/runs/31", f"/promotions/{scene.waiting}", "/users", "/audit"):
        page.goto(path)
        assert page.evaluate("document.documentElement.scrollWidth") <= 400, path
        unnamed = page.evaluate(
            """[...document.querySelectorAll('a, button, summary, input:not([type=hidden]), select, textarea')]
            .filter(one => !(one.textContent.trim() || one.getAttribute('aria-label') || one.labels?.length))
            .map(one => one.outerHTML)"""
        )
        assert unnamed == [], path
    with scene.services.database.read() as session:
        assert session.get_one(Promotion, scene.waiting).state == "awaiting_approval"


def test_a_log_is_searched_to_its_end_told_with_times_and_downloaded(context: BrowserContext, scene: Scene) -> None:
    begun = 1_700_000_000_000_000_000
    lines = [b"line %d\n" % number for number in range(1, 30_001)]
    lines[20_000] = b"here is the \x1b[31mNeedle\x1b[0m & <b>more</b>\n"
    with scene.services.database.read() as session:
        step = session.query(Step).join(Run, Run.id == Step.run_id).filter(
            Run.project_id == scene.projects["shop"], Run.number == 30, Step.name == "package"
        ).one()  # fmt: skip
        before = scene.services.logs.size(session, step.id, 1)[1]
    with scene.services.logs.writer(step.id, 1, step.fence) as writer:
        for at, line in enumerate(lines):
            # A line each 10 ms; the one before the needle takes 7 s.
            writer.write(line, [(0, begun + at * 10_000_000 + (7_000_000_000 if at >= 20_000 else 0))])
    wanted = before + 20_001
    page = sign_in(context)
    found = complaints(page)
    page.goto("/projects/shop/runs/30?step=package")
    page.get_by_label("Search the whole log").fill("needle")
    page.get_by_role("button", name="Search", exact=True).click()
    answer = page.locator("#found")
    expect(answer).to_contain_text("1 line with needle")
    expect(answer.locator("mark")).to_have_text("Needle")
    answer.get_by_role("link", name=str(wanted)).click()
    expect(page.locator(f"#L{wanted}")).to_be_in_viewport()
    expect(page.locator(f"#L{wanted}")).to_contain_text("here is the Needle & <b>more</b>")
    page.get_by_role("link", name="times", exact=True).click()
    expect(page.locator(f"#L{wanted - 1} b.long")).to_have_text("+7.010")
    expect(page.locator(f"#L{wanted} time")).to_have_text("22:16:47.000")
    page.get_by_label("tell capitals").check()
    page.get_by_label("Search the whole log").fill("needle")
    page.get_by_role("button", name="Search", exact=True).click()
    expect(page.locator("#found")).to_contain_text("No line with needle")
    expect(page.locator("ol.log.timed")).to_be_visible()
    with page.expect_download() as download:
        page.get_by_role("link", name="download").click()
    assert download.value.suggested_filename == "shop-30-package-1.log"
    assert download.value.path().read_bytes().endswith(b"".join(lines))
    assert found == []
