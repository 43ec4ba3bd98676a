"""What is made beside a command: services on a network of their own, and files that outlive the command.

A holder, which only waits, owns the network and keeps the volumes mounted. The network is a loopback and nothing else:
no bridge, no gateway, no route, and no address taken from the engine's pools.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from time import monotonic, sleep
from typing import Any

import requests
from docker.errors import APIError, ImageNotFound, NotFound

from cd.sandbox import images, options, pause
from cd.sandbox.base import ContainerSpec, NotReady, Service, is_canceled
from cd.sandbox.options import DISK_LABEL, HOLDER, OF_LABEL, PART_LABEL
from cd.units import format_seconds

#: Seconds that services may take to become ready, and between two looks: soon at first.
READY_SECONDS = 120.0
FIRST_LOOK, LAST_LOOK = 0.05, 0.5
#: Seconds between two looks at what services wrote: the engine has to add it up.
WEIGH = 3.0
#: Of what a service wrote the last so many lines are told when it fails.
TOLD_LINES = 50
#: The network of stages that may reach the internet; by the bridge's name firewall rules find it.
INTERNET, INTERNET_BRIDGE = "towpath-internet", "towpath0"


@dataclass(frozen=True)
class Pods:
    """Makes, watches and removes pods through an engine's API."""

    api: Any
    runtime: str = ""

    def network(self, spec: ContainerSpec) -> str:
        """What the command's container is connected to."""
        if spec.services:
            return f"container:{options.holder_name(spec.name)}"
        return self._outside(spec)

    def _outside(self, spec: ContainerSpec) -> str:
        if spec.network != "internet":
            return "none"
        try:
            self.api.inspect_network(INTERNET)
        except NotFound:
            self._make_internet()
        return INTERNET

    def _make_internet(self) -> None:
        """A bridge on which containers do not see each other."""
        settings = {
            "com.docker.network.bridge.enable_icc": "false",
            "com.docker.network.bridge.name": INTERNET_BRIDGE,
        }
        try:
            self.api.create_network(INTERNET, driver="bridge", options=settings, check_duplicate=True)
        except APIError as error:
            # Made by another worker at this moment.
            if error.status_code != requests.codes.conflict and "already exists" not in str(error.explanation):
                raise

    def start(self, spec: ContainerSpec, canceled: Callable[[], bool]) -> bool:
        """Make the holder and start the services; True when they are ready, False when `canceled()` came first.

        What exists already is left as it is. Raises NotReady.
        """
        self._holder(spec)
        for service in spec.services:
            if not images.exists(self.api, service.image):
                images.pull(self.api, service.image)
            self._create(
                options.service_name(spec.name, service.name), options.service_request(spec, service, self.runtime)
            )
        deadline = monotonic() + READY_SECONDS
        return all(self._await(spec, service, deadline, canceled) for service in spec.services)

    def _holder(self, spec: ContainerSpec) -> None:
        if spec.keep_files:
            for name in options.volumes(spec.name).values():
                self.api._raise_for_status(
                    self.api._post_json(self.api._url("/volumes/create"), data=options.volume_request(spec, name))
                )
        body = options.holder_request(spec, pause.IMAGE, self._outside(spec))
        name = options.holder_name(spec.name)
        try:
            self._create(name, body)
        except ImageNotFound:
            pause.make(self.api)
            self._create(name, body)

    def _create(self, name: str, body: dict[str, Any]) -> None:
        try:
            self.api.create_container_from_config(body, name)
        except APIError as error:
            if error.status_code != requests.codes.conflict:
                raise
            if self.api.inspect_container(name)["State"]["Status"] != "created":
                return
        self.api.start(name)

    def _await(self, spec: ContainerSpec, service: Service, deadline: float, canceled: Callable[[], bool]) -> bool:
        name, pause_ = options.service_name(spec.name, service.name), FIRST_LOOK
        weighed = monotonic()
        while True:
            if monotonic() > weighed + WEIGH:
                for large, how in self.bound(spec.name).items():
                    raise NotReady(large, how, self.told(options.service_name(spec.name, large)))
                weighed = monotonic()
            state = self.api.inspect_container(name)["State"]
            if state["Status"] in ("exited", "dead"):
                raise NotReady(service.name, f"ended before it was ready: {ended(state)}", self.told(name))
            if is_canceled(canceled):
                return False
            if self._is_ready(name, service, state, lambda: monotonic() > deadline or is_canceled(canceled)):
                return True
            if monotonic() > deadline:
                raise NotReady(service.name, f"was not ready after {format_seconds(READY_SECONDS)}", self.told(name))
            sleep(pause_)  # between two looks; the engine tells nobody when a program listens
            pause_ = min(LAST_LOOK, pause_ * 1.5)

    def _is_ready(self, name: str, service: Service, state: Mapping[str, Any], over: Callable[[], bool]) -> bool:
        if service.ready is None:
            # The image's own check, if it has one.
            health = state.get("Health")
            return bool(state["Running"]) and (health is None or health["Status"] == "healthy")
        try:
            execution = self.api.exec_create(name, list(service.ready), stdout=False, stderr=False)["Id"]
            self.api.exec_start(execution, detach=True)
        except APIError as error:
            if not self.api.inspect_container(name)["State"]["Running"]:
                return False  # it ended just now
            if "exec failed" in str(error.explanation):
                raise NotReady(service.name, f"has no such check: {error.explanation}", self.told(name)) from error
            raise
        pause_ = FIRST_LOOK / 5
        while (told := self.api.exec_inspect(execution))["Running"]:
            if over():
                return False
            sleep(pause_)
            pause_ = min(LAST_LOOK, pause_ * 1.5)
        return bool(told["ExitCode"] == 0)

    def told(self, name: str) -> bytes:
        """The end of what a service wrote."""
        try:
            text: bytes = self.api.logs(name, tail=TOLD_LINES)
        except NotFound:
            return b""
        return text

    def ended_services(self, name: str) -> dict[str, str]:
        """Services of a command's container that run no more, and how they ended."""
        found = {}
        for one in self.parts(name):
            part = one["Labels"].get(PART_LABEL, HOLDER)
            if part != HOLDER and one["State"] != "running":
                found[part] = ended(self.api.inspect_container(one["Id"])["State"])
        return found

    def bound(self, name: str) -> dict[str, str]:
        """End the services of `name` that wrote more into their root than they may; how that is told, by service."""
        found = {}
        for one in self.parts(name, size=True):
            limit = int(one["Labels"].get(DISK_LABEL, "0"))
            if limit and one.get("SizeRw", 0) > limit and one["State"] == "running":
                found[one["Labels"][PART_LABEL]] = f"wrote more than {limit >> 20:,} MiB"
                with contextlib.suppress(APIError):  # it ended just now
                    self.api.kill(one["Id"])
        return found

    def parts(self, name: str, *, size: bool = False) -> list[dict[str, Any]]:
        """All containers made beside that of `name`, as the engine lists them; with `size`, what each wrote."""
        wanted = {"label": [f"{OF_LABEL}={name}"]}
        listed: list[dict[str, Any]] = self.api.containers(all=True, filters=wanted, size=size)
        return listed

    def remove(self, name: str) -> None:
        """All that was made beside the container of `name`, which is gone already. Content when nothing is there."""
        # The holder goes last: it is what the others stand on.
        found = sorted(self.parts(name), key=lambda one: one["Labels"].get(PART_LABEL) == HOLDER)
        for one in found:
            remove(self.api, one["Id"])
        for volume in options.volumes(name).values():
            with contextlib.suppress(NotFound):
                self.api.remove_volume(volume, force=True)


def remove(api: Any, name: str) -> None:
    """Kill and remove a container, if it exists."""
    try:
        api.remove_container(name, v=True, force=True)
    except NotFound:
        return
    except APIError as error:
        # Another worker is removing it at this moment.
        if error.status_code != requests.codes.conflict:
            raise


def ended(state: Mapping[str, Any]) -> str:
    """How a container ended, in words."""
    if state["OOMKilled"]:
        return "out of memory"
    return f"exit code {state['ExitCode']}"
