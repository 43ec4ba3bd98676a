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
