"""A target in memory, steerable: for tests of what decides, without an engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from cd.promote.policy import TargetSpec
from cd.promote.targets.base import App, DeployFailed, Evidence, Found, Note, Place


@dataclass
class FakeTarget:
    """See `cd.promote.targets.base.Target`.

    `sick` holds images that never become healthy, `mute` those that are healthy but do not answer behind the proxy.
    `before` is called with the name of each operation before it happens: raise in it to break there.
    """

    sick: set[str] = field(default_factory=set)
    mute: set[str] = field(default_factory=set)
    before: Callable[[str], None] = lambda operation: None
    #: Versions that run, by environment and deployment; how often each was started.
    apps: dict[tuple[int, int], App] = field(default_factory=dict)
    starts: dict[int, int] = field(default_factory=dict)
    #: Deployment that has the traffic, by environment.
    traffic: dict[int, int] = field(default_factory=dict)
    #: Every deployment that ever had traffic, in order.
    served: list[int] = field(default_factory=list)
    _instances: dict[int, str] = field(default_factory=dict)

    def prepare(self, app: App, note: Note) -> None:
        """See Target."""
        self.before("prepare")
        key = app.place.environment_id, app.deployment
        self._instances[app.place.environment_id] = app.place.instance
        if key not in self.apps:
            self.apps[key] = app
            self.starts[app.deployment] = self.starts.get(app.deployment, 0) + 1
        if app.image in self.sick:
            evidence = Evidence("exited", 3, log=("it broke",), probe="connection refused")
            raise DeployFailed("the container ended with exit code 3 before it was healthy", evidence=evidence)
        note("healthy", True)

    def switch(self, app: App, note: Note) -> None:
        """See Target."""
        self.before("switch")
        self._give(app.place, app.deployment)
        note("traffic switched", True)
        if app.image in self.mute:
            raise DeployFailed("it does not answer behind the proxy", evidence=Evidence("running", probe="HTTP 500"))

    def switch_back(self, place: Place, target: TargetSpec, previous: App | None, note: Note) -> None:
        """See Target."""
        self.before("switch_back")
        self._give(place, previous.deployment if previous else 0)
        note("traffic back", True)

    def _give(self, place: Place, deployment: int) -> None:
        if self.traffic.get(place.environment_id, 0) != deployment:
            self.traffic[place.environment_id] = deployment
            self.served.append(deployment)

    def serves(self, app: App) -> bool:
        """See Target."""
        key = app.place.environment_id, app.deployment
        return key in self.apps and self.traffic.get(key[0]) == app.deployment

    def retire(self, app: App) -> None:
        """See Target."""
        self.before("retire")
        for key in [key for key in self.apps if key[0] == app.place.environment_id and key[1] < app.deployment]:
            del self.apps[key]

    def discard(self, app: App) -> None:
        """See Target."""
        self.before("discard")
        self.apps.pop((app.place.environment_id, app.deployment), None)
        if not any(key[0] == app.place.environment_id for key in self.apps):
            self.clear(app.place)

    def clear(self, place: Place, deployment: int | None = None) -> None:
        """See Target."""
        for key in [key for key in self.apps if key[0] == place.environment_id and deployment in (None, key[1])]:
            del self.apps[key]
        if deployment is None:
            self.traffic.pop(place.environment_id, None)

    def found(self, instance: str) -> Sequence[Found]:
        """See Target."""
        apps = [Found(environment, deployment) for environment, deployment in self.apps]
        found = [*apps, *(Found(environment, None) for environment in self.traffic)]
        return [one for one in found if self._instances.get(one.environment_id) == instance]
