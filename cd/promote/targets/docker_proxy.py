"""The proxy in front of an environment on a Docker engine: made once, told by reload whom to serve."""

from __future__ import annotations

import io
import tarfile
import time

from docker.errors import APIError, ImageNotFound

from cd.errors import ServiceError
from cd.promote.policy import DockerTargetSpec
from cd.promote.targets.base import App, DeployFailed, Place
from cd.promote.targets.engine import Engine, Look
from cd.promote.targets.haproxy import DRAIN, config
from cd.promote.targets.options import (
    ADDRESS,
    PROXY_FILE,
    PROXY_FOLDER,
    STATUS_PORT,
    address,
    alias,
    proxy_name,
    proxy_request,
)
from cd.promote.targets.probe import get

#: So many answers in a row, each on a new connection, show that the new configuration is in force.
ANSWERS = 3
#: Seconds for a reload, until it is asked for again, and between two looks at it.
RELOAD, ASK_AGAIN, LOOK = 10.0, 2.0, 0.005
TAKEN = ("port is already allocated", "address already in use")
FOREIGN = ("cannot assign requested address",)
#: A master and one worker; more while connections of before a reload last.
PROCESSES = 2


class Proxy:
    """The proxies of one engine. `image` is made from, or compatible with, the official haproxy image."""

    def __init__(self, engine: Engine, image: str) -> None:
        self._engine, self._image = engine, image

    def ensure(self, place: Place, target: DockerTargetSpec) -> str:
        """The proxy of the place runs; its IP. A new one serves nothing yet. Raises DeployFailed for a taken port."""
        name = proxy_name(place, target)
        look = self._engine.look(name)
        if look is not None and look.labels.get(ADDRESS) != address(target):
            self._engine.remove(name)
            look = None
        if look is None:
            self._create(name, place, target)
            look = self._engine.look(name)
        if look is None or look.status == "created":
            self._write(name, config(0, None))
        if look is None or look.status != "running":
            look = self._start(name, target)
        return look.ip

    def _create(self, name: str, place: Place, target: DockerTargetSpec) -> None:
        body = proxy_request(place, target, self._image)
        try:
            self._engine.create(name, body)
        except ImageNotFound:
            try:
                self._engine.api.pull(self._image)
                self._engine.create(name, body)
            except APIError as error:
                raise ServiceError(
                    f"the proxy's image {self._image} is not on the engine and can't be pulled: {error.explanation}",
                    remedy="load it, or set TOWPATH_PROXY_IMAGE",
                ) from error

    def _start(self, name: str, target: DockerTargetSpec) -> Look:
        try:
            self._engine.api.start(name)
        except APIError as error:
            text = str(error.explanation or error)
            if not any(words in text for words in TAKEN + FOREIGN):
                raise
            self._engine.remove(name)
            problem = "is taken by another program" if any(words in text for words in TAKEN) else "is not its address"
            raise DeployFailed(
                f"{address(target)} on the engine's machine: {problem}",
                remedy="free it, or give the environment another target.url",
            ) from error
        look = self._engine.look(name)
        if look is None:
            raise ServiceError(f"the proxy {name} was removed as it started")
        return look

    def _write(self, name: str, text: str) -> None:
        data, packed = text.encode(), io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as archive:
            entry = tarfile.TarInfo(PROXY_FILE)
            entry.size, entry.mode = len(data), 0o644
            archive.addfile(entry, io.BytesIO(data))
        self._engine.api.put_archive(name, PROXY_FOLDER, packed.getvalue())

    def serve(self, place: Place, target: DockerTargetSpec, app: App | None, *, back: bool = False) -> str:
        """Give the traffic to the app (None: 503), and wait until it is so; the proxy's IP.

        Traffic goes to an older deployment only when it is meant to go `back`, whoever asks late.
        """
        ip = self.ensure(place, target)
        deployment = app.deployment if app else 0
        if not back and (self.serving(ip) or 0) > deployment:
            raise ServiceError(f"a newer deployment than {deployment} has the traffic already")
        if not self._answers(ip, deployment):
            server = f"{alias(app)}:{app.deploy.port}" if app else None
            name = proxy_name(place, target)
            self._write(name, config(deployment, server))
            self._engine.api.kill(name, signal="SIGUSR2")
            self._wait(ip, name, deployment)
        return ip

    def _wait(self, ip: str, name: str, deployment: int) -> None:
        began = asked = time.monotonic()
        while not self._answers(ip, deployment):
            at = time.monotonic()
            if at > began + RELOAD:
                log = " / ".join(self._engine.log_tail(name, 5))
                raise ServiceError(f"the proxy {name} did not take its new configuration: {log}")
            if at > asked + ASK_AGAIN:
                # A signal that comes while the proxy is still starting is lost.
                self._engine.api.kill(name, signal="SIGUSR2")
                asked = at
            time.sleep(LOOK)

    def _answers(self, ip: str, deployment: int) -> bool:
        return all(self.serving(ip) == deployment for _ in range(ANSWERS))

    def serving(self, ip: str) -> int | None:
        """Id of the deployment that gets new connections; 0 for none, None when the proxy does not say."""
        body = get(ip, STATUS_PORT, "/", 1.0, whole=True).body
        return int(body) if body.isdigit() else None

    def find(self, place: Place, target: DockerTargetSpec) -> str | None:
        """IP of the place's proxy, None when none runs."""
        look = self._engine.look(proxy_name(place, target))
        return look.ip if look and look.status == "running" and look.labels.get(ADDRESS) == address(target) else None

    def drained(self, place: Place, target: DockerTargetSpec) -> None:
        """Wait until no connection of before the last switch is open, or their time is over."""
        until, pause = time.monotonic() + DRAIN + 1, 0.01
        name = proxy_name(place, target)
        while time.monotonic() < until and len(self._engine.api.top(name)["Processes"]) > PROCESSES:
            time.sleep(pause)
            pause = min(pause * 2, 0.25)
