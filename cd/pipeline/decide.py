"""What should happen next in a run: a pure function of its steps' states. Linear in what it is given."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from cd.pipeline.states import GOOD, STEP

#: The build has no image to run anything in when it did not end well: nothing runs after it, whatever its conditions.
BUILD = "build"
ENDED = STEP.terminal
PASSED = ("passed",)


@dataclass(frozen=True)
class StepView:
    """What the decision needs to know of one step. `queued`: its work was called for already.

    `status` is what its needs must have come to: passed (all of them well), failed (at least one not), or both (they
    have ended). `cause` is "when" for a step that the file's own conditions left out: what needs it goes on.
    """

    name: str
    state: str
    needs: tuple[str, ...] = ()
    allow_failure: bool = False
    queued: bool = False
    status: tuple[str, ...] = ("passed",)
    cause: str | None = None

    @property
    def ended(self) -> bool:
        """Whether nothing follows for it."""
        return self.state in ENDED

    @property
    def good(self) -> bool:
        """Whether it ended in a way that lets what needs it start."""
        return (
            self.state in GOOD
            or (self.state == "failed" and self.allow_failure)
            or (self.state == "skipped" and self.cause == "when")
        )


@dataclass(frozen=True)
class Decision:
    """What to do. `run` is the state that ends the run, None while it goes on."""

    start: tuple[str, ...] = ()
    #: Name and reason of each step that can't run any more.
    skip: tuple[tuple[str, str], ...] = ()
    run: str | None = None


def decide(steps: Sequence[StepView]) -> Decision:
    """Look at the steps of one run (the build among them, needed by every stage) and say what follows.

    Steps that ended well may be left out: a need that is not among `steps` counts as good. Skips travel down the graph
    in one call, so that nothing waits for a step that never runs.
    """
    by_name = {step.name: step for step in steps}
    ended = {step.name for step in steps if step.state in ENDED}
    bad_ones = {name for name in ended if not by_name[name].good}
    open_needs: dict[str, int] = {}
    behind: dict[str, list[str]] = {}
    bad: dict[str, str] = {}  # by step: the first of its needs that did not end well
    ready: list[str] = []
    for step in steps:
        if step.state != "waiting":
            continue
        missing = 0
        for need in step.needs:  # one that stands twice is counted twice, here and in _settle
            if need in ended:
                if need in bad_ones:
                    bad.setdefault(step.name, need)
            elif need in by_name:
                behind.setdefault(need, []).append(step.name)
                missing += 1
        open_needs[step.name] = missing
        if missing == 0 or _hopeless(step, bad):
            ready.append(step.name)
    start, skip = _settle(by_name, open_needs, behind, bad, ready)
    return Decision(tuple(start), tuple(skip.items()), _end(step for step in steps if step.name not in skip))


def _hopeless(step: StepView, bad: Mapping[str, str]) -> bool:
    """Whether it can't run any more although some of its needs have not ended."""
    return step.name in bad and (step.status == PASSED or bad[step.name] == BUILD)


def _settle(
    by_name: Mapping[str, StepView],
    open_needs: dict[str, int],
    behind: Mapping[str, Sequence[str]],
    bad: dict[str, str],
    ready: list[str],
) -> tuple[list[str], dict[str, str]]:
    """Names to start, and the reason of each that is skipped; `ready` grows as skips let others be judged."""
    start: list[str] = []
    skip: dict[str, str] = {}
    for name in ready:
        step = by_name[name]
        if name in skip:
            continue
        reason = _against(step, bad.get(name), by_name, skip)
        if reason is None:
            if not step.queued:
                start.append(name)
            continue
        skip[name] = reason
        for follower in behind.get(name, ()):
            first = follower not in bad
            if first:
                bad[follower] = name
            open_needs[follower] -= 1
            if open_needs[follower] == 0 or (first and by_name[follower].status == PASSED):
                ready.append(follower)
    return start, skip


def _against(
    step: StepView, culprit: str | None, by_name: Mapping[str, StepView], skip: Mapping[str, str]
) -> str | None:
    """Why the step does not run, now that its needs are known; None when it does."""
    if culprit is None:
        return None if "passed" in step.status else "everything that it needs passed"
    if "failed" in step.status and culprit != BUILD:
        return None
    state = "skipped" if culprit in skip else by_name[culprit].state
    return f"needs {culprit}, which {'was ' if state not in ('failed', 'errored') else ''}{state}"


def _end(steps: Iterable[StepView]) -> str | None:
    failing, allowed = set[str](), set[str]()
    for step in steps:
        if step.state not in ENDED:
            return None
        (allowed if step.allow_failure else failing).add(step.state)
    for end in ("canceled", "errored", "failed"):
        if end in failing or (end != "failed" and end in allowed):
            return end
    return "passed"
