"""Deploying to one Docker engine: a new container beside the old one, then the proxy's switch."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from docker.errors import APIError, ImageNotFound, NotFound

from cd.promote.policy import TargetSpec
from cd.promote.targets.base import App, DeployFailed, Evidence, Found, Note, Place
from cd.promote.targets.docker_proxy import Proxy
from cd.promote.targets.engine import Engine, Look
from cd.promote.targets.options import (
    ADDRESS,
    DEPLOYMENT,
    ENVIRONMENT_ID,
    KIND,
    STOP_SECONDS,
    TRAFFIC_PORT,
    address,
    app_name,
    app_request,
)
from cd.promote.targets.probe import Probe, get
from cd.sandbox import images
from cd.sandbox.docker_engine import translated

#: Longest pause, in seconds, between two looks at a port that nobody listens on yet, or at a container without one.
STARTING = 0.02
#: Attempts to get a good answer through the proxy after a switch.
CHECKS = 5
#: Exit codes of the container's init for a command that can't be executed or found.
NOT_RUN = (126, 127)


class DockerTarget:
    """See `cd.promote.targets.base.Target`."""

    def __init__(self, host: str, proxy_image: str) -> None:
        self._engine = Engine(host)
        self._proxy = Proxy(self._engine, proxy_image)

    def prepare(self, app: App, note: Note) -> None:
        """See Target."""
        with translated():
            self._engine.ensure_network(app.place)
            look = self._ensure(app, note)
            if app.deploy.port is not None:
                self._proxy.ensure(app.place, app.target)
            if app.deploy.port is None:
                self._stays(app, look)
            else:
                self._becomes_healthy(app, look, app.deploy.port)
            note("healthy", True)

    def _ensure(self, app: App, note: Note) -> Look:
        name = app_name(app)
        look = self._engine.look(name)
        if look is None:
            self._create(app)
            note("container created", True)
        else:
            note(f"container found: {look.status}", True)
        if look is None or look.status == "created":
            self._start(app)
            look = self._engine.look(name)
        self._check_image(app, look)
        if look is None or look.status != "running" or look.restarts:
            raise self._failed(app, look)
        return look

    def _create(self, app: App) -> None:
        try:
            if "@" in app.image and not images.exists(self._engine.api, app.image):
                images.pull(self._engine.api, app.image)
            self._engine.create(app_name(app), app_request(app))
        except ImageNotFound as error:
            raise DeployFailed(
                f"image {app.image} is not on the engine", remedy="run the pipeline again, it will be built"
            ) from error

    def _start(self, app: App) -> None:
        try:
            self._engine.api.start(app_name(app))
        except NotFound:
            raise
        except APIError as error:
            if not error.is_client_error():
                raise
            raise DeployFailed(
                f"the container can't be started: {error.explanation}", remedy="correct deploy.command or the image"
            ) from error

    def _check_image(self, app: App, look: Look | None) -> None:
        """What runs has to be what was tested, byte for byte."""
        wanted = self._engine.api.inspect_image(app.image)["Id"]
        if look is not None and look.image != wanted:
            raise DeployFailed(f"the container runs image {look.image}, not {wanted}")

    def _becomes_healthy(self, app: App, look: Look, port: int) -> None:
        health, passes = app.deploy.health, 0
        until = time.monotonic() + health.deadline
        while passes < health.passes:
            asked = time.monotonic()
            probe = get(look.ip, port, health.path, health.timeout)
            passes = passes + 1 if probe.ok else 0
            if not probe.ok or passes == health.passes:
                self._still_runs(app, probe)
            if passes < health.passes:
                if time.monotonic() >= until:
                    raise self._failed(app, self._engine.look(app_name(app)), probe)
                pause = min(health.interval, STARTING) if probe.refused else health.interval
                time.sleep(max(0.0, min(asked + pause, until) - time.monotonic()))

    def _stays(self, app: App, look: Look) -> None:
        """Without a port to ask, it has to run for as long as the probes would have taken."""
        health = app.deploy.health
        until = time.monotonic() + health.interval * health.passes
        while (left := until - time.monotonic()) > 0:
            time.sleep(min(left, STARTING))
            self._still_runs(app, None)

    def _still_runs(self, app: App, probe: Probe | None) -> None:
        look = self._engine.look(app_name(app))
        if look is None or look.status != "running" or look.restarts:
            raise self._failed(app, look, probe)

    def _failed(self, app: App, look: Look | None, probe: Probe | None = None) -> DeployFailed:
        seen = probe.text if probe else ""
        if look is None:
            return DeployFailed("the container was removed by somebody else", evidence=Evidence("removed", probe=seen))
        evidence = Evidence(look.status, look.exit_code, look.oom, self._engine.log_tail(app_name(app)), seen)
        if look.status == "running" and not look.restarts:
            path, health = app.deploy.health.path, app.deploy.health
            return DeployFailed(
                f"not healthy within {health.deadline:g} s: {path} gave {seen}",
                remedy="look at its log, or set deploy.health",
                evidence=Evidence(look.status, None, look.oom, evidence.log, seen),
            )
        if look.oom:
            what, remedy = "the container ran out of memory", "raise deploy.limits.memory"
        elif look.exit_code in NOT_RUN:
            what, remedy = f"the command can't be executed (exit code {look.exit_code})", "correct deploy.command"
        else:
            what, remedy = f"the container ended with exit code {look.exit_code}", "look at its log"
        return DeployFailed(f"{what} before it was healthy", remedy=remedy, evidence=evidence)

    def switch(self, app: App, note: Note) -> None:
        """See Target."""
        if app.deploy.port is None:
            return
        with translated():
            ip = self._proxy.serve(app.place, app.target, app)
            note("traffic switched", True)
            self._check(app, ip)
            note("answers at its address", True)

    def _check(self, app: App, ip: str) -> None:
        health = app.deploy.health
        for _ in range(CHECKS):
            probe = get(ip, TRAFFIC_PORT, health.path, health.timeout)
            if probe.ok:
                return
            time.sleep(min(health.interval, STARTING))
        failed = self._failed(app, self._engine.look(app_name(app)), probe)
        raise DeployFailed(f"it does not answer behind the proxy: {probe.text}", evidence=failed.evidence)

    def switch_back(self, place: Place, target: TargetSpec, previous: App | None, note: Note) -> None:
        """See Target."""
        with translated():
            with_port = previous if previous and previous.deploy.port else None
            self._proxy.serve(place, target, with_port, back=True)
            note(f"traffic back at deployment {previous.deployment}" if previous else "traffic stopped", True)

    def serves(self, app: App) -> bool:
        """See Target."""
        with translated():
            look = self._engine.look(app_name(app))
            if look is None or look.status != "running":
                return False
            if app.deploy.port is None:
                return True
            ip = self._proxy.find(app.place, app.target)
            return ip is not None and self._proxy.serving(ip) == app.deployment

    def retire(self, app: App) -> None:
        """See Target."""
        with translated():
            # From now on the engine starts it again whenever it ends.
            self._engine.api.update_container(app_name(app), restart_policy={"Name": "unless-stopped"})
            listed = self._engine.containers(app.place.instance, app.place.environment_id)
            older = [one for one in listed if 0 < _deployment(one) < app.deployment]
            behind = app.deploy.port is not None
            if older and behind:
                self._proxy.drained(app.place, app.target)
            for one in older:
                self._engine.stop(one["Id"], STOP_SECONDS)
                self._engine.remove(one["Id"])
            keep = address(app.target) if behind else None
            for one in listed:
                if one["Labels"][KIND] == "proxy" and one["Labels"].get(ADDRESS) != keep:
                    self._engine.remove(one["Id"])

    def discard(self, app: App) -> None:
        """See Target."""
        with translated():
            self._engine.remove(app_name(app))
            listed = self._engine.containers(app.place.instance, app.place.environment_id)
            if not any(_deployment(one) for one in listed):
                self._clear(app.place)

    def clear(self, place: Place, deployment: int | None = None) -> None:
        """See Target."""
        with translated():
            if deployment is None:
                self._clear(place)
                return
            for one in self._engine.containers(place.instance, place.environment_id):
                if _deployment(one) == deployment:
                    self._engine.stop(one["Id"], STOP_SECONDS)
                    self._engine.remove(one["Id"])

    def _clear(self, place: Place) -> None:
        for one in self._engine.containers(place.instance, place.environment_id):
            self._engine.remove(one["Id"])
        for network in self._engine.networks(place.instance, place.environment_id):
            self._engine.remove_network(network["Id"])

    def found(self, instance: str) -> Sequence[Found]:
        """See Target."""
        with translated():
            containers = [
                Found(int(one["Labels"][ENVIRONMENT_ID]), _deployment(one) or None)
                for one in self._engine.containers(instance)
            ]
            networks = [Found(int(one["Labels"][ENVIRONMENT_ID]), None) for one in self._engine.networks(instance)]
        return [*containers, *networks]


def _deployment(listed: Mapping[str, Any]) -> int:
    """Deployment of a container, 0 for a proxy."""
    return int(listed["Labels"].get(DEPLOYMENT, 0))
