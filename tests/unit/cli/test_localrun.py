"""Runs without a server, on a sandbox whose containers do as they are told."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from cd.cli.localrun import LocalRun, Result, chosen
from cd.errors import ServiceError
from cd.pipeline.definition import Pipeline
from cd.sandbox.base import ContainerSpec, Found, StageResult

AT = datetime(2026, 11, 24, tzinfo=UTC)


class Scripted:
    """A sandbox: the command of a stage says how it ends, as a number or a word."""

    def __init__(self) -> None:
        self.started: list[ContainerSpec] = []
        self.there: set[str] = set()
        self.running = self.most = 0
        self.lock = threading.Lock()
        self.together = threading.Barrier(2, timeout=20)

    def start(self, spec: ContainerSpec) -> None:
        with self.lock:
            self.started.append(spec)
            self.there.add(spec.name)

    def follow(
        self,
        name: str,
        *,
        skip: int,
        write: Callable[[bytes], None],
        timeout: float,
        canceled: Callable[[], bool],
    ) -> StageResult:
        spec = next(one for one in self.started if one.name == name)
        word = spec.argv[-1]
        write(f"{word}\n".encode())
        if word == "broken":
            raise ServiceError("the engine is away")
        if word == "together":
            self.together.wait()
        if word == "flaky":
            word = "0" if name.endswith("-2") else "1"
        code = int(word) if word.isdigit() else 0
        return StageResult(code, oom=False, timed_out=False, canceled=canceled(), started_at=AT, finished_at=AT)

    def remove(self, name: str) -> None:
        self.there.discard(name)

    def find(self, labels: Mapping[str, str]) -> Sequence[Found]:
        raise NotImplementedError

    def ping(self) -> None:
        raise NotImplementedError


@pytest.fixture
def sandbox() -> Scripted:
    return Scripted()


def run(sandbox: Scripted, *names: str, **stages: dict[str, Any]) -> tuple[Result, dict[str, bytes]]:
    pipeline = Pipeline.model_validate({"stages": {name: {"run": "0", **told} for name, told in stages.items()}})
    written: dict[str, bytes] = {}

    def write(step: str, data: bytes) -> None:
        written[step] = written.get(step, b"") + data

    wanted = chosen(pipeline, names)
    result = LocalRun(wanted, dict.fromkeys(wanted, "sha256:1"), sandbox, write, 4).run()
    assert not sandbox.there
    return result, written


def states(result: Result) -> dict[str, str]:
    return {stage.name: stage.state for stage in result.stages}


def test_all_pass(sandbox: Scripted) -> None:
    result, written = run(sandbox, lint={}, unit={"needs": ["lint"]})
    assert result.state == "passed"
    assert states(result) == {"lint": "passed", "unit": "passed"}
    assert written == {"lint": b"0\n", "unit": b"0\n"}
    assert [spec.labels["towpath.stage"] for spec in sandbox.started] == ["lint", "unit"]


def test_what_needs_nothing_of_each_other_runs_at_the_same_time(sandbox: Scripted) -> None:
    result, _ = run(sandbox, one={"run": "together"}, two={"run": "together"})
    assert result.state == "passed"


def test_a_failure_skips_what_needs_it_and_nothing_else(sandbox: Scripted) -> None:
    result, _ = run(sandbox, a={"run": "3"}, b={"needs": ["a"]}, c={"needs": ["b"]}, d={})
    assert result.state == "failed"
    assert states(result) == {"a": "failed", "b": "skipped", "c": "skipped", "d": "passed"}
    assert [stage.reason for stage in result.stages[:2]] == ["exit code 3", "needs a, which failed"]


def test_an_allowed_failure_fails_nothing(sandbox: Scripted) -> None:
    result, _ = run(sandbox, a={"run": "1", "allow_failure": True}, b={"needs": ["a"]})
    assert result.state == "passed"
    assert states(result) == {"a": "failed", "b": "passed"}


def test_a_stage_is_tried_as_often_as_it_may(sandbox: Scripted) -> None:
    result, written = run(sandbox, a={"run": "flaky", "retries": 2}, b={"run": "1", "retries": 1})
    assert states(result) == {"a": "passed", "b": "failed"}
    assert written["a"] == b"flaky\nexit code 1; tried again\nflaky\n"
    assert len({spec.name for spec in sandbox.started}) == 4


def test_the_engines_fault_is_told_as_one(sandbox: Scripted) -> None:
    result, _ = run(sandbox, a={"run": "broken"})
    assert result.state == "errored"
    assert result.stages[0].reason == "the engine is away"


def test_named_stages_bring_what_they_need(sandbox: Scripted) -> None:
    result, _ = run(sandbox, "c", a={}, b={"needs": ["a"]}, c={"needs": ["b"]}, d={})
    assert list(states(result)) == ["a", "b", "c"]


def test_a_canceled_run_starts_nothing_more(sandbox: Scripted) -> None:
    pipeline = Pipeline.model_validate({"stages": {"a": {"run": "0"}}})
    local = LocalRun(pipeline.stages, {"a": "sha256:1"}, sandbox, lambda *_: None, 1)
    local.canceled.set()
    assert local.run().state == "canceled"
    assert not sandbox.started
