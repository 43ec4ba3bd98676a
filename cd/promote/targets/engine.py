"""The few calls of a Docker engine that a target needs, each safe to repeat."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import docker
import requests
from docker.errors import APIError, NotFound
from docker.utils import kwargs_from_env

from cd.promote.targets.base import Place
from cd.promote.targets.options import ENVIRONMENT_ID, INSTANCE, labels, network_name
from cd.sandbox.docker_engine import translated

VERSION = "1.41"


@dataclass(frozen=True)
class Look:
    """A container as it is now."""

    id: str
    image: str
    #: created, running, restarting, exited, ...
    status: str
    exit_code: int
    oom: bool
    restarts: int
    ip: str
    labels: Mapping[str, str]


class Engine:
    """One engine; `host` as in DOCKER_HOST, empty for the environment's own. Errors are the SDK's: see `translated`."""

    def __init__(self, host: str) -> None:
        self._host = host
        self._client: docker.APIClient | None = None
        self._pid = 0

    @property
    def api(self) -> Any:
        """The connection; a forked child opens one of its own."""
        if self._client is None or self._pid != os.getpid():
            with translated():
                kwargs = kwargs_from_env()
                if self._host:
                    kwargs["base_url"] = self._host
                self._client = docker.APIClient(version=VERSION, timeout=60, **kwargs)
            self._pid = os.getpid()
        return self._client

    def look(self, name: str) -> Look | None:
        """The container, None when there is none."""
        try:
            data = self.api.inspect_container(name)
        except NotFound:
            return None
        state, networks = data["State"], data["NetworkSettings"]["Networks"]
        return Look(
            id=data["Id"],
            image=data["Image"],
            status=state["Status"],
            exit_code=state["ExitCode"],
            oom=bool(state["OOMKilled"]),
            restarts=data["RestartCount"],
            ip=next((one["IPAddress"] for one in networks.values()), ""),
            labels=data["Config"]["Labels"] or {},
        )

    def create(self, name: str, body: Mapping[str, Any]) -> bool:
        """Create a container; False when one of that name exists."""
        try:
            self.api.create_container_from_config(body, name)
        except APIError as error:
            if error.status_code != requests.codes.conflict:
                raise
            return False
        return True

    def ensure_network(self, place: Place) -> None:
        """The place's own bridge network."""
        name = network_name(place)
        try:
            self.api.inspect_network(name)
        except NotFound:
            try:
                self.api.create_network(name, driver="bridge", labels=labels(place), check_duplicate=True)
            except APIError as error:
                if error.status_code != requests.codes.conflict:
                    raise

    def remove(self, name: str) -> None:
        """Kill and remove the container, if it exists."""
        try:
            self.api.remove_container(name, v=True, force=True)
        except APIError as error:
            # Gone, or another worker removes it at this moment.
            if error.status_code not in (requests.codes.not_found, requests.codes.conflict):
                raise

    def stop(self, name: str, seconds: int) -> None:
        """SIGTERM, and SIGKILL `seconds` later; content when it is not there."""
        try:
            self.api.stop(name, timeout=seconds)
        except NotFound:
            return

    def containers(self, instance: str, environment_id: int | None = None) -> Sequence[Mapping[str, Any]]:
        """What that installation has deployed (of that environment), in any state, as the engine lists it."""
        return list(self.api.containers(all=True, filters={"label": _filter(instance, environment_id)}))

    def networks(self, instance: str, environment_id: int | None = None) -> Sequence[Mapping[str, Any]]:
        """Networks of that installation's environments."""
        return list(self.api.networks(filters={"label": _filter(instance, environment_id)}))

    def remove_network(self, name: str) -> None:
        """Remove the network, if it exists."""
        try:
            self.api.remove_network(name)
        except NotFound:
            return

    def log_tail(self, name: str, lines: int = 50) -> tuple[str, ...]:
        """The last lines that a container wrote."""
        try:
            data: bytes = self.api.logs(name, stdout=True, stderr=True, tail=lines)
        except NotFound:
            return ()
        return tuple(data.decode(errors="replace").splitlines()[-lines:])


def _filter(instance: str, environment_id: int | None) -> list[str]:
    place = ENVIRONMENT_ID if environment_id is None else f"{ENVIRONMENT_ID}={environment_id}"
    return [f"{INSTANCE}={instance}", place]
