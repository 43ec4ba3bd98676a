"""Runs without a server, on a sandbox whose containers do as they are told."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from cd.cli.localrun import LocalRun, Printed, Result, chosen
from cd.errors import ServiceError
from cd.pipeline.definition import Pipeline
from cd.pipeline.plan import Occasion, plan
from cd.pipeline.verdicts import stage_key
from cd.sandbox.base import ContainerSpec, Found, Kept, NotReady, Sink, StageResult

AT = datetime(2026, 11, 24, tzinfo=UTC)


class Scripted:
    """A sandbox: the command of a stage says how it ends, as a number or a word."""

    def __init__(self) -> None:
        self.started: list[ContainerSpec] = []
        self.there: set[str] = set()
        self.running = self.most = 0
        self.lock = threading.Lock()
        self.together = threading.Barrier(2, timeout=20)

    def start(self, spec: ContainerSpec, canceled: Callable[[], bool] = lambda: False) -> None:
        with self.lock:
            self.started.append(spec)
            self.there.add(spec.name)
        if spec.argv[-1] == "unready":
            raise NotReady("db", "ended before it was ready", b"no space\n")

    def follow(
        self,
        name: str,
        *,
        into: Sink,
        timeout: float,
        canceled: Callable[[], bool],
        limit: int,
    ) -> StageResult:
        spec = next(one for one in self.started if one.name == name)
        word = spec.argv[-1]
        into.write(f"{word}\n".encode())
        if word == "broken":
            raise ServiceError("the engine is away")
        if word == "together":
            self.together.wait()
        if word == "tell":
            value = spec.secrets["TOKEN"]
            for half in (value[:3], value[3:]):
                into.write(half.encode())
        if word == "flaky":
            word = "0" if name.endswith("-2") else "1"
        code = int(word) if word.isdigit() else 0
        return StageResult(code, oom=False, timed_out=False, canceled=canceled(), started_at=AT, finished_at=AT)

    def files(self, name: str, path: str) -> Iterator[bytes]:
        raise NotImplementedError

    def snapshot(self, name: str, tag: str, limit: int) -> Kept:
        raise NotImplementedError

    def remove(self, name: str) -> None:
        self.there.discard(name)

    def find(self, labels: Mapping[str, str]) -> Sequence[Found]:
        raise NotImplementedError

    def ping(self) -> None:
        raise NotImplementedError


@pytest.fixture
def sandbox() -> Scripted:
    return Scripted()


def local(sandbox: Scripted, *names: str, ref: str = "refs/heads/main", **stages: dict[str, Any]) -> LocalRun:
    pipeline = Pipeline.model_validate({"stages": {name: {"run": "0", **told} for name, told in stages.items()}})
    wanted = chosen(plan(pipeline, Occasion("push", ref)), names)
    images = {one.name: "sha256:1" for one in wanted}
    services = {one.name: dict.fromkeys(one.spec.services, "sha256:2") for one in wanted}
    return LocalRun(wanted, images, services, {"TOKEN": "hush-hush"}, sandbox, lambda *_: None, 4)


def run(sandbox: Scripted, *names: str, **stages: Any) -> tuple[Result, dict[str, bytes]]:
    written: dict[str, bytes] = {}

    def write(step: str, data: bytes) -> None:
        written[step] = written.get(step, b"") + data

    made = local(sandbox, *names, **stages)
    made.write = write
    result = made.run()
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
    made = local(sandbox, a={"run": "0"})
    made.canceled.set()
    assert made.run().state == "canceled"
    assert not sandbox.started


def test_cells_are_steps_of_their_own_and_can_be_chosen(sandbox: Scripted) -> None:
    unit = {"matrix": {"PY": ["3.11", "3.12"]}}
    result, _ = run(sandbox, lint={}, unit=unit, pack={"needs": ["unit"]})
    assert states(result) == dict.fromkeys(("lint", "unit:3.11", "unit:3.12", "pack"), "passed")
    assert [spec.env["PY"] for spec in sandbox.started if "PY" in spec.env] == ["3.11", "3.12"]
    assert len({stage.key for stage in result.stages}) == 3, "lint and pack do the same"
    one, _ = run(Scripted(), "unit:3.12", lint={}, unit=unit)
    assert list(states(one)) == ["unit:3.12"]
    both, _ = run(Scripted(), "pack", lint={}, unit=unit, pack={"needs": ["unit"]})
    assert list(states(both)) == ["unit:3.11", "unit:3.12", "pack"]


def test_conditions_hold_as_on_a_server(sandbox: Scripted) -> None:
    release = {"when": {"branches": ["release-*"]}}
    cleanup = {"when": {"status": "failed"}}
    result, _ = run(sandbox, a={"run": "1"}, release=release, after={"needs": ["release"]}, cleanup=cleanup)
    assert states(result) == {"a": "failed", "release": "skipped", "after": "passed", "cleanup": "passed"}
    assert result.stages[1].reason == "only on release-*, and this is main"
    assert (result.stages[1].cause, result.stages[1].key) == ("when", "")
    fits, _ = run(Scripted(), ref="refs/heads/release-1", release=release, cleanup=cleanup)
    assert states(fits) == {"release": "passed", "cleanup": "skipped"}


def test_only_the_stage_that_asks_gets_a_secret_and_it_is_masked(sandbox: Scripted) -> None:
    result, written = run(sandbox, a={"run": "tell", "secrets": ["TOKEN"]}, b={})
    assert result.state == "passed"
    assert written["a"] == b"tell\n*********"
    assert [dict(spec.secrets) for spec in sorted(sandbox.started, key=lambda one: one.labels["towpath.stage"])] == [
        {"TOKEN": "hush-hush"},
        {},
    ]


def test_a_service_that_does_not_start_fails_the_stage(sandbox: Scripted) -> None:
    result, written = run(sandbox, a={"run": "unready", "services": {"db": {"image": "postgres:16"}}})
    assert result.stages[0].reason == "service db ended before it was ready"
    assert result.stages[0].cause == "service"
    assert written["a"].endswith(b"no space\n")
    assert sandbox.started[0].services[0].image == "sha256:2"


def test_keys_are_a_servers(sandbox: Scripted) -> None:
    made = local(sandbox, a={"secrets": ["TOKEN"], "services": {"db": {"image": "postgres:16"}}})
    (stage,) = made.run().stages
    assert stage.key == stage_key(made.planned[0].spec, {"db": "sha256:2"}, {"TOKEN": 0})
    assert stage.image == "sha256:1"
    assert stage.attempts == 1


def test_what_is_printed_says_where_a_second_reading_goes_on() -> None:
    said: list[bytes] = []
    printed = Printed(said.append, ["hush-hush"])
    printed.write(b"a hu", [(0, 5), (2, 7)])
    assert (printed.position, printed.since, printed.since_at) == (4, 7, 2)
    assert said == [b"a "]
    printed.close()
    assert said == [b"a ", b"hu"]
