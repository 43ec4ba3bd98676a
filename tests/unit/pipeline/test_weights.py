from __future__ import annotations

from cd.pipeline.weights import UNKNOWN, weights


def test_a_step_weighs_what_depends_on_it() -> None:
    needs = {"lint": ["build"], "unit": ["build"], "e2e": ["unit", "lint"], "pack": ["lint"]}
    seconds = {"lint": 1.0, "unit": 10.0, "e2e": 100.0}
    assert weights(needs, seconds) == {"e2e": 100.0, "pack": UNKNOWN, "unit": 110.0, "lint": 101.0}


def test_a_long_chain_needs_no_recursion() -> None:
    needs = {str(i): [str(i - 1)] for i in range(5000)}
    assert weights(needs, dict.fromkeys(needs, 1.0))["0"] == 5000.0


def test_a_need_that_is_named_twice_counts_once() -> None:
    assert weights({"a": [], "b": ["a", "a"]}, {"a": 1.0, "b": 2.0}) == {"b": 2.0, "a": 3.0}


def test_nothing_weighs_nothing() -> None:
    assert weights({}, {}) == {}
