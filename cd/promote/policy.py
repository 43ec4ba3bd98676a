"""The policy of a project's environments: what `towpath environment apply` takes."""

from __future__ import annotations

import ipaddress
from fnmatch import fnmatchcase
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, field_validator, model_validator

from cd.documents import Misplaced, load
from cd.pipeline.definition import Model
from cd.pipeline.graph import find_cycle
from cd.pipeline.texts import Env, Texts
from cd.units import Seconds

FILE = "environments.yml"
MAX_ENVIRONMENTS = 32
#: Kinds of targets that the contract names and that this version can't deploy to.
LATER_TARGETS = ("swarm", "kubernetes", "command")
#: Version of what the keys of the file mean; a part of every approval's fingerprint.
POLICY_VERSION = 1


def _address(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme != "http" or not parts.hostname or parts.path not in ("", "/") or parts.query or parts.username:
        raise ValueError(f"{url!r} is not an address to serve at; write it like http://127.0.0.1:18001")
    try:
        port = parts.port
        ipaddress.IPv4Address("127.0.0.1" if parts.hostname == "localhost" else parts.hostname)
    except ValueError as error:
        raise ValueError(
            f"{url!r} needs an IPv4 address of the engine's machine and a port; write it like http://127.0.0.1:18001"
        ) from error
    if not port:
        raise ValueError(f"{url!r} has no port; write it like http://{parts.hostname}:18001")
    return url.rstrip("/")


class DockerTargetSpec(Model):
    """Containers on one Docker engine, behind a proxy that listens at `url`."""

    kind: Literal["docker"] = "docker"
    #: Address that the engine's machine serves the environment at.
    url: Annotated[str, AfterValidator(_address)]
    #: As in DOCKER_HOST; empty: the engine of the worker.
    engine: str = ""

    @property
    def host(self) -> str:
        """IPv4 address that is listened on."""
        name = urlsplit(self.url).hostname or ""
        return "127.0.0.1" if name == "localhost" else name

    @property
    def port(self) -> int:
        """Port that is listened on."""
        return urlsplit(self.url).port or 80


#: A new kind of target is one more model here (then with a discriminator) and one line in `cd.promote.targets`.
TargetSpec = DockerTargetSpec


class Source(Model):
    """Which releases an environment takes."""

    #: Globs of branch names.
    branches: Annotated[Texts, Field(min_length=1)]

    def takes(self, branch: str | None) -> bool:
        """Whether a release of that branch (None: of a tag) may come here."""
        return branch is not None and any(fnmatchcase(branch, pattern) for pattern in self.branches)


class Approvals(Model):
    """Who has to agree. `required` unset: 1 where promotion is manual, else 0."""

    required: int | None = Field(None, ge=0, le=20)
    #: Names of roles (whoever has at least that one) or of users.
    allowed: Texts = Field(("approver",), alias="from", min_length=1)
    #: Whether who pushed, wrote or asked may approve.
    self_approval: bool = False
    #: Seconds after which a promotion that nobody approved is given up.
    expire: Seconds | None = Field(None, gt=0, le=366 * 86400)


class EnvironmentSpec(Model):
    """One environment."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")
    source: Source | None = Field(None, alias="from")
    after: Texts = ()
    promote: Literal["auto", "manual"] = "auto"
    approvals: Approvals = Approvals()
    #: Seconds that a release has to be live in every `after` environment.
    soak: Seconds = Field(0.0, ge=0, le=366 * 86400)
    env: Env = Field(default_factory=dict)
    target: TargetSpec
    windows: Texts = ()
    bake: Seconds = 0.0
    secrets: Texts = ()

    @property
    def approvals_required(self) -> int:
        """How many people have to agree."""
        if self.approvals.required is not None:
            return self.approvals.required
        return 1 if self.promote == "manual" else 0

    def takes(self, branch: str | None) -> bool:
        """Whether a release of that branch may come here at all."""
        return self.source is None or self.source.takes(branch)

    @field_validator("windows", "bake", "secrets")
    @classmethod
    def _later(cls, value: Any) -> Any:
        if value:
            raise ValueError("this version of Towpath does not act on it yet; remove the key")
        return value

    @field_validator("target", mode="before")
    @classmethod
    def _known_target(cls, value: Any) -> Any:
        kind = value.get("kind") if isinstance(value, dict) else None
        if isinstance(value, dict) and kind is None:
            raise ValueError("the kind is missing; add kind: docker")
        if kind in LATER_TARGETS:
            raise Misplaced(f"{kind!r} is not available in this version; use docker", "kind")
        if kind is not None and kind != "docker":
            raise Misplaced(f"{kind!r} is not a kind of target; use docker", "kind")
        return value

    @model_validator(mode="after")
    def _fits(self) -> EnvironmentSpec:
        if self.promote == "manual" and self.approvals.required == 0:
            raise Misplaced("a manual promotion needs somebody; use at least 1, or promote: auto", "approvals")
        if not self.after and self.source is None:
            raise ValueError("nothing comes here; add from: {branches: [main]}, or after: with another environment")
        if self.soak and not self.after:
            raise Misplaced("there is no environment before this one; remove soak, or add after", "soak")
        return self


class Environments(Model):
    """A whole file of environments."""

    environments: tuple[EnvironmentSpec, ...] = ()

    @field_validator("environments")
    @classmethod
    def _fit(cls, specs: tuple[EnvironmentSpec, ...]) -> tuple[EnvironmentSpec, ...]:
        if len(specs) > MAX_ENVIRONMENTS:
            raise ValueError(f"{len(specs)} environments are more than {MAX_ENVIRONMENTS}; split the project")
        _check_names(specs)
        _check_addresses(specs)
        return specs


def _check_names(specs: tuple[EnvironmentSpec, ...]) -> None:
    known: set[str] = set()
    names = {spec.name for spec in specs}
    for index, spec in enumerate(specs):
        if spec.name in known:
            raise Misplaced(f"{spec.name!r} stands here twice; give it another name", index, "name")
        known.add(spec.name)
        for name in spec.after:
            if name not in names or name == spec.name:
                raise Misplaced(f"{name!r} is not another environment of this file; name one of them", index, "after")
    cycle = find_cycle({spec.name: spec.after for spec in specs})
    if cycle:
        index = [spec.name for spec in specs].index(cycle[0])
        raise Misplaced(f"a circle: {' after '.join([*cycle, cycle[0]])}; remove one of these", index, "after")


def _check_addresses(specs: tuple[EnvironmentSpec, ...]) -> None:
    taken: dict[tuple[str, int], str] = {}
    for index, spec in enumerate(specs):
        other = taken.setdefault((spec.target.engine, spec.target.port), spec.name)
        if other != spec.name:
            raise Misplaced(f"{other} has that port already; choose another one", index, "target", "url")


def parse(text: bytes, name: str = FILE) -> tuple[EnvironmentSpec, ...]:
    """Read a file of environments. Raises cd.documents.DocumentError with every fault's line, column and remedy."""
    return load(text, Environments, name).environments


def dump(spec: EnvironmentSpec) -> dict[str, Any]:
    """The spec as JSON, as it is stored; keys that say nothing are left out."""
    return spec.model_dump(mode="json", by_alias=True, exclude_defaults=True) | {"target": _target(spec)}


def _target(spec: EnvironmentSpec) -> dict[str, Any]:
    return spec.target.model_dump(mode="json", by_alias=True)


def stored(value: dict[str, Any]) -> EnvironmentSpec:
    """The spec from the database, where it was checked before it was stored."""
    return EnvironmentSpec.model_validate(value)
