"""What follows in a run of 5,000 stages: the decision alone, and as the run goes on with what ended well left out."""

from __future__ import annotations

import gc
import random
import time
from collections.abc import Sequence
from dataclasses import replace

from bench.table import Figure, median
from cd.pipeline.decide import StepView, decide

STAGES, NEEDS, ROUNDS, TARGET = 5000, 4, 15, 50.0
#: Shares of the stages that have ended when the cost of one more end is measured.
ENDED = (0.0, 0.5, 0.98)


def graph(window: int, state: str = "waiting") -> list[StepView]:
    """A build and stages, each with up to NEEDS needs among the `window` stages before it; the same each time."""
    chance = random.Random(window)
    steps = [StepView("build", "passed")]
    for number in range(STAGES):
        earlier = range(max(0, number - window), number)
        needs = sorted(chance.sample(earlier, min(NEEDS, len(earlier))))
        steps.append(StepView(f"s{number}", state, ("build", *(f"s{need}" for need in needs))))
    return steps


def shapes() -> dict[str, list[StepView]]:
    """Deep, wide, and what costs the most: all is skipped because the first one failed, in the worst order."""
    deep, wide = graph(NEEDS), graph(STAGES)
    failed = [deep[0], replace(deep[1], state="failed"), *reversed(deep[2:])]
    halfway = [replace(step, state="passed") if at < STAGES // 2 else step for at, step in enumerate(wide)]
    return {"deep": deep, "wide": wide, "all skipped": failed, "half ended, not left out": halfway}


def milliseconds(steps: Sequence[StepView]) -> float:
    """The median over ROUNDS decisions."""
    taken = []
    for _ in range(ROUNDS):
        gc.collect()
        at = time.perf_counter()
        decide(steps)
        taken.append((time.perf_counter() - at) * 1000)
    return median(taken)


def measure() -> list[Figure]:
    """Whole graphs, then what is left of one when so many have ended."""
    whole = {name: milliseconds(steps) for name, steps in shapes().items()}
    deep = graph(NEEDS)
    left = {share: milliseconds([deep[0], *deep[1 + int(share * STAGES) :]]) for share in ENDED}
    return [
        Figure(
            f"decide() on {STAGES:,} stages with {NEEDS} needs each",
            f"≤ {TARGET:.0f} ms",
            ", ".join(f"{name} {value:.1f} ms" for name, value in whole.items()),
            f"{ROUNDS} each",
            max(whole.values()) <= TARGET,
        ),
        Figure(
            "decide() when one more stage ends, by how many of them have ended before",
            "does not grow",
            ", ".join(f"{share:.0%}: {value:.2f} ms" for share, value in left.items()),
            f"{ROUNDS} each",
            all(value <= left[0.0] * 1.05 for value in left.values()),
        ),
    ]
