"""A docker command line that can BuildKit: found, and run until it ends, is canceled or takes too long."""

from __future__ import annotations

import os
import re
import selectors
import shutil
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import IO

from cd.errors import ServiceError

#: Seconds between two looks at cancellation, and of patience with a builder that was told to end.
LOOK = 0.5
PATIENCE = 5.0
#: What the builder may know of our environment: where the engine is and how to log in to registries.
_PASSED_ON = (
    "PATH", "HOME", "DOCKER_HOST", "DOCKER_CONFIG", "DOCKER_CONTEXT", "DOCKER_CERT_PATH", "DOCKER_TLS_VERIFY",
    "XDG_RUNTIME_DIR", "SSL_CERT_FILE", "SSL_CERT_DIR",
)  # fmt: skip
_VERSION = re.compile(r"Docker version (\d+)\.(\d+)")


class Canceled(Exception):
    """The build was stopped because its step has ended already."""


class TookTooLong(Exception):
    """The build was stopped at its deadline."""


@dataclass(frozen=True)
class Tool:
    """The beginning of a command that builds."""

    argv: tuple[str, ...]


def find_tool() -> Tool:
    """Probe what is installed: buildx, else a docker whose own BuildKit works. Raises ServiceError."""
    binaries = _binaries()
    for binary in binaries:
        if _says(binary, "buildx", "version") is not None:
            return Tool((binary, "buildx", "build", "--load"))
    for binary in binaries:
        if has_own_buildkit(_says(binary, "--version") or ""):
            return Tool((binary, "build"))
    raise ServiceError(
        "no docker command on this machine can build with BuildKit",
        retryable=False,
        remedy="install docker-buildx (package docker-buildx-plugin or docker-buildx)",
    )


def has_own_buildkit(version: str) -> bool:
    """Whether a docker of this `docker --version` has BuildKit inside: from 19.03 until it moved to buildx in 23."""
    found = _VERSION.search(version)
    return found is not None and (19, 3) <= (int(found[1]), int(found[2])) < (23, 0)


def _binaries() -> list[str]:
    folders = [*os.environ.get("PATH", os.defpath).split(os.pathsep), "/usr/bin"]
    found = (shutil.which("docker", path=folder) for folder in folders if folder)
    return list(dict.fromkeys(os.path.realpath(one) for one in found if one))


def _says(*command: str) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def environment(host: str) -> dict[str, str]:
    """The variables of a build."""
    told = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    if host:
        told["DOCKER_HOST"] = host
    return {**told, "DOCKER_BUILDKIT": "1", "BUILDX_NO_DEFAULT_ATTESTATIONS": "1", "LC_ALL": "C.UTF-8"}


def run(
    command: Sequence[str],
    variables: Mapping[str, str],
    write: Callable[[bytes], None],
    canceled: Callable[[], bool],
    timeout: float,
) -> int:
    """Run to the end, passing on both outputs; returns the exit status. Raises Canceled, TookTooLong.

    The command ends with us: it is told to end when our process dies, even by SIGKILL, and its process group is
    ended whatever happens here.
    """
    try:
        process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "TERM", *command],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            env=dict(variables), cwd="/", start_new_session=True,
        )  # fmt: skip
    except OSError as error:
        raise ServiceError(f"the builder could not be started: {error}", remedy="install util-linux") from error
    assert process.stdout is not None
    with process.stdout as output:
        try:
            _follow(output, write, canceled, monotonic() + timeout)
            return process.wait(timeout=PATIENCE)
        except subprocess.TimeoutExpired as error:
            raise ServiceError("the builder closed its output and did not end") from error
        finally:
            _end(process)


def _follow(output: IO[bytes], write: Callable[[bytes], None], canceled: Callable[[], bool], until: float) -> None:
    look = monotonic() + LOOK
    with selectors.DefaultSelector() as selector:
        selector.register(output, selectors.EVENT_READ)
        while True:
            if selector.select(max(0.0, look - monotonic())):
                data = os.read(output.fileno(), 1 << 16)
                if not data:
                    return
                write(data)
            if monotonic() >= look:
                look = monotonic() + LOOK
                if canceled():
                    raise Canceled
                if monotonic() >= until:
                    raise TookTooLong


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the whole process group, kindly first: a builder that is asked tells the engine to stop."""
    for number, patience in ((signal.SIGTERM, PATIENCE), (signal.SIGKILL, None)):
        if process.poll() is not None:
            return
        try:
            os.killpg(process.pid, number)
            process.wait(timeout=patience)
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue
