"""What every sandbox keeps to: one suite, run on the fake and on the Docker engine."""

from __future__ import annotations

import itertools
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import docker
import pytest

from cd.errors import ServiceError
from cd.sandbox.base import ContainerSpec, Limits, Sandbox, StageResult
from cd.sandbox.docker_engine import DockerSandbox
from cd.sandbox.fake import FakeSandbox, Play
from cd.sandbox.output import Memory

QUICK = Play()
LIMITS = Limits(memory=32 << 20, cpus=1, pids=64, disk=8 << 20, timeout=60)


def script(play: Play) -> tuple[str, ...]:
    """A command for a real container that does as the play says."""
    if play.error:
        return ("/no/such/program",)
    if play.oom:
        return ("sh", "-c", "exec tail /dev/zero")
    octal = "".join(f"\\{byte:03o}" for byte in play.output)
    end = f"exit {play.exit_code}" if play.ends else "exec sleep 600"
    return ("sh", "-c", f"printf '{octal}'; {end}")


@dataclass
class Stage:
    """A sandbox with the containers that a test makes in it."""

    sandbox: Sandbox
    image: str
    #: Ends what still runs, from outside.
    kill: Callable[[str], None]
    #: A second one on the same engine, as another worker has it.
    other: Sandbox
    group: str = field(default_factory=lambda: uuid.uuid4().hex[:12])
    plays: dict[str, Play] = field(default_factory=dict)
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def spec(self, play: Play = QUICK, **labels: str) -> ContainerSpec:
        """A container of a fresh name."""
        name = f"towpath-test-{self.group}-{next(self._numbers)}"
        self.plays[name] = play
        return ContainerSpec(name, self.image, script(play), LIMITS, labels={"towpath.test": self.group, **labels})

    def started(self, play: Play = QUICK, **labels: str) -> str:
        spec = self.spec(play, **labels)
        self.sandbox.start(spec)
        return spec.name


@pytest.fixture(params=["fake", "docker"])
def stage(request: pytest.FixtureRequest) -> Iterator[Stage]:
    if request.param == "docker":
        client: docker.DockerClient = request.getfixturevalue("docker_client")
        image: str = request.getfixturevalue("busybox_image")
        first, second = DockerSandbox(), DockerSandbox()
        stage = Stage(first, image, client.api.kill, second)
    else:
        fake = FakeSandbox(lambda spec: stage.plays[spec.name])
        stage = Stage(fake, "sha256:0", lambda name: fake.end(name, 137), fake)
    yield stage
    for name in stage.plays:
        stage.sandbox.remove(name)
    if request.param == "docker":
        first.api.close()
        second.api.close()


LIMIT = 1 << 20


class Taking(Memory):
    """Hands on what comes."""

    def __init__(self, take: Callable[[bytes], None], position: int = 0) -> None:
        super().__init__(position)
        self.take = take

    def write(self, data: bytes, times: Sequence[tuple[int, int]] = ()) -> None:
        super().write(data, times)
        self.take(data)


def follow(
    sandbox: Sandbox,
    name: str,
    *,
    skip: int = 0,
    timeout: float = 60,
    canceled: Callable[[], bool] = lambda: False,
    limit: int = LIMIT,
) -> tuple[StageResult, bytes]:
    kept = Memory(skip)
    result = sandbox.follow(name, into=kept, timeout=timeout, canceled=canceled, limit=limit)
    return result, bytes(kept.data)


def test_a_command_runs_to_its_end(stage: Stage) -> None:
    result, output = follow(stage.sandbox, stage.started(Play(output=b"hello\n\x00\xc3\xa9")))
    assert output == b"hello\n\x00\xc3\xa9"
    assert (result.exit_code, result.oom, result.timed_out, result.canceled, result.error) == (
        0,
        False,
        False,
        False,
        "",
    )
    assert result.started_at <= result.finished_at
    assert result.started_at.utcoffset() is not None


@pytest.mark.parametrize("code", [1, 3, 255])
def test_the_exit_code_is_the_command_s(stage: Stage, code: int) -> None:
    assert follow(stage.sandbox, stage.started(Play(exit_code=code)))[0].exit_code == code


def test_starting_again_leaves_what_runs_and_what_has_ended(stage: Stage) -> None:
    spec = stage.spec(Play(output=b"once", exit_code=4))
    stage.sandbox.start(spec)
    stage.sandbox.start(spec)
    first = follow(stage.sandbox, spec.name)
    assert first[1] == b"once"
    stage.sandbox.start(spec)
    stage.other.start(spec)
    again = follow(stage.sandbox, spec.name)
    assert again == first


def test_following_skips_what_the_caller_has(stage: Stage) -> None:
    name = stage.started(Play(output=b"0123456789"))
    assert follow(stage.sandbox, name) == follow(stage.sandbox, name)
    for skip in (3, 9, 10):
        assert follow(stage.sandbox, name, skip=skip)[1] == b"0123456789"[skip:]


def test_another_worker_adopts_what_runs(stage: Stage) -> None:
    """The first one dies while it follows; the second finds the container by its labels and follows to the end."""
    name = stage.started(Play(output=b"0123456789\n", ends=False), attempt="1")

    class Died(BaseException):
        pass

    def die(data: bytes) -> None:
        raise Died

    with pytest.raises(Died):
        stage.sandbox.follow(name, into=Taking(die, 0), timeout=60, canceled=lambda: False, limit=LIMIT)
    (found,) = stage.other.find({"towpath.test": stage.group})
    assert (found.name, found.state, found.labels["attempt"]) == (name, "running", "1")
    seen = threading.Event()
    rest = bytearray()

    def take(data: bytes) -> None:
        rest.extend(data)
        seen.set()

    ended = threading.Thread(target=lambda: (seen.wait(30), stage.kill(name)))
    ended.start()
    result = stage.other.follow(name, into=Taking(take, 4), timeout=60, canceled=lambda: False, limit=LIMIT)
    ended.join()
    assert (bytes(rest), result.exit_code) == (b"456789\n", 137)
    assert not result.timed_out
    assert not result.canceled


@pytest.mark.parametrize("error", [OSError(28, "disk full"), ValueError("bad"), ServiceError("database away")])
def test_what_write_raises_comes_out_as_it_is_and_the_container_lives(stage: Stage, error: Exception) -> None:
    name = stage.started(Play(output=b"x\n", ends=False))

    def fail(data: bytes) -> None:
        raise error

    with pytest.raises(type(error)) as caught:
        stage.sandbox.follow(name, into=Taking(fail, 0), timeout=60, canceled=lambda: False, limit=LIMIT)
    assert caught.value is error
    assert [one.state for one in stage.sandbox.find({"towpath.test": stage.group})] == ["running"]


def test_what_takes_too_long_is_killed(stage: Stage) -> None:
    name = stage.started(Play(output=b"so far", ends=False))
    result, output = follow(stage.sandbox, name, timeout=1)
    assert output == b"so far"
    assert (result.exit_code, result.timed_out, result.canceled, result.oom) == (137, True, False, False)
    assert 1 <= (result.finished_at - result.started_at).total_seconds() < 20
    again, _ = follow(stage.other, name, timeout=1)
    assert again.timed_out, "who comes after a crash is told the same"


def test_what_is_canceled_is_killed(stage: Stage) -> None:
    asked = itertools.count()
    result, _ = follow(stage.sandbox, stage.started(Play(ends=False)), canceled=lambda: next(asked) >= 1)
    assert (result.exit_code, result.timed_out, result.canceled) == (137, False, True)


def test_a_question_that_fails_ends_neither_the_stage_nor_its_deadline(stage: Stage) -> None:
    """Who asks whether it is canceled asks the database, which may be away for a while."""

    def away() -> bool:
        raise ServiceError("the database does not answer")

    result, _ = follow(stage.sandbox, stage.started(Play(ends=False)), timeout=2, canceled=away)
    assert result.timed_out


def test_too_much_memory_is_told(stage: Stage) -> None:
    result, _ = follow(stage.sandbox, stage.started(Play(exit_code=137, oom=True)))
    assert (result.exit_code, result.oom, result.timed_out) == (137, True, False)


def test_a_command_that_is_not_there_is_the_user_s_fault(stage: Stage) -> None:
    name = stage.started(Play(exit_code=127, error="no such file or directory"))
    result, output = follow(stage.sandbox, name)
    assert result.exit_code == 127
    assert "no such file or directory" in (result.error + output.decode()).lower()
    assert follow(stage.other, name)[0].exit_code == 127


def test_removing_is_content_when_nothing_is_there(stage: Stage) -> None:
    name = stage.started(Play(ends=False))
    stage.sandbox.remove(name)
    stage.other.remove(name)
    stage.sandbox.remove("towpath-test-never-was")
    assert list(stage.sandbox.find({"towpath.test": stage.group})) == []


def test_containers_are_found_by_all_of_their_labels(stage: Stage) -> None:
    running = stage.started(Play(ends=False), step="1")
    ended = stage.started(step="2")
    follow(stage.sandbox, ended)
    everything = {"towpath.test": stage.group}
    assert {one.name: one.state for one in stage.sandbox.find(everything)} == {running: "running", ended: "exited"}
    assert [one.name for one in stage.sandbox.find({**everything, "step": "2"})] == [ended]
    assert list(stage.sandbox.find({**everything, "step": "3"})) == []


def test_following_what_the_engine_does_not_have_is_its_fault(stage: Stage) -> None:
    with pytest.raises(ServiceError):
        follow(stage.sandbox, "towpath-test-never-was")


def test_a_container_that_is_taken_away_meanwhile_ends_the_following(stage: Stage) -> None:
    name = stage.started(Play(output=b"x\n", ends=False))

    def take(data: bytes) -> None:
        stage.other.remove(name)

    with pytest.raises(ServiceError):
        stage.sandbox.follow(name, into=Taking(take, 0), timeout=60, canceled=lambda: False, limit=LIMIT)


def test_many_at_once_keep_their_outputs_apart(stage: Stage) -> None:
    names = [stage.started(Play(output=b"%d\n" % number * 50)) for number in range(4)]
    outputs: dict[str, bytes] = {}
    threads = [
        threading.Thread(target=lambda name=name: outputs.update({name: follow(stage.sandbox, name)[1]}))
        for name in names
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [outputs[name] for name in names] == [b"%d\n" % number * 50 for number in range(4)]


def test_the_engine_answers(stage: Stage) -> None:
    stage.sandbox.ping()
