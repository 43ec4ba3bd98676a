from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cd.pipeline.decide import Decision, StepView, decide
from cd.pipeline.states import GOOD, STEP

STATES = sorted(STEP.transitions)


def build(state: str, **more: bool) -> StepView:
    return StepView("build", state, **more)


def stage(name: str, state: str, *needs: str, allow_failure: bool = False, queued: bool = False) -> StepView:
    return StepView(name, state, ("build", *needs), allow_failure, queued)


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ([], Decision(run="passed")),
        ([build("waiting", queued=True)], Decision()),
        ([build("waiting")], Decision(start=("build",))),
        ([build("running")], Decision()),
        ([build("passed")], Decision(run="passed")),
        ([build("passed"), stage("a", "waiting"), stage("b", "waiting", "a")], Decision(start=("a",))),
        ([build("reused"), stage("a", "reused"), stage("b", "waiting", "a")], Decision(start=("b",))),
        ([build("passed"), stage("a", "waiting", queued=True)], Decision()),
        (
            [build("failed"), stage("a", "waiting"), stage("b", "waiting", "a")],
            Decision(
                skip=(("a", "needs build, which failed"), ("b", "needs build, which failed")),
                run="failed",
            ),
        ),
        (
            [build("passed"), stage("c", "waiting", "b"), stage("b", "waiting", "a"), stage("a", "errored")],
            Decision(
                skip=(("b", "needs a, which errored"), ("c", "needs b, which was skipped")),
                run="errored",
            ),
        ),
        (
            [build("passed"), stage("a", "failed", allow_failure=True), stage("b", "waiting", "a")],
            Decision(start=("b",)),
        ),
        ([build("passed"), stage("a", "failed", allow_failure=True)], Decision(run="passed")),
        ([build("passed"), stage("a", "errored", allow_failure=True)], Decision(run="errored")),
        ([build("passed"), stage("a", "canceled"), stage("b", "failed")], Decision(run="canceled")),
        ([build("passed"), stage("a", "failed"), stage("b", "running")], Decision()),
        ([build("passed"), stage("a", "failed"), stage("b", "passed"), stage("c", "errored")], Decision(run="errored")),
    ],
)
def test_what_follows(steps: list[StepView], expected: Decision) -> None:
    assert decide(steps) == expected


@st.composite
def runs(draw: st.DrawFn) -> list[StepView]:
    """A build, and stages that need it and some of those before them, in any order and any states."""
    names = [f"s{number}" for number in range(draw(st.integers(0, 9)))]
    stages = [
        StepView(
            name,
            draw(st.sampled_from(STATES)),
            ("build", *(draw(st.lists(st.sampled_from(names[:at]), max_size=3)) if at else ())),
            draw(st.booleans()),
            draw(st.booleans()),
        )
        for at, name in enumerate(names)
    ]
    return [StepView("build", draw(st.sampled_from(STATES))), *draw(st.permutations(stages))]


def is_good(step: StepView) -> bool:
    return step.state in GOOD or (step.state == "failed" and step.allow_failure)


@given(runs())
def test_only_what_waits_is_started_or_skipped_and_never_before_its_needs(steps: list[StepView]) -> None:
    by_name = {step.name: step for step in steps}
    decision = decide(steps)
    skipped = dict(decision.skip)
    for name in decision.start:
        assert by_name[name].state == "waiting"
        assert not by_name[name].queued
        assert all(is_good(by_name[need]) for need in by_name[name].needs)
    for name in skipped:
        assert by_name[name].state == "waiting"
        needs = by_name[name].needs
        assert any(
            need in skipped or (by_name[need].state in STEP.terminal and not is_good(by_name[need])) for need in needs
        )
    assert not skipped.keys() & set(decision.start)
    assert decide(steps) == decision


@given(runs())
def test_skips_travel_to_the_end_in_one_call(steps: list[StepView]) -> None:
    skipped = dict(decide(steps).skip)
    after = [replace(step, state="skipped") if step.name in skipped else step for step in steps]
    assert decide(after).skip == ()
    by_name = {step.name: step for step in after}
    for step in after:
        if step.state == "waiting":
            assert all(by_name[need].state not in STEP.terminal or is_good(by_name[need]) for need in step.needs)


@given(runs())
def test_a_run_ends_exactly_when_all_its_steps_have(steps: list[StepView]) -> None:
    decision = decide(steps)
    skipped = dict(decision.skip)
    over = all(step.state in STEP.terminal or step.name in skipped for step in steps)
    assert (decision.run is not None) == over
    if decision.run == "passed":
        assert all(step.state not in ("canceled", "errored") for step in steps)
        assert all(step.state != "failed" or step.allow_failure for step in steps)


@given(runs(), st.randoms(use_true_random=False))
def test_every_run_comes_to_an_end(steps: list[StepView], chance: random.Random) -> None:
    """Whatever the steps come to, following the decisions ends the run in as many rounds as there are moves."""
    steps = [replace(step, queued=step.queued and step.state == "waiting") for step in steps]
    for _ in range(3 * len(steps) + 1):
        decision = decide(steps)
        if decision.run is not None:
            return
        skipped, started = dict(decision.skip), set(decision.start)
        steps = [
            replace(step, state="skipped")
            if step.name in skipped
            else replace(step, queued=True)
            if step.name in started
            else step
            for step in steps
        ]
        movable = [step for step in steps if step.state == "running" or (step.state == "waiting" and step.queued)]
        assert movable, "nothing runs, nothing can start, and the run goes on"
        moved = chance.choice(movable)
        follow = sorted(STEP.transitions[moved.state] - {"waiting"})
        steps = [replace(step, state=chance.choice(follow)) if step is moved else step for step in steps]
    pytest.fail("the run did not end")


def told(*status: str, needs: tuple[str, ...] = ("build", "a", "b")) -> StepView:
    return StepView("tell", "waiting", needs, status=status)


@pytest.mark.parametrize(
    ("a", "b", "status", "expected"),
    [
        ("passed", "failed", ("failed",), Decision(start=("tell",))),
        ("passed", "failed", ("passed", "failed"), Decision(start=("tell",))),
        ("passed", "passed", ("passed", "failed"), Decision(start=("tell",))),
        ("passed", "passed", ("failed",), Decision(skip=(("tell", "everything that it needs passed"),), run="passed")),
        ("running", "failed", ("failed",), Decision()),
        ("running", "failed", ("passed",), Decision(skip=(("tell", "needs b, which failed"),))),
    ],
)
def test_a_stage_can_ask_what_its_needs_came_to(a: str, b: str, status: tuple[str, ...], expected: Decision) -> None:
    assert decide([build("passed"), stage("a", a), stage("b", b), told(*status)]) == expected


def test_what_runs_after_a_failure_does_not_make_the_run_pass() -> None:
    steps = [build("passed"), stage("a", "failed"), replace(told("failed", needs=("build", "a")), state="passed")]
    assert decide(steps) == Decision(run="failed")


def test_nothing_runs_without_an_image_not_even_after_a_failure() -> None:
    steps = [build("failed"), told("failed", needs=("build",))]
    assert decide(steps) == Decision(skip=(("tell", "needs build, which failed"),), run="failed")


def test_what_a_skip_leads_to_is_judged_in_the_same_call() -> None:
    steps = [build("passed"), stage("a", "failed"), stage("b", "waiting", "a"), told("failed", needs=("build", "b"))]
    assert decide(steps) == Decision(start=("tell",), skip=(("b", "needs a, which failed"),))


def test_left_out_by_its_own_conditions_is_as_good_as_passed() -> None:
    steps = [build("passed"), replace(stage("a", "skipped"), cause="when"), stage("b", "waiting", "a")]
    assert decide(steps) == Decision(start=("b",))


def test_steps_that_ended_well_may_be_left_out_and_needs_may_stand_twice() -> None:
    steps = [stage("c", "running"), stage("d", "waiting", "gone", "c", "c"), stage("e", "waiting", "gone", "gone")]
    assert decide(steps) == Decision(start=("e",))
    assert decide([replace(steps[0], state="failed"), *steps[1:]]).skip == (("d", "needs c, which failed"),)
