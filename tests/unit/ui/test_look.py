"""Words for states, times and digests; the picture of a run; the policy file."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from cd.documents import Fault
from cd.pipeline.queries import StepRow
from cd.pipeline.states import RUN, STEP
from cd.promote import policy
from cd.promote.records import Environment
from cd.promote.states import DEPLOYMENT, PROMOTION
from ui import graph, look, policyfile
from ui.pages.logs import Place, Screen

AT = datetime(2026, 5, 1, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    "seconds, words",
    [(0, "now"), (44, "now"), (60, "1 min"), (3500, "58 min"), (3600, "1 h"), (47 * 3600, "47 h"), (86400 * 3, "3 d")],
)
def test_age(seconds: float, words: str) -> None:
    assert look.age(AT, AT + timedelta(seconds=seconds)) == words


def test_old_things_have_a_date() -> None:
    assert look.age(AT, AT + timedelta(days=80)) == "01 May 2026"
    assert look.age(AT + timedelta(hours=1), AT) == "now"


def test_every_state_has_a_shape_and_a_word_of_its_own() -> None:
    states = {state for machine in (RUN, STEP, PROMOTION, DEPLOYMENT) for state in machine.transitions}
    shown = {state: look.state(state) for state in states}
    unknown = [state for state in states if state not in look._STATES]
    assert unknown == []
    assert len({one.text for one in shown.values()}) == len(states)
    for one in shown.values():
        assert one.tone in ("ok", "run", "wait", "bad", "idle")


def test_digests_and_times() -> None:
    assert look.digest("sha256:" + "ab" * 32) == "sha256:abababababab"
    assert look.digest(None) == ""
    assert look.clock("2026-05-01T12:03:04.567+00:00") == "12:03:04"
    assert look.clock("soon") == "soon"
    assert look.plural(1, "run") == "1 run"
    assert look.plural(2000, "run") == "2,000 runs"


def step(name: str, *needs: str) -> StepRow:
    return StepRow(
        id=1, name=name, kind="stage", state="waiting", reason="", needs=needs, allow_failure=False, image=None,
        attempt=0, exit_code=None, cause=None, command=(), queued_at=None, started_at=None, finished_at=None,
        reused=None,
    )  # fmt: skip


def test_the_picture_has_columns_by_need_and_no_needless_line() -> None:
    picture = graph.draw([step("build"), step("unit", "build"), step("lint", "build"), step("pack", "build", "unit")])
    places = {node.step.name: (node.x, node.y) for node in picture.nodes}
    assert places["build"][0] < places["unit"][0] == places["lint"][0] < places["pack"][0]
    assert places["unit"][1] != places["lint"][1]
    assert len(picture.lines) == 3
    assert len(set(places.values())) == 4


def test_the_picture_of_two_thousand_stages_is_drawn_at_once() -> None:
    steps = [step("build"), *(step(f"s{n}", "build", *([f"s{n - 1}"] if n % 50 else [])) for n in range(2000))]
    picture = graph.draw(steps)
    assert len(picture.nodes) == 2001
    assert graph.draw([]).nodes == ()


def test_the_policy_file_reads_back_as_it_was() -> None:
    specs = policy.parse(policyfile.TEMPLATE.encode())
    rows = [
        Environment(name=spec.name, position=place, spec=policy.dump(spec), version=1)
        for place, spec in enumerate(specs)
    ]
    text = policyfile.text(rows)
    assert "soak: 10m" in text
    assert "from: {branches: [main]}" in text
    assert policy.parse(text.encode()) == specs
    assert policyfile.text([]) == policyfile.TEMPLATE


def test_faults_stand_beside_their_lines() -> None:
    marked = policyfile.marked([Fault(2, 3, "wrong"), Fault(9, 1, "beyond")], "a:\n  b: 1\n")
    assert (marked[0].text, marked[0].pointer) == ("  b: 1", "  ")
    assert marked[1].text == ""


def test_durations_are_written_in_their_largest_unit() -> None:
    assert [policyfile.duration(value) for value in (600, 3600, 259200, 90, 0.5, 0)] == [
        "10m",
        "1h",
        "3d",
        "90s",
        "0.5s",
        "0s",
    ]


def test_a_screen_numbers_lines_and_shows_growing_ones_again() -> None:
    screen = Screen(Place())
    assert screen.take(0, b"\x1b[32mone\ntw") == [(1, [("f2", "one")]), (2, [("f2", "tw")])]
    assert str(screen.place) == "9:1:38;5;2"
    assert screen.take(11, b"o\nthree\n") == [(2, [("f2", "two")]), (3, [("f2", "three")])]
    again = Screen(Place.parse("9:1:38;5;2"))
    assert again.take(9, b"two\n") == [(2, [("f2", "two")])]


@pytest.mark.parametrize("text", ["", "x", "1:x:", "-1:2:", "\u0661:1:", "9" * 300])
def test_a_wrong_place_is_the_beginning(text: str) -> None:
    assert Place.parse(text) == Place()
