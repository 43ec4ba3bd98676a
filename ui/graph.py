"""Where the build and the stages of a run are drawn: columns by need, rows so that lines seldom cross."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from cd.pipeline.graph import levels
from cd.pipeline.queries import StepRow

#: Sizes in pixels. A step with services is taller by a line for them.
WIDTH, HEIGHT, SERVICES, COLUMN_GAP, ROW_GAP, MARGIN = 196, 46, 20, 54, 12, 4
#: Characters of a name, and of the names of services, that fit into a node.
NAME_CHARS, SERVICE_CHARS = 16, 26
#: A matrix with more cells than this is drawn as one node.
MOST_CELLS = 6
#: Of many states the first of these is shown for all.
WORST = ("failed", "errored", "running", "canceled", "waiting", "passed", "reused", "skipped")


@dataclass(frozen=True)
class Node:
    """One step, or all cells of a large matrix, at its place. `step` is the one that a click leads to."""

    step: StepRow
    x: int
    y: int
    cells: tuple[StepRow, ...] = ()

    @property
    def title(self) -> str:
        """The whole name."""
        return self.step.stage if self.cells else self.step.name

    @property
    def name(self) -> str:
        """The name as far as it fits."""
        return _cut(self.title, NAME_CHARS)

    @property
    def height(self) -> int:
        """In pixels."""
        return _height(self.step)

    @property
    def services(self) -> str:
        """Names of the services as far as they fit."""
        return _cut(", ".join(self.step.services), SERVICE_CHARS)

    @property
    def counts(self) -> str:
        """How many cells are in which state; empty for a single step."""
        by_state = Counter(cell.state for cell in self.cells)
        return ", ".join(f"{by_state[state]} {state}" for state in WORST if by_state[state])


@dataclass(frozen=True)
class Picture:
    """Nodes, and lines between them as SVG paths with the states at their ends."""

    width: int
    height: int
    nodes: tuple[Node, ...]
    lines: tuple[tuple[str, str], ...]


@dataclass
class _Groups:
    """Which node stands for a step: itself, or its matrix."""

    of: dict[str, str] = field(default_factory=dict)
    members: dict[str, list[StepRow]] = field(default_factory=dict)


def draw(steps: Sequence[StepRow]) -> Picture:
    """The picture of a run's steps."""
    groups = _grouped(steps)
    shown = {name: _worst(members) for name, members in groups.members.items()}
    needs = {name: _needs(groups, name) for name in groups.members}
    level = levels(needs)
    columns: list[list[str]] = [[] for _ in range(max(level.values(), default=-1) + 1)]
    for name in groups.members:
        columns[level.get(name, 0)].append(name)
    ordered = _ordered(columns, needs)
    heights = [sum(_height(shown[name]) + ROW_GAP for name in column) - ROW_GAP for column in ordered]
    tallest = max(heights, default=HEIGHT)
    nodes: dict[str, Node] = {}
    for x, (column, height) in enumerate(zip(ordered, heights, strict=True)):
        y = MARGIN + (tallest - height) // 2
        for name in column:
            members = groups.members[name]
            cells = tuple(members) if len(members) > 1 else ()
            nodes[name] = Node(shown[name], MARGIN + x * (WIDTH + COLUMN_GAP), y, cells)
            y += nodes[name].height + ROW_GAP
    return Picture(
        width=2 * MARGIN + max(1, len(columns)) * (WIDTH + COLUMN_GAP) - COLUMN_GAP,
        height=2 * MARGIN + tallest,
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


def _grouped(steps: Sequence[StepRow]) -> _Groups:
    cells = Counter(step.stage for step in steps if step.cell)
    groups = _Groups()
    for step in steps:
        # No step is called like a matrix with a star.
        name = f"{step.stage}*" if step.cell and cells[step.stage] > MOST_CELLS else step.name
        groups.of[step.name] = name
        groups.members.setdefault(name, []).append(step)
    return groups


def _worst(members: Sequence[StepRow]) -> StepRow:
    order: Mapping[str, int] = {state: index for index, state in enumerate(WORST)}
    return min(members, key=lambda step: order.get(step.state, len(WORST)))


def _needs(groups: _Groups, name: str) -> tuple[str, ...]:
    """The nodes that a node needs, each once."""
    wanted = (need for step in groups.members[name] for need in shown_needs(step))
    return tuple(dict.fromkeys(groups.of.get(need, need) for need in wanted))


def _ordered(columns: Sequence[Sequence[str]], needs: Mapping[str, Sequence[str]]) -> list[list[str]]:
    """Each column from top to bottom: near to what it needs, else as in the file."""
    row: dict[str, int] = {}

    def middle(name: str) -> float:
        before = [row[need] for need in needs[name] if need in row]
        return sum(before) / len(before) if before else 0.0

    ordered = []
    for column in columns:
        ordered.append(sorted(column, key=middle))
        row.update({name: index for index, name in enumerate(ordered[-1])})
    return ordered


def _height(step: StepRow) -> int:
    return HEIGHT + (SERVICES if step.services else 0)


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _line(start: Node, end: Node) -> str:
    x1, y1 = start.x + WIDTH, start.y + HEIGHT // 2
    x2, y2 = end.x, end.y + HEIGHT // 2
    bend = x2 - COLUMN_GAP // 2
    return f"M{x1} {y1}H{bend - COLUMN_GAP // 2}C{bend} {y1} {bend} {y2} {x2} {y2}"
