from __future__ import annotations

import pytest

from cd.pipeline import verdicts
from cd.pipeline.definition import StageSpec
from cd.pipeline.verdicts import stage_key


def spec(**values: object) -> StageSpec:
    return StageSpec.model_validate({"run": ["pytest"], "env": {"A": "1", "B": "2"}, **values})


@pytest.mark.parametrize(
    "change",
    [
        {"run": ["pytest", "-q"]},
        {"run": "pytest"},
        {"env": {"A": "1", "B": "3"}},
        {"env": {"A": "1"}},
        {"limits": {"memory": "1GiB"}},
        {"limits": {"cpus": 2}},
        {"limits": {"pids": 10}},
        {"limits": {"disk": "2GiB"}},
        {"limits": {"timeout": "1m"}},
        {"network": "services"},
    ],
)
def test_what_decides_the_result_is_in_the_key(change: dict[str, object]) -> None:
    assert stage_key(spec(**change)) != stage_key(spec())


@pytest.mark.parametrize(
    "change",
    [{"env": {"B": "2", "A": "1"}}, {"needs": ["lint"]}, {"retries": 2}, {"allow_failure": True}, {"reuse": "never"}],
)
def test_what_does_not_is_not(change: dict[str, object]) -> None:
    assert stage_key(spec(**change)) == stage_key(spec())


def test_another_sandbox_voids_the_verdicts_of_the_one_before(monkeypatch: pytest.MonkeyPatch) -> None:
    before = stage_key(spec())
    monkeypatch.setattr(verdicts, "SANDBOX_VERSION", 1000)
    assert stage_key(spec()) != before


def test_names_and_values_can_not_be_shifted_into_each_other() -> None:
    assert stage_key(spec(run=["a b"])) != stage_key(spec(run=["a", "b"]))
