"""What a repository says about its pipeline: the models of `.towpath.yml`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from cd.documents import Misplaced
from cd.pipeline.graph import check_needs
from cd.units import Bytes, Seconds

NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
MAX_STAGES = 2000
MAX_CELLS = 256
MIB, TIB = 1 << 20, 1 << 40


class Model(BaseModel):
    """Frozen, and strict about keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, allow_inf_nan=False)


def _relative(path: str) -> str:
    if not path or path.startswith("/") or ".." in path.split("/") or "\\" in path or "\0" in path:
        raise ValueError(f"{path!r} must be a path inside the repository; write it without a leading / and without ..")
    return path


def _env(env: Mapping[str, str]) -> Mapping[str, str]:
    for name, value in env.items():
        if not ENV_NAME.fullmatch(name):
            raise Misplaced(f"{name!r} is not a name of a variable; use letters, digits and _", name)
        if name.startswith("TOWPATH_"):
            raise Misplaced(f"{name!r} is set by Towpath; choose a name without TOWPATH_", name)
        if "\0" in value:
            raise Misplaced(f"the value of {name!r} has a NUL in it; remove it", name)
    return env


def _one_or_many(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _command(value: Any) -> Any:
    if isinstance(value, str):
        if not value.strip():
            raise ValueError("the command is empty; write what to run")
        return ("sh", "-e", "-c", value)
    if isinstance(value, Sequence) and not value:
        raise ValueError("the command is empty; write what to run")
    return value


Path = Annotated[str, AfterValidator(_relative)]
Env = Annotated[dict[str, str], AfterValidator(_env)]
Texts = Annotated[tuple[str, ...], BeforeValidator(_one_or_many)]
#: An argv; text runs under `sh -e -c`.
Command = Annotated[tuple[str, ...], BeforeValidator(_command, json_schema_input_type=str | list[str])]


class Limits(Model):
    """What a stage may use."""

    memory: Bytes = Field(512 * MIB, ge=6 * MIB, le=TIB)
    cpus: float = Field(1.0, ge=0.01, le=256)
    pids: int = Field(256, ge=2, le=32768)
    timeout: Seconds = Field(600.0, ge=1, le=86400)
    disk: Bytes = Field(1024 * MIB, ge=MIB, le=TIB)


class Service(Model):
    """A container beside the stage."""

    image: str = Field(min_length=1)
    env: Env = Field(default_factory=dict)
    ready: Command | None = None


class When(Model):
    """When a stage is part of a run."""

    branches: Texts = ()
    paths: Texts = ()
    events: Annotated[tuple[Literal["push", "pull_request", "tag", "manual"], ...], BeforeValidator(_one_or_many)] = ()
    status: Annotated[tuple[Literal["passed", "failed"], ...], BeforeValidator(_one_or_many)] = ()


class Reports(Model):
    """Files that a stage leaves for Towpath to read."""

    junit: Texts = ()


class StageSpec(Model):
    """One stage: a command in a fresh container."""

    run: Command
    target: str | None = None
    needs: Texts = ()
    env: Env = Field(default_factory=dict)
    secrets: Texts = ()
    network: Literal["none", "services", "internet"] | None = None
    services: dict[str, Service] = Field(default_factory=dict)
    limits: Limits = Limits()
    matrix: dict[str, Annotated[tuple[str | int | float | bool, ...], Field(min_length=1)]] = Field(
        default_factory=dict
    )
    retries: int = Field(0, ge=0, le=5)
    allow_failure: bool = False
    when: When = When()
    reports: Reports = Reports()
    artifacts: Texts = ()
    reuse: Literal["auto", "never"] = "auto"

    @property
    def argv(self) -> tuple[str, ...]:
        """What the container executes."""
        return self.run

    @model_validator(mode="after")
    def _fits(self) -> StageSpec:
        if self.services and self.network == "none":
            raise Misplaced("`none` reaches no services; leave network out, or write `services`", "network")
        cells = 1
        for values in self.matrix.values():
            cells *= len(values)
        if cells > MAX_CELLS:
            raise Misplaced(f"{cells} cells are more than {MAX_CELLS}; drop some values", "matrix")
        return self


class ImageSpec(Model):
    """How the one image is built."""

    context: Path = "."
    dockerfile: Path = "Dockerfile"
    target: str | None = None
    args: Env = Field(default_factory=dict)
    secrets: Texts = ()

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

    memory: Bytes = Field(256 * MIB, ge=6 * MIB, le=TIB)
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
    stages: dict[str, StageSpec] = Field(default_factory=dict)
    deploy: DeploySpec | None = None

    @field_validator("stages")
    @classmethod
    def _stages(cls, stages: dict[str, StageSpec]) -> dict[str, StageSpec]:
        if len(stages) > MAX_STAGES:
            raise ValueError(f"{len(stages)} stages are more than {MAX_STAGES}; split the pipeline")
        for name in stages:
            if not NAME.fullmatch(name) or name == "build":
                raise Misplaced(
                    f"{name!r} can't be a stage's name; use a-z, 0-9, - and _, at most 63, and not `build`", name
                )
        check_needs({name: stage.needs for name, stage in stages.items()})
        return stages


def unsupported(pipeline: Pipeline) -> list[str]:
    """What the file asks for that this version does not do and that would change the outcome; one line each."""
    lines = [f"image.{key}" for key in ("secrets",) if getattr(pipeline.image, key)]
    for name, stage in pipeline.stages.items():
        lines += [f"stages.{name}.{key}" for key in ("secrets", "services", "matrix") if getattr(stage, key)]
        if stage.when != When():
            lines.append(f"stages.{name}.when")
        if stage.network in ("services", "internet"):
            lines.append(f"stages.{name}.network: {stage.network}")
    if pipeline.deploy is not None:
        lines += [f"deploy.{key}" for key in ("before", "verify") if getattr(pipeline.deploy, key)]
        if pipeline.deploy.replicas != 1:
            lines.append("deploy.replicas")
    return lines


def ignored(pipeline: Pipeline) -> list[str]:
    """What the file asks for that this version leaves out without harm; one line each."""
    return [
        f"stages.{name}.{key}"
        for name, stage in pipeline.stages.items()
        for key, unset in (("reports", Reports()), ("artifacts", ()))
        if getattr(stage, key) != unset
    ]
