"""The sandbox on a Docker engine, through its API."""

from __future__ import annotations

import contextlib
import struct
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import docker
import requests
from docker.errors import APIError, DockerException, ImageNotFound, NotFound
from docker.utils import kwargs_from_env

from cd.errors import ServiceError
from cd.sandbox.base import ContainerSpec, Found, StageResult
from cd.sandbox.options import create_request

#: Seconds between two looks at deadline and cancellation while a container runs.
LOOK = 0.5
#: Exit codes of a shell for "can't be executed" and "not found", which the engine uses as well.
NOT_EXECUTABLE, NOT_FOUND = 126, 127
NEVER = datetime(1, 1, 1, tzinfo=UTC)


class DockerSandbox:
    """See `cd.sandbox.base.Sandbox`. `host` as in DOCKER_HOST, empty for the environment's own."""

    def __init__(self, host: str = "", runtime: str = "") -> None:
        self._host, self._runtime = host, runtime
        self._client: docker.APIClient | None = None
        self._users: dict[str, str] = {}
        self._errors: dict[str, str] = {}

    @property
    def api(self) -> Any:
        """The connection, opened at first use so that a forked child has one of its own."""
        if self._client is None:
            with translated():
                kwargs = kwargs_from_env()
                if self._host:
                    kwargs["base_url"] = self._host
                self._client = docker.APIClient(version="1.41", timeout=60, num_pools=32, **kwargs)
        return self._client

    def after_fork(self) -> None:
        """In a forked child: let go of the parent's connections; the client itself is costly to make and stays."""
        if self._client is not None:
            self._client.close()

    def start(self, spec: ContainerSpec) -> None:
        """See Sandbox."""
        with translated():
            try:
                user = self._image_user(spec.image)
                body = create_request(spec, user, self._runtime)
                name = self.api.create_container_from_config(body, spec.name)["Id"]
            except ImageNotFound as error:
                raise ServiceError(
                    f"image {spec.image} is not on this engine", remedy="run it again: it will be built"
                ) from error
            except APIError as error:
                if error.status_code != requests.codes.conflict:
                    raise
                name = spec.name  # it exists: made by us before a crash, or by another worker just now
            self._start(name, spec.name)

    def _start(self, container: str, name: str) -> None:
        state = None
        try:
            self.api.start(container)
        except NotFound:
            raise
        except APIError as error:
            # "exec: not found" and the like: the user's command; the container is left with exit code 127 or 126.
            state = self.api.inspect_container(container)["State"]
            if state["ExitCode"] not in (NOT_EXECUTABLE, NOT_FOUND):
                raise
            self._errors[name] = str(error.explanation)

    def _image_user(self, image: str) -> str:
        if image not in self._users:
            self._users[image] = self.api.inspect_image(image)["Config"].get("User") or ""
        return self._users[image]

    def follow(
        self,
        name: str,
        *,
        skip: int,
        write: Callable[[bytes], None],
        timeout: float,
        canceled: Callable[[], bool],
    ) -> StageResult:
        """See Sandbox."""
        with translated():
            watch = _Watch(self, name, timeout, canceled)
            try:
                for data in self._output(name):
                    if skip >= len(data):
                        skip -= len(data)
                    else:
                        write(data[skip:])
                        skip = 0
            finally:
                watch.stop()
            return self._result(name, watch)

    def _output(self, name: str) -> Iterator[bytes]:
        """Both streams in the order of the log file, from the container's first byte to its end."""
        url = self.api._url("/containers/{0}/logs", name)
        params = {"stdout": 1, "stderr": 1, "follow": 1}
        response = self.api._get(url, params=params, stream=True, timeout=None)
        self.api._raise_for_status(response)
        with contextlib.closing(response):
            while header := _exactly(response.raw, 8):
                left = struct.unpack(">xxxxL", header)[0]
                while left:
                    data = response.raw.read(min(left, 1 << 16))
                    if not data:
                        raise ServiceError("the engine ended a container's output in the middle")
                    left -= len(data)
                    yield data

    def _result(self, name: str, watch: _Watch) -> StageResult:
        self.api.wait(name, timeout=60)
        state = self.api.inspect_container(name)["State"]
        if state["Status"] == "created" and state["ExitCode"] not in (NOT_EXECUTABLE, NOT_FOUND):
            raise ServiceError(f"container {name} was never started")
        code = state["ExitCode"]
        started, finished = _time(state["StartedAt"]), _time(state["FinishedAt"])
        error = state.get("Error") or self._errors.pop(name, "")
        return StageResult(
            exit_code=code,
            oom=bool(state["OOMKilled"]),
            timed_out=watch.timed_out,
            canceled=watch.canceled,
            started_at=started if started > NEVER else datetime.now(UTC),
            finished_at=finished if finished > NEVER else datetime.now(UTC),
            error=error if code in (NOT_EXECUTABLE, NOT_FOUND) else "",
        )

    def remove(self, name: str) -> None:
        """See Sandbox."""
        with translated():
            try:
                self.api.remove_container(name, v=True, force=True)
            except NotFound:
                return
            except APIError as error:
                # Another worker is removing it at this moment.
                if error.status_code != requests.codes.conflict:
                    raise

    def kill(self, name: str) -> None:
        """Send SIGKILL; a container that has ended already is left alone."""
        with translated():
            try:
                self.api.kill(name)
            except APIError as error:
                if error.status_code not in (requests.codes.conflict, requests.codes.not_found):
                    raise

    def started_at(self, name: str) -> datetime:
        """When the container began, by the engine's clock."""
        with translated():
            return _time(self.api.inspect_container(name)["State"]["StartedAt"])

    def find(self, labels: Mapping[str, str]) -> Sequence[Found]:
        """See Sandbox."""
        with translated():
            wanted = [f"{name}={value}" for name, value in labels.items()]
            listed = self.api.containers(all=True, filters={"label": wanted})
        return [Found(one["Names"][0].lstrip("/"), one["Labels"], one["State"]) for one in listed]

    def ping(self) -> None:
        """See Sandbox."""
        with translated():
            self.api.ping()


class _Watch:
    """Looks after a running container from a thread: kills it at its deadline or when it is canceled."""

    def __init__(self, sandbox: DockerSandbox, name: str, timeout: float, canceled: Callable[[], bool]) -> None:
        self.timed_out = self.canceled = False
        self._sandbox, self._name, self._timeout, self._asked = sandbox, name, timeout, canceled
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._work, name=f"watch-{name}", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()

    def _work(self) -> None:
        if self._stopped.wait(LOOK):
            return
        # Only a container that lives for a while costs the question when it began.
        started: datetime | None = None
        while True:
            try:
                started = started or self._sandbox.started_at(self._name)
                self._look(started)
            except ServiceError:
                return  # the engine or the container is gone; the thread that reads the output sees it too
            if self.timed_out or self.canceled or self._stopped.wait(LOOK):
                return

    def _look(self, started: datetime) -> None:
        if (datetime.now(UTC) - started).total_seconds() >= self._timeout:
            self.timed_out = True
        elif self._asked():
            self.canceled = True
        if self.timed_out or self.canceled:
            self._sandbox.kill(self._name)


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """The one place where the engine's errors become ours."""
    try:
        yield
    except NotFound as error:
        raise ServiceError(f"the engine no longer has it: {error.explanation}") from error
    except APIError as error:
        text = str(error.explanation or error)
        if "no space left" in text:
            raise ServiceError("the engine's disk is full", remedy="free some space on it") from error
        raise ServiceError(f"the Docker engine refused: {text}") from error
    except (DockerException, requests.RequestException, OSError) as error:
        raise ServiceError(
            f"the Docker engine does not answer: {_root(error)}",
            remedy="start it, or set TOWPATH_DOCKER_HOST to one that runs",
        ) from error


def _root(error: BaseException) -> str:
    """The innermost reason, in one line."""
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__ or error
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _exactly(stream: Any, size: int) -> bytes:
    """Read `size` bytes; empty at the end of the stream."""
    data = b""
    while len(data) < size:
        more = stream.read(size - len(data))
        if not more:
            if data:
                raise ServiceError("the engine ended a container's output in the middle")
            return b""
        data += more
    return data


def _time(text: str) -> datetime:
    """The engine's RFC 3339 with nanoseconds."""
    head, _, fraction = text.rstrip("Z").partition(".")
    return datetime.fromisoformat(f"{head}.{(fraction or '0')[:6]:0<6}+00:00")
