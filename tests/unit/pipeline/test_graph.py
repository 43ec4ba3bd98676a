from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cd.documents import Misplaced
from cd.pipeline.graph import check_needs, find_cycle, levels


@st.composite
def any_graphs(draw: st.DrawFn) -> dict[str, list[str]]:
    names = [f"n{number}" for number in range(draw(st.integers(0, 12)))]
    return {name: draw(st.lists(st.sampled_from(names), max_size=4)) for name in names}


@st.composite
def graphs_without_circle(draw: st.DrawFn) -> dict[str, list[str]]:
    names = [f"n{number}" for number in range(draw(st.integers(0, 12)))]
    needs = {
        name: draw(st.lists(st.sampled_from(names[:at]), max_size=4)) if at else [] for at, name in enumerate(names)
    }
    return {name: needs[name] for name in draw(st.permutations(names))}


@given(graphs_without_circle())
def test_what_has_no_circle_passes_and_each_column_is_right_of_its_needs(needs: dict[str, list[str]]) -> None:
    check_needs(needs)
    level = levels(needs)
    assert level.keys() == needs.keys()
    for name, wanted in needs.items():
        assert level[name] == max((level[need] + 1 for need in wanted), default=0)


@given(any_graphs())
def test_a_circle_that_is_told_is_one(needs: dict[str, list[str]]) -> None:
    cycle = find_cycle(needs)
    if not cycle:
        assert levels(needs).keys() == needs.keys()
    for name, need in zip(cycle, cycle[1:] + cycle[:1], strict=True):
        assert need in needs[name]
    assert len(set(cycle)) == len(cycle)


@pytest.mark.parametrize(
    ("needs", "message", "path"),
    [
        ({"a": ["a"]}, "'a' needs itself; remove it", ("a", "needs", 0)),
        (
            {"unit": [], "b": ["unit", "unti"]},
            "there is no stage 'unti'; did you mean 'unit'?",
            ("b", "needs", 1),
        ),
        ({"a": ["zzz"]}, "there is no stage 'zzz'; name a stage of this file", ("a", "needs", 0)),
        (
            {"x": ["a"], "a": ["b"], "b": ["c"], "c": ["a"]},
            "a circle: a needs b needs c needs a; remove one of these needs",
            ("a", "needs"),
        ),
    ],
)
def test_faults_lie_at_the_need(needs: dict[str, list[str]], message: str, path: tuple[object, ...]) -> None:
    with pytest.raises(Misplaced) as caught:
        check_needs(needs)
    assert str(caught.value) == message
    assert caught.value.path == path


def test_a_chain_of_thousands_is_no_deep_recursion() -> None:
    chain = {f"s{n}": [f"s{n - 1}"] if n else [] for n in range(5000)}
    assert levels(chain)["s4999"] == 4999
    chain["s0"] = ["s4999"]
    assert len(find_cycle(chain)) == 5000


def test_needs_outside_of_the_graph_are_no_columns() -> None:
    assert levels({"unit": ["build"], "e2e": ["build", "unit"]}) == {"unit": 0, "e2e": 1}
