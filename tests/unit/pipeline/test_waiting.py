from __future__ import annotations

import random

import pytest

from cd.pipeline.waiting import Pending, Work, forecast


def test_the_reason_is_said_in_words() -> None:
    lint = Work(1, "lint", 1, typical=30, elapsed=12)
    found = forecast([lint], [Work(2, "unit", 1, typical=5)], [Pending(Work(3, "pack", 1), (1, 2))], {}, 1)
    assert found[2].reason == "the next worker takes it"
    assert found[2].seconds == 18
    assert found[3].reason == "needs unit, which waits too; and 1 more"
    assert found[3].seconds == 23
    alone = forecast([lint], [], [Pending(Work(3, "pack", 1), (1,))], {}, 2)[3]
    assert (alone.reason, alone.seconds) == ("needs lint, which runs since 12 s and usually takes 30 s", 18)


def test_limits_workers_and_what_is_unknown() -> None:
    running = [Work(1, "a", 1, typical=10), Work(2, "b", 1, typical=20)]
    ready = [Work(3, "c", 1, typical=1)]
    limited = forecast(running, ready, [], {1: 2}, 4)[3]
    assert (limited.reason, limited.seconds) == ("the project runs 2 of at most 2", 10)
    assert "start one with `towpath worker`" in forecast([], ready, [], {}, 0)[3].reason
    assert forecast([], ready, [], {}, None)[3].seconds is None
    assert forecast([Work(1, "a", 1)], ready, [], {}, 1)[3].seconds is None


def test_the_order_is_that_of_taking() -> None:
    ready = [Work(1, "a", 1, 1, 10), Work(2, "b", 1, 9, 10), Work(3, "c", 2, 0, 10)]
    found = forecast([], ready, [], {}, 1)
    assert [found[key].seconds for key in (2, 1, 3)] == [0, 10, 20]
    assert found[3].reason == "2 tasks before it, 1 worker"
    fair = forecast([Work(9, "x", 1, typical=50)], ready, [], {}, 2)
    assert fair[3].seconds == 0


@pytest.mark.parametrize("seed", range(20))
def test_estimates_are_those_of_a_simulation_second_by_second(seed: int) -> None:
    dice = random.Random(seed)
    works = [Work(n, str(n), dice.randrange(3), dice.randrange(9), dice.randrange(1, 9)) for n in range(30)]
    needs = {n: tuple({dice.randrange(n) for _ in range(2)}) for n in range(10, 30)}
    found = forecast([], works[:10], [Pending(works[n], needs[n]) for n in range(10, 30)], {1: 2}, 3)
    starts: dict[int, int] = {}
    queue, pending = list(range(10)), list(range(10, 30))
    for second in range(1000):
        over = {n for n, at in starts.items() if at + (works[n].typical or 0) <= second}
        queue += [n for n in pending if over.issuperset(needs[n])]
        pending = [n for n in pending if n not in queue]
        while len(starts) - len(over) < 3:
            busy = [works[n].owner for n in starts if n not in over]
            able = [n for n in queue if works[n].owner != 1 or busy.count(1) < 2]
            if not able:
                break
            best = min(able, key=lambda n: (busy.count(works[n].owner), -works[n].weight, queue.index(n)))
            queue.remove(best)
            starts[best] = second
    # Of what becomes ready in the same second either may go first.
    assert sum(abs((found[n].seconds or 0) - starts[n]) for n in starts) / len(starts) <= 3
