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


#: Head of the table; the first column is the measurement's name, which `bench/run` takes.
HEAD = ("| run | what | target | figure | N | reached | on |", "| --- | --- | --- | --- | --- | --- | --- |")


def row(name: str, figure: Figure, day: str) -> str:
    """One line of the table."""
    reached = "yes" if figure.reached else "NO"
    return f"| {name} | {figure.what} | {figure.target} | {figure.figure} | {figure.n} | {reached} | {day} |"


def quantile(values: Sequence[float], share: float) -> float:
    """The value below which `share` of the values lie (nearest rank)."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, round(share * len(ordered) + 0.5) - 1))]


def median(values: Sequence[float]) -> float:
    """The middle value."""
    return statistics.median(values)
