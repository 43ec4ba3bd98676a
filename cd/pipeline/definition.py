"""What a repository says about its pipeline: the models of `.towpath.yml`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from math import prod
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from cd.documents import Misplaced
from cd.pipeline import graph
from cd.pipeline.graph import check_needs
from cd.pipeline.texts import (
    ENV_NAME,
    Command,
    Disk,
    Env,
    Events,
    Globs,
    Image,
    Left,
    Memory,
    Path,
    Secrets,
    Statuses,
    Texts,
    Timeout,
    variable,
)
from cd.units import Seconds

NAME = re.compile(r"(?!build$)[a-z0-9][a-z0-9_-]{0,62}")
#: The name of a service is a host name.
HOST = re.compile(r"(?!localhost$)[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
#: Steps of a run, a cell of a matrix being one; cells of one stage; needs of all steps, cell by cell.
MAX_STEPS, MAX_CELLS, MAX_NEEDS = 5000, 256, 200_000
MAX_SERVICES = 16

_UNNAMEABLE = "{0!r} can't be a stage's name; use a-z, 0-9, - and _, at most 63, and not `build`"


class Model(BaseModel):
    """Frozen, and strict about keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, allow_inf_nan=False)


class Limits(Model):
    """What a stage may use."""

    memory: Memory = 512 << 20
    cpus: float = Field(1.0, ge=0.01, le=256)
    pids: int = Field(256, ge=2, le=32768)
    timeout: Timeout = 600.0
    disk: Disk = 1 << 30


class Service(Model):
    """A container beside the stage."""

    image: Image
    env: Env = Field(default_factory=dict)
    ready: Command | None = None


class When(Model):
    """When a stage is part of a run."""

    branches: Globs = ()
    paths: Globs = ()
    events: Events = ()
    status: Statuses = ()


class Reports(Model):
    """Files that a stage leaves for Towpath to read."""

    junit: Left = ()


class StageSpec(Model):
    """One stage: a command in a fresh container."""

    run: Command
    target: str | None = None
    needs: Texts = ()
    env: Env = Field(default_factory=dict)
    secrets: Secrets = ()
    network: Literal["none", "services", "internet"] | None = None
    services: dict[str, Service] = Field(
        default_factory=dict,
        max_length=MAX_SERVICES,
        json_schema_extra={"propertyNames": {"pattern": f"^{HOST.pattern}$"}, "maxProperties": MAX_SERVICES},
    )
    limits: Limits = Limits()
    matrix: dict[str, Annotated[tuple[str | int | float | bool, ...], Field(min_length=1)]] = Field(
        default_factory=dict, json_schema_extra={"propertyNames": {"pattern": f"^{ENV_NAME.pattern}$"}}
    )
    retries: int = Field(0, ge=0, le=5)
    allow_failure: bool = False
    when: When = When()
    reports: Reports = Reports()
    artifacts: Left = ()
    reuse: Literal["auto", "never"] = "auto"

    @property
    def argv(self) -> tuple[str, ...]:
        """What the container executes."""
        return self.run

    @property
    def cells(self) -> int:
        """How many steps it becomes."""
        return prod(len(values) for values in self.matrix.values())

    @field_validator("services")
    @classmethod
    def _hosts(cls, services: dict[str, Service]) -> dict[str, Service]:
        for name in services:
            if not HOST.fullmatch(name):
                raise Misplaced(f"{name!r} can't be a host's name; use a-z, 0-9 and -, and not `localhost`", name)
        return services

    @model_validator(mode="after")
    def _fits(self) -> StageSpec:
        if self.services and self.network == "none":
            raise Misplaced("`none` reaches no services; leave network out, or write `services`", "network")
        if self.cells > MAX_CELLS:
            raise Misplaced(f"{self.cells} cells are more than {MAX_CELLS}; drop some values", "matrix")
        for axis, values in self.matrix.items():
            try:
                variable(axis)
            except Misplaced as error:
                raise Misplaced(str(error), "matrix", axis) from error
            if axis in self.env:
                raise Misplaced(f"{axis!r} is set by the matrix already; remove it here", "env", axis)
            texts = [cell_text(value) for value in values]
            for position, text in enumerate(texts):
                if text in texts[:position]:
                    raise Misplaced(f"{text!r} stands here twice; remove one of the two", "matrix", axis, position)
        for position, name in enumerate(self.secrets):
            if name in self.env or name in self.matrix:
                other = "env" if name in self.env else "matrix"
                raise Misplaced(f"{name!r} stands in {other}, too; choose another name", "secrets", position)
        return self


def cell_text(value: str | int | float | bool) -> str:
    """A value of a matrix as its variable holds it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


class ImageSpec(Model):
    """How the one image is built."""

    context: Path = "."
    dockerfile: Path = "Dockerfile"
    target: str | None = None
    args: Env = Field(default_factory=dict)
    secrets: Secrets = ()

    @field_validator("args")
    @classmethod
    def _no_frontend(cls, args: dict[str, str]) -> dict[str, str]:
        if "BUILDKIT_SYNTAX" in args:
            raise Misplaced("BUILDKIT_SYNTAX would run another builder; remove it", "BUILDKIT_SYNTAX")
        return args


class HealthSpec(Model):
    """How a container shows that it can take traffic. Times in seconds."""

    path: Annotated[str, Field(pattern=r"^/[!-~]*$")] = "/"
    interval: Seconds = Field(1.0, ge=0.05, le=60)
    timeout: Seconds = Field(2.0, ge=0.05, le=60)
    passes: int = Field(2, ge=1, le=100)
    deadline: Seconds = Field(60.0, ge=1, le=3600)


class DeployLimits(Model):
    """What a deployed container may use."""

    memory: Memory = 256 << 20
    cpus: float = Field(1.0, ge=0.01, le=256)


class DeploySpec(Model):
    """How the image runs, the same in every environment."""

    command: Command | None = None
    port: int | None = Field(None, ge=1, le=65535)
    health: HealthSpec = HealthSpec()
    before: Command | None = None
    verify: Command | None = None
    replicas: int = Field(1, ge=1, le=100)
    limits: DeployLimits = DeployLimits()


class Pipeline(Model):
    """A whole `.towpath.yml`."""

    image: ImageSpec = ImageSpec()
    stages: dict[str, StageSpec] = Field(
        default_factory=dict, json_schema_extra={"propertyNames": {"pattern": f"^{NAME.pattern}$"}}
    )
    deploy: DeploySpec | None = None

    @field_validator("stages")
    @classmethod
    def _stages(cls, stages: dict[str, StageSpec]) -> dict[str, StageSpec]:
        for name in stages:
            if not NAME.fullmatch(name):
                raise Misplaced(_UNNAMEABLE.format(name), name)
        steps = sum(stage.cells for stage in stages.values())
        if steps > MAX_STEPS:
            raise ValueError(f"{steps} stages, counting each cell, are more than {MAX_STEPS}; split the pipeline")
        check_needs({name: stage.needs for name, stage in stages.items()})
        needs = _count_needs(stages)
        if needs > MAX_NEEDS:
            raise ValueError(
                f"{needs} needs, cell by cell, are more than {MAX_NEEDS}; put a stage between that waits for all"
            )
        return stages


def _count_needs(stages: Mapping[str, StageSpec]) -> int:
    """How many pairs of steps the needs come to."""
    ordinary = sum(stage.cells for stage in stages.values() if "failed" not in stage.when.status)
    count = 0
    for stage in stages.values():
        after_all = not stage.needs and "failed" in stage.when.status
        count += stage.cells * (ordinary if after_all else sum(stages[need].cells for need in stage.needs))
    return count


def across(value: Any) -> Iterator[Misplaced]:
    """Faults of names and needs, told from plain values when anything else is wrong too."""
    stages = value.get("stages")
    if not isinstance(stages, Mapping):
        return
    for name in stages:
        if not NAME.fullmatch(name):
            yield Misplaced(_UNNAMEABLE.format(name), "stages", name)
    needs = {name: _needs(stage) for name, stage in stages.items()}
    for fault in graph.faults(needs):
        yield Misplaced(str(fault), "stages", *fault.path)


def _needs(stage: Any) -> list[str]:
    wanted = stage.get("needs") if isinstance(stage, Mapping) else None
    listed = [wanted] if isinstance(wanted, str) else wanted
    return [need for need in listed if isinstance(need, str)] if isinstance(listed, list) else []


def unsupported(pipeline: Pipeline) -> list[str]:
    """What the file asks for that this version does not do and that would change the outcome; one line each."""
    if pipeline.deploy is None:
        return []
    lines = [f"deploy.{key}" for key in ("before", "verify") if getattr(pipeline.deploy, key)]
    return [*lines, "deploy.replicas"] if pipeline.deploy.replicas != 1 else lines
