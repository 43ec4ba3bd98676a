"""How much work waits behind each step: what the longest path goes first by. Linear, without recursion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

#: Seconds of a stage that never ran.
UNKNOWN = 30.0


def weights(needs: Mapping[str, Sequence[str]], seconds: Mapping[str, float]) -> dict[str, float]:
    """For each name the seconds of the longest path that begins with it, itself included.

    Needs that are not among the names are left out. `seconds` says what each takes; UNKNOWN where it doesn't.
    """
    behind: dict[str, list[str]] = {name: [] for name in needs}
    open_behind = dict.fromkeys(needs, 0)
    for name, wanted in needs.items():
        for need in set(wanted):
            if need in behind:
                behind[need].append(name)
                open_behind[need] += 1
    done: dict[str, float] = {}
    longest = dict.fromkeys(needs, 0.0)
    order = [name for name, count in open_behind.items() if count == 0]
    for name in order:
        done[name] = longest[name] + seconds.get(name, UNKNOWN)
        for need in set(needs[name]):
            if need in open_behind:
                longest[need] = max(longest[need], done[name])
                open_behind[need] -= 1
                if open_behind[need] == 0:
                    order.append(need)
    return done
