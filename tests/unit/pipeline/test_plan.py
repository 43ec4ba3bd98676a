"""From a pipeline file to steps: cells, needs, conditions."""

from __future__ import annotations

import pytest

from cd.pipeline.parse import parse
from cd.pipeline.plan import MAX_NAME, Occasion, Planned, plan

PUSH = Occasion("push", "refs/heads/main", ("src/app.py", "README.md"))


def planned(text: str, occasion: Occasion = PUSH) -> dict[str, Planned]:
    steps = plan(parse(text.encode()), occasion)
    assert len({step.name for step in steps}) == len(steps)
    return {step.name: step for step in steps}


def test_a_matrix_is_a_step_for_each_cell_with_its_values_as_variables() -> None:
    steps = planned(
        "stages:\n  unit: {run: x, env: {LOG: debug}, matrix: {SUITE: [fast, slow], PYTHON: [3.11, true]}}\n"
        "  after: {run: x, needs: unit}\n"
    )
    names = ["unit:fast,3.11", "unit:fast,true", "unit:slow,3.11", "unit:slow,true"]
    assert list(steps) == [*names, "after"]
    assert steps["after"].needs == ("build", *names)
    cell = steps["unit:slow,true"]
    assert (cell.stage, cell.cell, cell.needs) == ("unit", {"SUITE": "slow", "PYTHON": "true"}, ("build",))
    assert cell.spec.env == {"LOG": "debug", "SUITE": "slow", "PYTHON": "true"}
    assert cell.spec.matrix == {}


def test_names_of_cells_are_short_plain_and_differ() -> None:
    steps = planned(f"stages: {{a: {{run: x, matrix: {{K: ['x y', 'x/y', '{'l' * 300}1', '{'l' * 300}2', '../x']}}}}}}")
    assert list(steps)[:2] == ["a:x-y", "a:x-y~2"]
    assert all(len(name) <= MAX_NAME and "/" not in name for name in steps)


@pytest.mark.parametrize(
    ("when", "occasion", "reason"),
    [
        ("{}", PUSH, ""),
        ("{branches: main}", PUSH, ""),
        ("{branches: ['release/*']}", PUSH, "only on release/*, and this is main"),
        ("{branches: ['release/*']}", Occasion("push", "refs/heads/release/1"), ""),
        ("{branches: main}", Occasion("tag", "refs/tags/main"), "only on main, and this is tags/main"),
        ("{events: [tag, manual]}", PUSH, "only for tag, manual, and this is push"),
        ("{events: pull_request}", Occasion("pull_request", "refs/pull/7/head"), ""),
        ("{paths: ['src/**']}", PUSH, ""),
        ("{paths: src}", PUSH, ""),
        ("{paths: '*.md'}", PUSH, ""),
        ("{paths: ['docs/**']}", PUSH, "nothing changed in docs/**"),
        ("{paths: ['docs/**']}", Occasion("push", "refs/heads/main", ()), "nothing changed in docs/**"),
        ("{paths: ['docs/**']}", Occasion("push", "refs/heads/main"), ""),
        ("{paths: src, branches: other}", PUSH, "only on other, and this is main"),
    ],
)
def test_conditions(when: str, occasion: Occasion, reason: str) -> None:
    assert planned(f"stages: {{a: {{run: x, when: {when}}}}}", occasion)["a"].skip == reason


def test_a_stage_for_failures_without_needs_waits_for_all_that_have_none_such() -> None:
    steps = planned(
        "stages:\n  a: {run: x}\n  b: {run: x, matrix: {K: [1, 2]}}\n"
        "  tell: {run: x, when: {status: failed}}\n  clean: {run: x, needs: a, when: {status: [passed, failed]}}\n"
    )
    assert steps["tell"].needs == ("build", "a", "b:1", "b:2")
    assert steps["clean"].needs == ("build", "a")


@pytest.mark.parametrize(
    ("asks", "reason"),
    [
        ("secrets: TOKEN", "it uses secrets, which code from outside does not get"),
        ("network: internet", "it uses the internet, which code from outside does not get"),
        ("services: {db: {image: postgres}}", ""),
    ],
)
def test_code_from_outside_gets_neither_secrets_nor_the_internet(asks: str, reason: str) -> None:
    text = f"stages: {{a: {{run: x, {asks}}}}}"
    assert planned(text, Occasion("pull_request", "refs/pull/7/head", trusted=False))["a"].skip == reason
    assert planned(text, Occasion("pull_request", "refs/pull/7/head"))["a"].skip == ""
