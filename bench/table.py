"""A figure with its target, and the table of them."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """One measured line. `reached` compares with the target; `n` says how often it was measured."""

    what: str
    target: str
    figure: str
    n: str
    reached: bool


def markdown(figures: Sequence[Figure]) -> str:
    """The table, as it stands in docs/figures.md."""
    lines = ["| what | target | figure | N | reached |", "| --- | --- | --- | --- | --- |"]
    lines += [f"| {f.what} | {f.target} | {f.figure} | {f.n} | {'yes' if f.reached else 'NO'} |" for f in figures]
    return "\n".join(lines)


def quantile(values: Sequence[float], share: float) -> float:
    """The value below which `share` of the values lie (nearest rank)."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, round(share * len(ordered) + 0.5) - 1))]


def median(values: Sequence[float]) -> float:
    """The middle value."""
    return statistics.median(values)
