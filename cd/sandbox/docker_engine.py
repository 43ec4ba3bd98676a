"""The sandbox on a Docker engine, through its API."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from time import monotonic
from typing import Any

import docker
import requests
import structlog
from docker.errors import APIError, DockerException, ImageNotFound, NotFound
from docker.utils import kwargs_from_env

from cd.errors import ServiceError
from cd.sandbox import files, images, output
from cd.sandbox.base import ContainerSpec, Found, Kept, Sink, StageResult, is_canceled
from cd.sandbox.options import OF_LABEL, create_request
from cd.sandbox.pods import WEIGH, Pods, remove

log = structlog.get_logger()

#: Seconds between two looks at deadline and cancellation while a container runs.
LOOK = 0.5
#: Exit codes of a shell for "can't be executed" and "not found", which the engine uses as well.
NOT_EXECUTABLE, NOT_FOUND = 126, 127
#: Exit code after SIGKILL.
KILLED = 137
NEVER = datetime(1, 1, 1, tzinfo=UTC)


class DockerSandbox:
    """See `cd.sandbox.base.Sandbox`. `host` as in DOCKER_HOST, empty for the environment's own."""

    def __init__(self, host: str = "", runtime: str = "") -> None:
        self._host, self._runtime = host, runtime
        self._client: docker.APIClient | None = None
        self._users: dict[str, str] = {}
        self._errors: dict[str, str] = {}
        #: Containers started here that nothing was made beside of.
        self._alone: set[str] = set()

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

    @property
    def pods(self) -> Pods:
        """What is made beside commands."""
        return Pods(self.api, self._runtime)

    def after_fork(self) -> None:
        """In a forked child: let go of the parent's connections; the client itself is costly to make and stays."""
        if self._client is not None:
            self._client.close()

    def start(self, spec: ContainerSpec, canceled: Callable[[], bool] = lambda: False) -> None:
        """See Sandbox."""
        with translated():
            in_pod = bool(spec.services) or spec.keep_files
            if in_pod:
                if self._begun(spec.name) or not self.pods.start(spec, canceled):
                    return
            else:
                self._alone.add(spec.name)
            try:
                user = self._image_user(spec.image)
                network = self.pods.network(spec)
                body = create_request(spec, user, self._runtime, network)
                name = self.api.create_container_from_config(body, spec.name)["Id"]
            except APIError as error:
                if error.status_code != requests.codes.conflict:
                    raise
                # It exists: made by us before a crash, or by another worker just now. Starting what has ended already
                # would run it a second time.
                if self._begun(spec.name):
                    return
                name = spec.name
            self._start(name, spec.name)

    def _begun(self, name: str) -> bool:
        try:
            return bool(self.api.inspect_container(name)["State"]["Status"] != "created")
        except NotFound:
            return False

    def _start(self, container: str, name: str) -> None:
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
            try:
                found = self.api.inspect_image(image)
            except ImageNotFound:
                images.pull(self.api, image)
                found = self.api.inspect_image(image)
            self._users[image] = found["Config"].get("User") or ""
        return self._users[image]

    def follow(
        self,
        name: str,
        *,
        into: Sink,
        timeout: float,
        canceled: Callable[[], bool],
        limit: int,
    ) -> StageResult:
        """See Sandbox."""
        watch = _Watch(self, name, timeout, canceled)
        try:
            flooded = output.copy(self.api, name, into, limit)
            if flooded:
                self.kill(name)
            with translated():
                self.api.wait(name, timeout=60)
            # What the engine kept back when it stopped to follow, as it does now and then when a container ends.
            flooded = flooded or output.rest(self.api, name, into, limit)
        except ServiceError:
            if self._never_begun(name) and is_canceled(canceled):
                at = datetime.now(UTC)
                return StageResult(KILLED, oom=False, timed_out=False, canceled=True, started_at=at, finished_at=at)
            raise
        finally:
            watch.stop()
        return self._result(name, watch, flooded)

    def _never_begun(self, name: str) -> bool:
        with translated():
            return not self._begun(name)

    def _result(self, name: str, watch: _Watch, flooded: bool) -> StageResult:
        with translated():
            state = self.api.inspect_container(name)["State"]
            services = {} if name in self._alone else {**self.pods.ended_services(name), **watch.large}
        if state["Status"] == "created" and state["ExitCode"] not in (NOT_EXECUTABLE, NOT_FOUND):
            raise ServiceError(f"container {name} was never started")
        code, oom = state["ExitCode"], bool(state["OOMKilled"])
        started = _time(state["StartedAt"])
        # For the shortest commands the engine's two clocks may disagree by a fraction of a millisecond.
        finished = max(started, _time(state["FinishedAt"]))
        ours = watch.timed_out or watch.canceled or flooded
        if not ours and not oom and self._restarted(started, finished, code):
            raise ServiceError(f"the Docker engine was started anew while {name} ran")
        # The worker that killed it may have died right after.
        too_long = code == KILLED and not oom and (finished - started).total_seconds() >= watch.timeout
        error = state.get("Error") or self._errors.pop(name, "")
        return StageResult(
            exit_code=code,
            oom=oom,
            timed_out=watch.timed_out or (too_long and not ours),
            canceled=watch.canceled,
            started_at=started if started > NEVER else datetime.now(UTC),
            finished_at=finished if finished > NEVER else datetime.now(UTC),
            error=error if code in (NOT_EXECUTABLE, NOT_FOUND) else "",
            flooded=flooded,
            services=services,
        )

    def _restarted(self, started: datetime, finished: datetime, code: int) -> bool:
        """Whether the engine began after the container did and may have ended it, whatever exit code it made up.

        The default bridge is made anew each time that the engine starts without containers that live on.
        """
        with translated():
            try:
                engine = _time(self.api.inspect_network("bridge")["Created"])
            except NotFound:
                # An engine without a bridge does not tell; a command that nobody here killed is run again.
                return code == KILLED
        return started < engine and (code == KILLED or finished >= engine)

    def files(self, name: str, path: str) -> Iterator[bytes]:
        """See Sandbox."""
        yield from files.read(self.api, name, path)

    def snapshot(self, name: str, tag: str, limit: int) -> Kept:
        """See Sandbox."""
        with translated():
            return files.snapshot(self.api, name, tag, limit)

    def remove(self, name: str) -> None:
        """See Sandbox."""
        with translated():
            remove(self.api, name)
            if name in self._alone:
                self._alone.discard(name)
            else:
                self.pods.remove(name)

    def kill(self, name: str) -> None:
        """Send SIGKILL; a container that has ended already is left alone."""
        with translated():
            try:
                self.api.kill(name)
            except APIError as error:
                if error.status_code not in (requests.codes.conflict, requests.codes.not_found):
                    raise

    def bound(self, name: str) -> dict[str, str]:
        """See Pods; nothing for a command without any."""
        if name in self._alone:
            return {}
        with translated():
            return self.pods.bound(name)

    def started_at(self, name: str) -> datetime:
        """When the container began, by the engine's clock."""
        with translated():
            return _time(self.api.inspect_container(name)["State"]["StartedAt"])

    def find(self, labels: Mapping[str, str]) -> Sequence[Found]:
        """See Sandbox."""
        with translated():
            wanted = [f"{name}={value}" for name, value in labels.items()]
            listed = self.api.containers(all=True, filters={"label": wanted})
        commands, parts = {}, {}
        for one in listed:
            of = one["Labels"].get(OF_LABEL)
            if of is None:
                commands[one["Names"][0].lstrip("/")] = Found(one["Names"][0].lstrip("/"), one["Labels"], one["State"])
            else:
                # A worker that died before the command began leaves these alone.
                parts[of] = Found(of, one["Labels"], "created")
        return list({**parts, **commands}.values())

    def version(self) -> str:
        """The engine's own. Raises ServiceError."""
        with translated():
            return str(self.api.version()["Version"])

    def ping(self) -> None:
        """See Sandbox."""
        with translated():
            self.api.ping()


class _Watch:
    """Looks after a running container from a thread: kills it at its deadline or when it is canceled."""

    def __init__(self, sandbox: DockerSandbox, name: str, timeout: float, canceled: Callable[[], bool]) -> None:
        self.timed_out = self.canceled = False
        #: Services that were ended because they wrote too much, and how that is told.
        self.large: dict[str, str] = {}
        self._weighed = monotonic()
        self.timeout = timeout
        self._sandbox, self._name, self._asked = sandbox, name, canceled
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._work, name=f"watch-{name}", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()

    def _work(self) -> None:
        # Only a container that lives for a while costs the question when it began.
        started: datetime | None = None
        while not (self.timed_out or self.canceled or self._stopped.wait(LOOK)):
            try:
                started = started or self._sandbox.started_at(self._name)
                self._look(started)
            except ServiceError as error:
                # The engine is away for a while, or the container is gone: who reads the output sees it too.
                log.debug("sandbox.not_watched", container=self._name, error=str(error))

    def _look(self, started: datetime) -> None:
        if monotonic() > self._weighed + WEIGH:
            self.large.update(self._sandbox.bound(self._name))
            self._weighed = monotonic()
        timed_out = (datetime.now(UTC) - started).total_seconds() >= self.timeout
        if timed_out or is_canceled(self._asked):
            self._sandbox.kill(self._name)
            self.timed_out, self.canceled = timed_out, not timed_out


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


def _time(text: str) -> datetime:
    """The engine's RFC 3339 with nanoseconds."""
    head, _, fraction = text.rstrip("Z").partition(".")
    return datetime.fromisoformat(f"{head}.{(fraction or '0')[:6]:0<6}+00:00")
