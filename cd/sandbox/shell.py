"""A look at what a failed stage left: a terminal in a container like the stage's own, on its kept files.

The container is all the state there is, so that any process that reaches the engine can read from it or type into it.
"""

from __future__ import annotations

import contextlib
import secrets
import select
import socket
from collections.abc import Generator, Iterator, Mapping
from datetime import datetime, timedelta
from time import monotonic
from typing import Any

from docker.errors import ImageNotFound, NotFound

from cd.errors import NotFound as NoShell
from cd.errors import ServiceError
from cd.sandbox import options
from cd.sandbox.base import ContainerSpec, Found, Limits
from cd.sandbox.docker_engine import DockerSandbox, translated
from cd.sandbox.pods import Pods, remove
from cd.sandbox.stock import Stored
from cd.store.base import now

KIND = "shell"
#: Seconds that a shell lasts at most, and that one may wait for its first reader.
LONGEST, UNREAD = 3600.0, 60.0
#: Seconds between two signs of life where the shell says nothing, bytes read at once, and seconds that typing may take.
BEAT, BLOCK, TYPING = 5.0, 1 << 16, 5.0
USER_LABEL, UNTIL_LABEL = "towpath.user", "towpath.until"
#: The better shell of those that the image has.
ARGV = ("/bin/sh", "-c", "command -v bash >/dev/null 2>&1 && exec bash || exec sh")

#: What the container's first process says where there is none, and what that means.
NO_SHELL = b"exec /bin/sh failed"
NO_SHELL_TOLD = b"\r\nthe image has no shell; let the stage use a target that has /bin/sh\r\n"


def shell_spec(
    image: str, limits: Limits, env: Mapping[str, str], labels: Mapping[str, str], user: str
) -> ContainerSpec:
    """The container of a new shell of `user`; the limits are the stage's, its time an hour."""
    until = now() + timedelta(seconds=LONGEST)
    told = {**labels, "towpath.kind": KIND, USER_LABEL: user, UNTIL_LABEL: until.isoformat()}
    name = f"towpath-shell-{secrets.token_hex(12)}"
    return ContainerSpec(
        name, image, ARGV, limits, {"TERM": "xterm-256color", **env}, {**told, "towpath.shell": name}, keep_files=True
    )


def local_spec(image: Stored, layers: Mapping[str, int]) -> ContainerSpec:
    """The same without a server: limits are the usual ones, with room for what was left."""
    disk = max(1 << 30, 2 * list(layers.values())[-1] if layers else 0)
    kept = {name: value for name, value in image.labels.items() if name in ("towpath.instance", "towpath.stage")}
    return shell_spec(image.id, Limits(1 << 30, 1.0, 256, disk, LONGEST), {}, kept, "")


def is_over(found: Found, at: datetime) -> bool:
    """Whether the shell has had its hour, or was never begun by anybody."""
    left = (datetime.fromisoformat(found.labels[UNTIL_LABEL]) - at).total_seconds()
    return left <= 0 or (found.state == "created" and left < LONGEST - UNREAD)


def create_request(spec: ContainerSpec, image_user: str, runtime: str = "") -> dict[str, Any]:
    """Body of POST /containers/create: as a stage's, with a terminal, and /work and /tmp filled from the image."""
    body = options.create_request(spec, image_user, runtime)
    for mount in body["HostConfig"]["Mounts"]:
        mount["VolumeOptions"] = {"NoCopy": False}
    body["HostConfig"]["LogConfig"] = {"Type": "none", "Config": {}}
    streams = {f"Attach{name}": True for name in ("Stdin", "Stdout", "Stderr")}
    return {**body, **streams, "Tty": True, "OpenStdin": True, "StdinOnce": False}


class Shells:
    """The shells of one engine. All calls raise ServiceError when it does not answer."""

    def __init__(self, sandbox: DockerSandbox, runtime: str = "") -> None:
        self._sandbox, self._runtime = sandbox, runtime

    @property
    def _api(self) -> Any:
        return self._sandbox.api

    def open(self, spec: ContainerSpec) -> str:
        """Make the container, which begins when it is read; its name. Raises ServiceError when the image is absent."""
        with translated():
            try:
                user = self._api.inspect_image(spec.image)["Config"].get("User") or ""
            except ImageNotFound as error:
                raise ServiceError(
                    "the kept files are not on this engine",
                    remedy="run `towpath shell --local` on the machine of the worker that ran the stage",
                ) from error
            try:
                # The holder keeps the volumes mounted, so that what is copied into them stays.
                Pods(self._api, self._runtime).start(spec, lambda: False)
                self._api.create_container_from_config(create_request(spec, user, self._runtime), spec.name)
            except BaseException:
                self.remove(spec.name)
                raise
        return spec.name

    def find(self, name: str) -> Mapping[str, str]:
        """The labels of a shell. Raises NotFound."""
        with translated():
            try:
                labels: Mapping[str, str] = self._api.inspect_container(name)["Config"]["Labels"]
            except NotFound as error:
                raise NoShell("the shell has ended", remedy="open another one") from error
        if labels.get("towpath.kind") != KIND or labels.get("towpath.shell") != name:
            raise NoShell("there is no such shell")
        return labels

    def count(self, instance: str) -> int:
        """How many there are of an installation."""
        return len(self._sandbox.find({"towpath.instance": instance, "towpath.kind": KIND}))

    def read(self, name: str) -> Generator[bytes, None, None]:
        """Begin the shell and give all that it writes until it ends; b"" now and then while it writes nothing.

        Whoever stops reading ends it: it is removed then.
        """
        try:
            with contextlib.ExitStack() as stack:
                with translated():
                    # Attached before it begins: nothing that it says is lost.
                    told = {"stdout": 1, "stderr": 1, "stream": 1}
                    raw = stack.enter_context(_attached(self._api, name, told))
                    self._api.start(name)
                yield b""
                for data in _read(raw, monotonic() + LONGEST):
                    yield data
                    if NO_SHELL in data:
                        yield NO_SHELL_TOLD
        finally:
            self.remove(name)

    def write(self, name: str, data: bytes) -> None:
        """Type into it."""
        with translated():
            with _attached(self._api, name, {"stdin": 1, "stream": 1}) as raw:
                raw.settimeout(TYPING)
                raw.sendall(data)
                raw.shutdown(socket.SHUT_WR)
                with contextlib.suppress(TimeoutError):
                    # The end comes when all has been passed on: what is typed next comes after it. A program that
                    # reads nothing keeps it waiting.
                    raw.recv(1)

    def resize(self, name: str, rows: int, columns: int) -> None:
        """Tell it the size of the terminal."""
        with translated():
            self._api.resize(name, height=rows, width=columns)

    def remove(self, name: str) -> None:
        """End it. Content when it is gone."""
        with translated():
            remove(self._api, name)
            Pods(self._api, self._runtime).remove(name)


@contextlib.contextmanager
def _attached(api: Any, name: str, params: Mapping[str, int]) -> Iterator[socket.socket]:
    """A connection to the terminal of a container."""
    stream = api.attach_socket(name, params=params)
    raw: socket.socket = getattr(stream, "_sock", stream)
    try:
        raw.settimeout(None)
        yield raw
    finally:
        with contextlib.suppress(OSError):
            raw.shutdown(socket.SHUT_RDWR)
        stream._response.close()
        raw.close()


def _read(raw: socket.socket, deadline: float) -> Iterator[bytes]:
    while (left := deadline - monotonic()) > 0:
        if not select.select([raw], [], [], min(BEAT, left))[0]:
            yield b""
            continue
        try:
            data = raw.recv(BLOCK)
        except OSError:
            return  # the engine or the container is gone
        if not data:
            return
        yield data
    yield b"\r\nthe hour is over\r\n"
