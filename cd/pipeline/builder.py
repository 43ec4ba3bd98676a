"""Building images with BuildKit on one Docker engine."""

from __future__ import annotations

import contextlib
import tempfile
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import docker
from docker.errors import APIError, ImageNotFound
from docker.utils import parse_repository_tag

from cd.errors import ServiceError
from cd.pipeline import buildtool
from cd.pipeline.buildtool import Canceled, TookTooLong, Tool
from cd.pipeline.definition import ImageSpec
from cd.pipeline.dockerfile import BuildFailed, Dockerfile
from cd.pipeline.faults import explain
from cd.sandbox.docker_engine import translated
from cd.units import format_seconds

__all__ = ["BuildFailed", "BuildRequest", "Builder", "Canceled"]

#: How much of the builder's output is kept to say why it failed, in bytes.
TAIL = 64 << 10
NO_SECRETS: Mapping[str, Path] = {}
_ABSENT = ("not found", "manifest unknown", "access denied", "does not exist", "invalid reference", "unauthorized")


@dataclass(frozen=True)
class BuildRequest:
    """What to build: one image for each target (None: the last stage) out of the files of one commit."""

    files: Path
    spec: ImageSpec
    dockerfile: Dockerfile
    targets: Sequence[str | None]
    #: Name and tag that keep the images from being pruned; targets other than the spec's own are appended.
    tag: str
    #: BuildKit secrets in clear, by their ids.
    secrets: Mapping[str, str] = field(default_factory=dict)
    #: Keeps the cache mounts of one project, or of somebody's fork, from those of another.
    namespace: str = ""


class Builder:
    """Builds on the engine at `host` (as in DOCKER_HOST, empty for the environment's own); `timeout` in seconds."""

    def __init__(self, host: str = "", *, timeout: float = 1800.0) -> None:
        self._host, self._timeout = host, timeout
        self._tool: Tool | None = None
        self._client: docker.APIClient | None = None

    def prepare(self) -> None:
        """Look for the build tool now, so that forked children know it. That there is none is told by a build."""
        with contextlib.suppress(ServiceError):
            self._find()

    def _find(self) -> Tool:
        self._tool = self._tool or buildtool.find_tool()
        return self._tool

    @property
    def _api(self) -> Any:
        """The connection, opened at first use: the process that forks must not have used it."""
        if self._client is None:
            kwargs = docker.utils.kwargs_from_env()
            if self._host:
                kwargs["base_url"] = self._host
            self._client = docker.APIClient(version="1.41", timeout=60, **kwargs)
        return self._client

    def close(self) -> None:
        """Give the connection back; the next use opens another."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def image_id(self, name: str) -> str | None:
        """Id of the image of that name, digest or id on the engine. Raises ServiceError."""
        with translated():
            try:
                return str(self._api.inspect_image(name)["Id"])
            except ImageNotFound:
                return None

    def reference(self, name: str, where: str, write: Callable[[bytes], None]) -> str:
        """What an image of that name is run by: its digest in a registry, or its id where it came from none.

        Pulls it when it is absent; `where` is named when there is none.
        """
        if self.image_id(name) is None:
            self.pull(name, where, write)
        with translated():
            found = self._api.inspect_image(name)
        repository = parse_repository_tag(name)[0].partition("@")[0]
        digests = [one for one in found.get("RepoDigests") or () if one.partition("@")[0] == repository]
        return str(digests[0] if digests else found["Id"])

    def pull(self, name: str, where: str, write: Callable[[bytes], None]) -> str:
        """Fetch an image that the engine lacks; returns its id. Raises BuildFailed when there is no such image."""
        write(f"pulling {name}\n".encode())
        repository, tag = parse_repository_tag(name)
        try:
            with translated():
                for told in self._api.pull(repository, tag=tag or "latest", stream=True, decode=True):
                    if "error" in told:
                        raise ServiceError(str(told["error"]))
        except ServiceError as error:
            cause = error.__cause__
            text = f"{cause.explanation if isinstance(cause, APIError) else error}"
            if any(words in text.lower() for words in _ABSENT):
                remedy = "correct the name, or log the engine in to its registry"
                raise BuildFailed(f"there is no image {name}", where=where, remedy=remedy) from error
            raise ServiceError(
                f"image {name} is not on the engine and could not be pulled: {text}",
                remedy="check that the engine reaches its registry",
            ) from error
        found = self.image_id(name)
        if found is None:
            raise ServiceError(f"the engine pulled {name} and does not have it")
        return found

    def build(
        self, request: BuildRequest, write: Callable[[bytes], None], canceled: Callable[[], bool]
    ) -> dict[str | None, str]:
        """Build every target; returns the image id of each.

        `write` gets what the builder says, `canceled` is asked twice a second. Raises BuildFailed for what the
        repository can mend, ServiceError for the engine's faults, Canceled.
        """
        tool = self._find()
        return {target: self._build(tool, request, target, write, canceled) for target in request.targets}

    def _build(
        self,
        tool: Tool,
        request: BuildRequest,
        target: str | None,
        write: Callable[[bytes], None],
        canceled: Callable[[], bool],
    ) -> str:
        tail: deque[bytes] = deque(maxlen=64)

        def keep(data: bytes) -> None:
            tail.append(data[-TAIL:])
            write(data)

        with tempfile.TemporaryDirectory(prefix="towpath-build-") as folder:
            id_file = Path(folder) / "id"
            argv = command(tool, request, target, id_file, _secret_files(Path(folder), request.secrets))
            try:
                status = buildtool.run(argv, buildtool.environment(self._host), keep, canceled, self._timeout)
            except TookTooLong as error:
                raise BuildFailed(
                    f"the build took longer than {format_seconds(self._timeout)}",
                    where=request.spec.dockerfile,
                    remedy="make it quicker, or have TOWPATH_BUILD_TIMEOUT raised",
                ) from error
            if status == 0 and id_file.exists():
                return id_file.read_text().strip()
        if status < 0:
            raise ServiceError(f"the builder was ended by signal {-status}")
        raise explain(b"".join(tail)[-TAIL:].decode(errors="replace"), request.dockerfile)


def _secret_files(folder: Path, secrets: Mapping[str, str]) -> dict[str, Path]:
    """Each secret in a file that is ours alone, gone with the folder: neither command lines nor environments hide."""
    paths = {name: folder / f"secret-{number}" for number, name in enumerate(secrets)}
    for name, path in paths.items():
        path.touch(mode=0o600)
        path.write_text(secrets[name])
    return paths


def command(
    tool: Tool, request: BuildRequest, target: str | None, id_file: Path, secrets: Mapping[str, Path] = NO_SECRETS
) -> list[str]:
    """The whole command of one build. `secrets` gives the file of each."""
    args = {**request.spec.args, "BUILDKIT_CACHE_MOUNT_NS": request.namespace}
    suffix = "" if target == request.spec.target else f"-{target}"
    return [
        *tool.argv,
        "--progress=plain",
        f"--iidfile={id_file}",
        f"--file={request.files / request.spec.dockerfile}",
        *(f"--secret=id={name},src={path}" for name, path in secrets.items()),
        *(f"--build-arg={name}={value}" for name, value in args.items()),
        *([f"--target={target}"] if target is not None else []),
        f"--tag={request.tag}{suffix}",
        "--",
        str(request.files / request.spec.context),
    ]
