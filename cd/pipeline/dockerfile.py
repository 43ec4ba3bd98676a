"""What Towpath needs to know of a Dockerfile: its stages, the images it starts from, which line is which step."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from cd.errors import UserError


class BuildFailed(UserError):
    """The image can't be built as the repository asks; `where` is the line of the Dockerfile where it can be told."""


@dataclass(frozen=True)
class Instruction:
    """One instruction, its continued lines joined; `line` counts from 1 and is its first."""

    line: int
    keyword: str
    rest: str


@dataclass(frozen=True)
class BuildStage:
    """From one FROM to the next. `base` as written; `name` is empty without AS."""

    index: int
    name: str
    base: str
    line: int
    instructions: tuple[Instruction, ...]


@dataclass(frozen=True)
class Dockerfile:
    """A parsed Dockerfile; `args` are the defaults of the ARGs before the first FROM."""

    name: str
    args: Mapping[str, str | None]
    stages: tuple[BuildStage, ...]

    def stage(self, target: str | None) -> BuildStage:
        """The stage of that name or number, the last one for None. Raises BuildFailed."""
        if not self.stages:
            raise BuildFailed("there is no FROM in it", where=self.name, remedy="begin with the image to start from")
        found = self._find(target, len(self.stages)) if target is not None else self.stages[-1]
        if found is None:
            known = ", ".join(stage.name for stage in self.stages if stage.name) or "none with a name"
            raise BuildFailed(
                f"there is no stage {target!r} in it", where=self.name, remedy=f"correct the target; stages: {known}"
            )
        return found

    def _find(self, name: str, before: int) -> BuildStage | None:
        """A stage before the given index, by name or number."""
        if name.isdigit():
            return self.stages[int(name)] if int(name) < before else None
        return next((stage for stage in reversed(self.stages[:before]) if stage.name == name.lower()), None)

    def bases(self, targets: Sequence[str | None], args: Mapping[str, str]) -> dict[str, int] | None:
        """Images from elsewhere that these targets are made from, each with its line.

        None when that can't be told without building, such as for a variable that the builder itself sets.
        """
        values = {**self.args, **{name: value for name, value in args.items() if name in self.args}}
        found: dict[str, int] = {}
        todo, seen = [self.stage(target) for target in targets], set[int]()
        while todo:
            stage = todo.pop()
            if stage.index in seen:
                continue
            seen.add(stage.index)
            for reference, line in _references(stage):
                name = expand(reference, values)
                if name is None:
                    return None
                inner = self._find(name, stage.index)
                if inner is not None:
                    todo.append(inner)
                elif name.lower() != "scratch":
                    found.setdefault(name, line)
        return found


#: Instructions that BuildKit numbers as steps of a stage.
STEPS = frozenset({"RUN", "COPY", "ADD", "WORKDIR"})

_FROM = re.compile(r"(?:--\S+\s+)*(?P<base>\S+)(?:\s+AS\s+(?P<name>\S+))?\s*$", re.IGNORECASE)
_COPY_FROM = re.compile(r"--from=(\S+)", re.IGNORECASE)
_MOUNT_FROM = re.compile(r"--mount=\S*?\bfrom=([^,\s]+)", re.IGNORECASE)
_HEREDOC = re.compile(r"<<-?\s*([\"']?)([A-Za-z_][A-Za-z0-9_]*)\1")
_DIRECTIVE = re.compile(r"\s*(?:#|//)\s*([A-Za-z][A-Za-z0-9]*)\s*=\s*(.*?)\s*$")
_VARIABLE = re.compile(r"\$(?:(\w+)|\{(\w+)(?::([-+])([^}]*))?\})")


def parse(text: bytes, name: str) -> Dockerfile:
    """Read a Dockerfile. Raises BuildFailed for what would run another builder; all else is left to the builder."""
    lines = text.decode("utf-8-sig", errors="replace").splitlines()
    escape = _directives(lines, name)
    args: dict[str, str | None] = {}
    stages: list[BuildStage] = []
    for instruction in _instructions(lines, escape):
        if instruction.keyword == "ARG" and "BUILDKIT_SYNTAX" in instruction.rest:
            raise _other_builder("BUILDKIT_SYNTAX", f"{name}:{instruction.line}")
        if instruction.keyword == "FROM":
            stages.append(_stage(len(stages), instruction))
        elif stages:
            last = stages[-1]
            told = (*last.instructions, instruction)
            stages[-1] = BuildStage(last.index, last.name, last.base, last.line, told)
        elif instruction.keyword == "ARG":
            args.update(_args(instruction.rest))
    return Dockerfile(name, args, tuple(stages))


def _directives(lines: Sequence[str], name: str) -> str:
    """Look at the comments at the top; returns the escape character."""
    escape = "\\"
    for number, line in enumerate(lines, start=1):
        if line.strip() and not line.lstrip().startswith(("#", "//")):
            if line.lstrip().startswith("{") and "syntax" in line:
                raise _other_builder("syntax", f"{name}:{number}")
            break
        found = _DIRECTIVE.match(line)
        if found and found[1].lower() == "syntax":
            raise _other_builder("# syntax=", f"{name}:{number}")
        if found and found[1].lower() == "escape" and found[2] == "`":
            escape = "`"
    return escape


def _other_builder(what: str, where: str) -> BuildFailed:
    return BuildFailed(f"{what} would run a builder of the repository's choice", where=where, remedy="remove it")


def _instructions(lines: Sequence[str], escape: str) -> Iterator[Instruction]:
    at = 0
    while at < len(lines):
        first, more = at + 1, True
        parts: list[str] = []
        while at < len(lines) and more:
            line = lines[at].strip()
            at += 1
            if line.startswith("#") or (parts and not line):
                continue
            more = line.endswith(escape)
            parts.append(line.removesuffix(escape).strip())
            if len(parts) == 1:
                first = at
        words = " ".join(part for part in parts if part).split(None, 1)
        if words:
            rest = words[1] if len(words) > 1 else ""
            at = _after_heredocs(lines, at, words[0].upper(), rest)
            yield Instruction(first, words[0].upper(), rest)


def _after_heredocs(lines: Sequence[str], at: int, keyword: str, rest: str) -> int:
    if keyword not in ("RUN", "COPY", "ADD"):
        return at
    for found in _HEREDOC.finditer(rest):
        end = next((index for index in range(at, len(lines)) if lines[index].strip() == found[2]), None)
        at = at if end is None else end + 1
    return at


def _stage(index: int, instruction: Instruction) -> BuildStage:
    found = _FROM.match(instruction.rest)
    base, name = (found["base"], found["name"] or "") if found else (instruction.rest, "")
    return BuildStage(index, name.lower(), base, instruction.line, ())


def _args(rest: str) -> Iterator[tuple[str, str | None]]:
    for word in rest.split():
        name, given, value = word.partition("=")
        yield name, value.strip("\"'") if given else None


def _references(stage: BuildStage) -> Iterator[tuple[str, int]]:
    yield stage.base, stage.line
    for instruction in stage.instructions:
        if instruction.keyword == "COPY" and (found := _COPY_FROM.search(instruction.rest)):
            yield found[1].strip("\"'"), instruction.line
        if instruction.keyword == "RUN":
            for mounted in _MOUNT_FROM.findall(instruction.rest):
                yield mounted.strip("\"'"), instruction.line


def expand(text: str, values: Mapping[str, str | None]) -> str | None:
    """`$X`, `${X}`, `${X:-default}` and `${X:+instead}` put in; None when a value is not known."""
    unknown = False

    def put(found: re.Match[str]) -> str:
        nonlocal unknown
        value = values.get(found[1] or found[2])
        if found[3] == "-":
            return value or found[4]
        if found[3] == "+":
            return found[4] if value else ""
        unknown = unknown or value is None
        return value or ""

    expanded = _VARIABLE.sub(put, text)
    return None if unknown or "$" in expanded or not expanded else expanded
