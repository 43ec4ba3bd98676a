"""What should happen next in a run: a pure function of its steps' states."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cd.pipeline.states import GOOD, STEP


@dataclass(frozen=True)
class StepView:
    """What the decision needs to know of one step. `queued`: its work was called for already."""

    name: str
    state: str
    needs: tuple[str, ...] = ()
    allow_failure: bool = False
    queued: bool = False


@dataclass(frozen=True)
class Decision:
    """What to do. `run` is the state that ends the run, None while it goes on."""

    start: tuple[str, ...] = ()
    #: Name and reason of each step that can't run any more.
    skip: tuple[tuple[str, str], ...] = ()
    run: str | None = None


def decide(steps: Sequence[StepView]) -> Decision:
    """Look at all steps of one run (the build among them, needed by every stage) and say what follows.

    Skips travel down the graph in one call, so that nothing waits for a step that never runs.
    """
    state = {step.name: step.state for step in steps}
    good = {step.name for step in steps if step.state in GOOD or (step.state == "failed" and step.allow_failure)}
    start: list[str] = []
    skip: list[tuple[str, str]] = []
    waiting = [step for step in steps if step.state == "waiting"]
    moved = True
    while moved:
        moved, still = False, []
        for step in waiting:
            bad = next((need for need in step.needs if state[need] in STEP.terminal and need not in good), None)
            if bad is not None:
                skip.append((step.name, f"needs {bad}, which {_was(state[bad])}"))
                state[step.name], moved = "skipped", True
            else:
                still.append(step)
        waiting = still
    for step in waiting:
        if not step.queued and all(need in good for need in step.needs):
            start.append(step.name)
    return Decision(tuple(start), tuple(skip), _end(steps, state))


def _was(state: str) -> str:
    return {"failed": "failed", "errored": "errored"}.get(state, f"was {state}")


def _end(steps: Sequence[StepView], state: dict[str, str]) -> str | None:
    if any(value not in STEP.terminal for value in state.values()):
        return None
    failing = {state[step.name] for step in steps if not step.allow_failure}
    allowed = {state[step.name] for step in steps if step.allow_failure}
    for end in ("canceled", "errored", "failed"):
        if end in failing or (end != "failed" and end in allowed):
            return end
    return "passed"
