"""From a pipeline file and what a run is about to the steps of that run: cells of matrices, conditions, needs."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from cd.pipeline.decide import BUILD
from cd.pipeline.definition import Pipeline, StageSpec, When, cell_text
from cd.pipeline.globs import relative

#: Longest name of a step, in characters; the same as in the table.
MAX_NAME = 191
_UNNAMEABLE = re.compile(r"[^A-Za-z0-9._+-]+")


@dataclass(frozen=True)
class Occasion:
    """What a run is about. `changed`: paths in the repository that differ from before; None when that is not known."""

    event: str
    #: Full ref, such as refs/heads/main.
    ref: str
    changed: tuple[str, ...] | None = None
    #: False for code from outside.
    trusted: bool = True

    @property
    def branch(self) -> str | None:
        """The branch's name, None for tags and pull requests."""
        return self.ref.removeprefix("refs/heads/") if self.ref.startswith("refs/heads/") else None


@dataclass(frozen=True)
class Planned:
    """A step to be: one stage, or one cell of its matrix."""

    #: `stage`, or `stage:cell`; the latter has what no stage's name has in it.
    name: str
    stage: str
    #: Name and value of each axis.
    cell: Mapping[str, str]
    #: Without matrix: the cell's values are variables of its environment.
    spec: StageSpec
    #: Names of steps, the build among them.
    needs: tuple[str, ...]
    #: Why its own conditions leave it out; empty when they hold.
    skip: str


def plan(pipeline: Pipeline, occasion: Occasion) -> list[Planned]:
    """All steps besides the build, in the order of the file."""
    cells = {name: _cells(name, spec) for name, spec in pipeline.stages.items()}
    ordinary = [name for name, spec in pipeline.stages.items() if "failed" not in spec.when.status]
    planned = []
    for name, spec in pipeline.stages.items():
        wanted = spec.needs
        if not wanted and "failed" in spec.when.status:
            wanted = tuple(ordinary)
        needs = (BUILD, *(step for need in wanted for step in cells[need]))
        skip = left_out(spec.when, occasion) or _kept_from(spec, occasion)
        for step, cell in cells[name].items():
            planned.append(Planned(step, name, cell, _in_cell(spec, cell), needs, skip))
    return planned


def left_out(when: When, occasion: Occasion) -> str:
    """Why a stage with these conditions is not part of the run; empty when it is."""
    if when.events and occasion.event not in when.events:
        return f"only for {_listed(when.events)}, and this is {occasion.event}"
    if when.branches and not _fits(when.branches, [occasion.branch] if occasion.branch else []):
        return f"only on {_listed(when.branches)}, and this is {occasion.branch or occasion.ref.removeprefix('refs/')}"
    if when.paths and occasion.changed is not None and not _fits(when.paths, occasion.changed):
        return f"nothing changed in {_listed(when.paths)}"
    return ""


def _kept_from(spec: StageSpec, occasion: Occasion) -> str:
    """Why code from outside does not get what this stage asks for; empty when it does, or asks for nothing."""
    if occasion.trusted:
        return ""
    if spec.secrets:
        return "it uses secrets, which code from outside does not get"
    return "it uses the internet, which code from outside does not get" if spec.network == "internet" else ""


def _fits(patterns: Sequence[str], names: Sequence[str]) -> bool:
    globs = [relative(pattern) for pattern in patterns]
    return any(glob.matches(f"/{name}") for name in names for glob in globs)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) < 4 else f"{', '.join(names[:3])} …"


def _cells(name: str, spec: StageSpec) -> dict[str, Mapping[str, str]]:
    """Each cell by the name of its step; the stage itself where there is no matrix."""
    if not spec.matrix:
        return {name: {}}
    found: dict[str, Mapping[str, str]] = {}
    for cell in _combinations(spec):
        values = ",".join(_UNNAMEABLE.sub("-", value).strip("-") for value in cell.values())
        step = first = f"{name}:{values}"[:MAX_NAME]
        number = itertools.count(2)
        while step in found:
            suffix = f"~{next(number)}"
            step = first[: MAX_NAME - len(suffix)] + suffix
        found[step] = cell
    return found


def _combinations(spec: StageSpec) -> Iterator[dict[str, str]]:
    for values in itertools.product(*spec.matrix.values()):
        yield dict(zip(spec.matrix, map(cell_text, values), strict=True))


def _in_cell(spec: StageSpec, cell: Mapping[str, str]) -> StageSpec:
    return spec.model_copy(update={"matrix": {}, "env": {**spec.env, **cell}}) if cell else spec
