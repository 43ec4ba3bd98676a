"""What a target is: a place where the releases of an environment run and take traffic."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from cd.errors import UserError
from cd.pipeline.definition import DeploySpec
from cd.promote.policy import TargetSpec

#: Puts a line into the deployment's timeline: what happened, and whether it was good.
Note = Callable[[str, bool], None]


@dataclass(frozen=True)
class Place:
    """An environment, as a target knows it. `instance` tells this installation of Towpath from others."""

    instance: str
    environment_id: int
    project: str
    environment: str


@dataclass(frozen=True)
class App:
    """One version to run in a place. `deployment` is its id there: larger ones are newer."""

    place: Place
    deployment: int
    #: Image id or digest, never a tag.
    image: str
    deploy: DeploySpec
    target: TargetSpec
    env: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Found:
    """Something of ours that exists on a target. `deployment` is None for what serves all deployments of a place."""

    environment_id: int
    deployment: int | None


@dataclass(frozen=True)
class Evidence:
    """What was seen of a version that failed."""

    #: The engine's word for the container's state.
    state: str = ""
    exit_code: int | None = None
    oom: bool = False
    #: Its last log lines.
    log: tuple[str, ...] = ()
    #: What the last probe got.
    probe: str = ""

    def as_json(self) -> dict[str, Any]:
        """Plain values, to be stored."""
        return asdict(self) | {"log": list(self.log)}


class DeployFailed(UserError):
    """The version can't be run there, or does not become healthy. Trying again by itself would not help."""

    status = 409

    def __init__(self, message: str, *, remedy: str = "", evidence: Evidence | None = None) -> None:
        self.evidence = evidence or Evidence()
        super().__init__(message, remedy=remedy)


class Target(Protocol):
    """Runs versions in places.

    Order of calls: `prepare`, `switch`, then `retire`; after a DeployFailed of `prepare` or `switch`: `switch_back`
    if `switch` was called, then `discard`. Each may be called again, by the same worker or by another one after a
    crash, with the same outcome: what exists of the same deployment is adopted, never made a second time. Whoever
    fails in between leaves things as they are; `discard` and `retire` clean up, `found` finds what both missed.

    All raise ServiceError when the engine can't be reached.
    """

    def prepare(self, app: App, note: Note) -> None:
        """Run the version beside the one that has the traffic until it is healthy, or raise DeployFailed.

        Healthy: the running image is the wanted one, and as many probes in a row as `app.deploy.health` says passed
        before its deadline.
        """

    def switch(self, app: App, note: Note) -> None:
        """Give a prepared version the traffic, without failing a request, and see that it answers.

        Raises DeployFailed when it does not.
        """

    def switch_back(self, place: Place, target: TargetSpec, previous: App | None, note: Note) -> None:
        """Give the traffic back to the version that had it; None: to none."""

    def serves(self, app: App) -> bool:
        """Whether that version runs and has the traffic at this moment."""

    def retire(self, app: App) -> None:
        """`app` is live: keep it running from now on; let older versions of its place end what they do, remove them."""

    def discard(self, app: App) -> None:
        """Remove the version, and what nothing in its place needs without it."""

    def clear(self, place: Place, deployment: int | None = None) -> None:
        """Remove all that exists of the place, or of that one deployment in it."""

    def found(self, instance: str) -> Sequence[Found]:
        """All that exists of that installation."""
