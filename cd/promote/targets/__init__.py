"""Targets: where environments run. A new kind is one module and one line in `KINDS`."""

from __future__ import annotations

from collections.abc import Callable

from cd.promote.policy import EnvironmentSpec
from cd.promote.targets.base import Target
from cd.promote.targets.docker_engine import DockerTarget

#: Finds the target of an environment.
FindTarget = Callable[[EnvironmentSpec], Target]

#: From a kind to what makes its target, of the engine's address and the proxy's image.
KINDS: dict[str, Callable[[str, str], Target]] = {"docker": DockerTarget}


class Targets:
    """The targets of this worker. `docker_host` is the engine of those that name none, as in DOCKER_HOST."""

    def __init__(self, docker_host: str, proxy_image: str) -> None:
        self._docker_host, self._proxy_image = docker_host, proxy_image
        self._known: dict[tuple[str, str], Target] = {}

    def __call__(self, spec: EnvironmentSpec) -> Target:
        """The target of that environment; one object an engine."""
        key = spec.target.kind, spec.target.engine or self._docker_host
        if key not in self._known:
            self._known[key] = KINDS[spec.target.kind](key[1], self._proxy_image)
        return self._known[key]
