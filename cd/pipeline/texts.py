"""What the values of a pipeline file may be: paths, variables, commands, patterns, sizes; for parser and editors."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from cd.documents import Misplaced
from cd.errors import UserError
from cd.pipeline.globs import glob
from cd.units import seconds, size

MIB, TIB = 1 << 20, 1 << 40
ENV_NAME = re.compile(r"(?!TOWPATH_)[A-Za-z_][A-Za-z0-9_]*")
#: A reference to an image, as far as its characters go; the engine judges the rest.
IMAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@-]{0,254}")
_Event = Literal["push", "pull_request", "tag", "manual"]
_Status = Literal["passed", "failed"]
_SIZE = r"^\s*\d+(\.\d+)?\s*([KMGT]i?B|B|)\s*$"
_DURATION = r"^\s*(\d+(\.\d+)?(ms|s|m|h|d))+\s*$"


def variable(name: str) -> str:
    """The name of a variable. Raises Misplaced for one that no shell takes, or that Towpath sets."""
    if name.startswith("TOWPATH_"):
        raise Misplaced(f"{name!r} is set by Towpath; choose a name without TOWPATH_", name)
    if not ENV_NAME.fullmatch(name):
        raise Misplaced(f"{name!r} is not a name of a variable; use letters, digits and _", name)
    return name


def _env(env: Mapping[str, str]) -> Mapping[str, str]:
    for name, value in env.items():
        variable(name)
        if "\0" in value:
            raise Misplaced(f"the value of {name!r} has a NUL in it; remove it", name)
    return env


def _relative(path: str) -> str:
    if not path or path.startswith("/") or ".." in path.split("/") or "\\" in path or "\0" in path:
        raise ValueError(f"{path!r} must be a path inside the repository; write it without a leading / and without ..")
    return path


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


def _secrets(names: Sequence[str]) -> Sequence[str]:
    for position, name in enumerate(names):
        try:
            variable(name)
        except Misplaced as error:
            raise Misplaced(str(error), position) from error
        if name in names[:position]:
            raise Misplaced(f"{name!r} stands here twice; remove one of the two", position)
    return names


def _left(patterns: Sequence[str]) -> Sequence[str]:
    for position, pattern in enumerate(patterns):
        try:
            glob(pattern)
        except UserError as error:
            raise Misplaced(f"{pattern!r}: {error.message}; {error.remedy}", position) from error
    return patterns


def _globs(patterns: Sequence[str]) -> Sequence[str]:
    for position, pattern in enumerate(patterns):
        if not pattern.strip("/ ."):
            raise Misplaced(f"{pattern!r} fits nothing; write a name, or ** for everything", position)
        if pattern.startswith(("!", "/")) or ".." in pattern.split("/"):
            raise Misplaced(f"{pattern!r} is no pattern; write it without a leading ! or / and without ..", position)
    return patterns


def _image(name: str) -> str:
    if not IMAGE.fullmatch(name):
        raise ValueError(f"{name[:80]!r} is not the name of an image; write it like postgres:16")
    return name


Path = Annotated[str, AfterValidator(_relative)]
Env = Annotated[
    dict[str, str],
    AfterValidator(_env),
    Field(json_schema_extra={"propertyNames": {"pattern": f"^{ENV_NAME.pattern}$"}}),
]
_Many = BeforeValidator(_one_or_many, json_schema_input_type=str | list[str])
Events = Annotated[tuple[_Event, ...], BeforeValidator(_one_or_many, json_schema_input_type=_Event | list[_Event])]
Statuses = Annotated[tuple[_Status, ...], BeforeValidator(_one_or_many, json_schema_input_type=_Status | list[_Status])]
Texts = Annotated[tuple[str, ...], _Many]
#: Names of secrets, each of which becomes a variable.
Secrets = Annotated[tuple[str, ...], _Many, AfterValidator(_secrets)]
#: Patterns of what a stage leaves in /work and /tmp.
Left = Annotated[
    tuple[str, ...],
    BeforeValidator(
        _one_or_many,
        json_schema_input_type=Annotated[str, Field(pattern="^/(work|tmp)(/|$)")]
        | list[Annotated[str, Field(pattern="^/(work|tmp)(/|$)")]],
    ),
    AfterValidator(_left),
]
#: Patterns of branches, or of files of the repository.
Globs = Annotated[tuple[str, ...], _Many, AfterValidator(_globs)]
#: An argv; text runs under `sh -e -c`.
Command = Annotated[
    tuple[str, ...],
    BeforeValidator(
        _command,
        json_schema_input_type=Annotated[str, Field(pattern=r"\S")] | Annotated[list[str], Field(min_length=1)],
    ),
]
Image = Annotated[str, AfterValidator(_image), Field(json_schema_extra={"pattern": f"^{IMAGE.pattern}$"})]
Memory = Annotated[
    int,
    BeforeValidator(
        size,
        json_schema_input_type=Annotated[str, Field(pattern=_SIZE)] | Annotated[int, Field(ge=6 * MIB, le=TIB)],
    ),
    Field(ge=6 * MIB, le=TIB),
]
Disk = Annotated[
    int,
    BeforeValidator(
        size, json_schema_input_type=Annotated[str, Field(pattern=_SIZE)] | Annotated[int, Field(ge=MIB, le=TIB)]
    ),
    Field(ge=MIB, le=TIB),
]
Timeout = Annotated[
    float,
    BeforeValidator(
        seconds,
        json_schema_input_type=Annotated[str, Field(pattern=_DURATION)] | Annotated[float, Field(ge=1, le=86400)],
    ),
    Field(ge=1, le=86400),
]
