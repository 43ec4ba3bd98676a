from __future__ import annotations

import pytest

from cd.pipeline.states import GOOD, RUN, STEP
from cd.promote.states import DEPLOYMENT, PENDING, PROMOTION
from cd.store.states import Machine

MACHINES = [RUN, STEP, PROMOTION, DEPLOYMENT]
START = {"run": "queued", "step": "waiting", "promotion": "waiting", "deployment": "deploying"}


@pytest.mark.parametrize(
    ("machine", "terminal"),
    [
        (RUN, {"passed", "failed", "errored", "canceled", "superseded"}),
        (STEP, {"passed", "failed", "errored", "canceled", "reused", "skipped"}),
        (
            PROMOTION,
            {"succeeded", "rejected", "expired", "superseded", "canceled", "failed", "errored", "aborted"}
            | {"rolled_back", "rollback_failed"},
        ),
        (DEPLOYMENT, {"retired", "failed", "errored", "rolled_back"}),
    ],
    ids=lambda value: value.name if isinstance(value, Machine) else "",
)
def test_what_is_terminal(machine: Machine, terminal: set[str]) -> None:
    assert machine.terminal == terminal


@pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: machine.name)
def test_every_state_is_reached_and_can_end(machine: Machine) -> None:
    followed = set().union(*machine.transitions.values())
    assert followed <= machine.transitions.keys()
    reached = {START[machine.name]}
    while more := set().union(*(machine.transitions[state] for state in reached)) - reached:
        reached |= more
    assert reached == machine.transitions.keys()
    ends = set(machine.terminal)
    while more := {state for state, follow in machine.transitions.items() if follow & ends} - ends:
        ends |= more
    assert ends == machine.transitions.keys()


@pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: machine.name)
def test_nothing_follows_a_terminal_state(machine: Machine) -> None:
    for old in machine.terminal:
        for new in machine.transitions:
            with pytest.raises(ValueError, match=f"{machine.name}: {old} -> {new} is not a transition"):
                machine.check(old, new)


def test_states_fit_their_columns() -> None:
    assert all(len(state) <= 16 for machine in (RUN, STEP, DEPLOYMENT) for state in machine.transitions)
    assert all(len(state) <= 24 for state in PROMOTION.transitions)


def test_the_sets_beside_the_tables() -> None:
    assert STEP.terminal >= GOOD
    assert not PENDING & PROMOTION.terminal
    assert all("superseded" in PROMOTION.transitions[state] for state in PENDING)
