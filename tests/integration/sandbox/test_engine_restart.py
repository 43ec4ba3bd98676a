"""The engine is ended or killed while a container runs: what it then says of it is never taken for a result."""

from __future__ import annotations

import gc
import signal
import threading
import warnings
from collections.abc import Iterator, Sequence

import pytest
from engines import Engine, engine

from cd.errors import ServiceError
from cd.sandbox.base import ContainerSpec, Limits, StageResult
from cd.sandbox.docker_engine import DockerSandbox
from cd.sandbox.output import Memory

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(autouse=True)
def _forgotten_sockets() -> Iterator[None]:
    """The client's library leaves a socket behind when nobody answers at its other end."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


LIMITS = Limits(memory=64 << 20, cpus=1, pids=32, disk=8 << 20, timeout=120)
SCRIPT = "trap 'exit 0' TERM; trap 'echo done; exit 0' USR1; echo begun; while :; do sleep 0.1; done"


class Heard(Memory):
    """Says when the first output came."""

    def __init__(self) -> None:
        super().__init__()
        self.first = threading.Event()

    def write(self, data: bytes, times: Sequence[tuple[int, int]] = ()) -> None:
        super().write(data, times)
        self.first.set()


def follow(sandbox: DockerSandbox, name: str, into: Memory) -> StageResult:
    return sandbox.follow(name, into=into, timeout=120, canceled=lambda: False, limit=1 << 20)


def begun(made: Engine, image: str) -> tuple[DockerSandbox, ContainerSpec, Heard]:
    """A container that runs, followed until it spoke."""
    sandbox, heard = DockerSandbox(made.host), Heard()
    spec = ContainerSpec("towpath-test-restart", made.load(image), ("sh", "-c", SCRIPT), LIMITS)
    sandbox.start(spec)
    return sandbox, spec, heard


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_an_engine_that_takes_its_containers_with_it(busybox_image: str, how: signal.Signals) -> None:
    with engine() as made:
        sandbox, spec, heard = begun(made, busybox_image)
        outcome: list[object] = []

        def work() -> None:
            try:
                outcome.append(follow(sandbox, spec.name, heard))
            except ServiceError as error:
                outcome.append(error)

        follower = threading.Thread(target=work)
        follower.start()
        assert heard.first.wait(30)
        made.stop(how)
        follower.join(60)
        assert isinstance(outcome[0], ServiceError), "who follows is told at once"
        made.start()
        late = DockerSandbox(made.host)
        late.start(spec)
        with pytest.raises(ServiceError, match=r"anew|no longer|refused"):
            follow(late, spec.name, Memory())
        late.remove(spec.name)
        late.api.close()
        sandbox.api.close()


def test_a_container_that_lives_on_is_followed_to_its_end(busybox_image: str) -> None:
    with engine(live_restore=True) as made:
        sandbox, spec, _ = begun(made, busybox_image)
        made.stop()
        made.start()
        adopted, kept = DockerSandbox(made.host), Memory()
        adopted.start(spec)
        adopted.api.kill(spec.name, "USR1")
        result = follow(adopted, spec.name, kept)
        assert (result.exit_code, bytes(kept.data)) == (0, b"begun\ndone\n")
        adopted.remove(spec.name)
        adopted.api.close()
        sandbox.api.close()
