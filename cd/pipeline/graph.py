"""The graph of stages: faults in it, and where each node is drawn. Linear in its size, without recursion."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence

from cd.documents import Misplaced

Needs = Mapping[str, Sequence[str]]


def check_needs(needs: Needs) -> None:
    """Raises the first of the faults in these needs."""
    for fault in faults(needs):
        raise fault


def faults(needs: Needs) -> Iterator[Misplaced]:
    """Stages that need themselves, that need an unknown one, and one circle of those that need each other."""
    for name, wanted in needs.items():
        for position, need in enumerate(wanted):
            if need == name:
                yield Misplaced(f"{name!r} needs itself; remove it", name, "needs", position)
            elif need not in needs:
                stage = need.partition(":")[0]
                close = difflib.get_close_matches(need, needs, n=1)
                remedy = f"did you mean {close[0]!r}?" if close else "name a stage of this file"
                if stage in needs:
                    remedy = f"a cell can't be needed alone, write {stage!r} for all of them"
                yield Misplaced(f"there is no stage {need!r}; {remedy}", name, "needs", position)
    others = {name: [need for need in wanted if need != name] for name, wanted in needs.items()}
    cycle = find_cycle(others)
    if cycle:
        yield Misplaced(f"a circle: {' needs '.join([*cycle, cycle[0]])}; remove one of these needs", cycle[0], "needs")


def levels(needs: Needs) -> dict[str, int]:
    """Column of each node: 0 without needs, else one right of its rightmost need. Names not in `needs` are left out."""
    level: dict[str, int] = {}
    for name in _in_order(needs):
        level[name] = 1 + max((level[need] for need in needs[name] if need in needs), default=-1)
    return level


def find_cycle(needs: Needs) -> list[str]:
    """The nodes of one circle in order, or nothing."""
    left = set(needs) - set(_in_order(needs))
    if not left:
        return []
    path: list[str] = []
    here = next(name for name in needs if name in left)
    while here not in path:
        path.append(here)
        here = next(need for need in needs[here] if need in left)
    return path[path.index(here) :]


def _in_order(needs: Needs) -> list[str]:
    """Every node that is in no circle and behind none, after all that it needs."""
    missing = {name: sum(1 for need in set(wanted) if need in needs) for name, wanted in needs.items()}
    behind: dict[str, list[str]] = {name: [] for name in needs}
    for name, wanted in needs.items():
        for need in set(wanted):
            if need in needs:
                behind[need].append(name)
    order = [name for name, count in missing.items() if count == 0]
    for name in order:
        for follower in behind[name]:
            missing[follower] -= 1
            if missing[follower] == 0:
                order.append(follower)
    return order
