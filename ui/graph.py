"""Where the build and the stages of a run are drawn: columns by need, rows so that lines seldom cross."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cd.pipeline.graph import levels
from cd.pipeline.queries import StepRow

#: Sizes in pixels.
WIDTH, HEIGHT, COLUMN_GAP, ROW_GAP, MARGIN = 196, 46, 54, 12, 4
#: Characters of a name that fit into a node.
NAME_CHARS = 16


@dataclass(frozen=True)
class Node:
    """One step at its place."""

    step: StepRow
    x: int
    y: int

    @property
    def name(self) -> str:
        """The name as far as it fits."""
        name = self.step.name
        return name if len(name) <= NAME_CHARS else name[: NAME_CHARS - 1] + "…"


@dataclass(frozen=True)
class Picture:
    """Nodes, and lines between them as SVG paths with the states at their ends."""

    width: int
    height: int
    nodes: tuple[Node, ...]
    lines: tuple[tuple[str, str], ...]


def draw(steps: Sequence[StepRow]) -> Picture:
    """The picture of a run's steps."""
    needs = {step.name: shown_needs(step) for step in steps}
    level = levels(needs)
    columns: list[list[StepRow]] = [[] for _ in range(max(level.values(), default=-1) + 1)]
    for step in steps:
        columns[level.get(step.name, 0)].append(step)
    rows = _rows(columns, needs)
    tallest = max((len(column) for column in columns), default=0)
    nodes = {}
    for x, column in enumerate(columns):
        top = (tallest - len(column)) * (HEIGHT + ROW_GAP) // 2
        for step in column:
            y = top + rows[step.name] * (HEIGHT + ROW_GAP)
            nodes[step.name] = Node(step, MARGIN + x * (WIDTH + COLUMN_GAP), MARGIN + y)
    return Picture(
        width=2 * MARGIN + max(1, len(columns)) * (WIDTH + COLUMN_GAP) - COLUMN_GAP,
        height=2 * MARGIN + max(1, tallest) * (HEIGHT + ROW_GAP) - ROW_GAP,
        nodes=tuple(nodes.values()),
        lines=tuple(
            (_line(nodes[need], nodes[name]), nodes[need].step.state)
            for name, wanted in needs.items()
            for need in wanted
            if need in nodes
        ),
    )


def shown_needs(step: StepRow) -> tuple[str, ...]:
    """What a step needs, without the build where another need stands for it."""
    others = tuple(need for need in step.needs if need != "build")
    return others or step.needs


def _rows(columns: Sequence[Sequence[StepRow]], needs: dict[str, tuple[str, ...]]) -> dict[str, int]:
    """Row of each step in its column: near to what it needs, else as in the file."""
    row: dict[str, int] = {}

    def middle(step: StepRow) -> float:
        before = [row[need] for need in needs[step.name] if need in row]
        return sum(before) / len(before) if before else 0.0

    for column in columns:
        for index, step in enumerate(sorted(column, key=middle)):
            row[step.name] = index
    return row


def _line(start: Node, end: Node) -> str:
    x1, y1 = start.x + WIDTH, start.y + HEIGHT // 2
    x2, y2 = end.x, end.y + HEIGHT // 2
    bend = x2 - COLUMN_GAP // 2
    return f"M{x1} {y1}H{bend - COLUMN_GAP // 2}C{bend} {y1} {bend} {y2} {x2} {y2}"
