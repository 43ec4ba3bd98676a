"""YAML files that people write, read into models; every fault with its line, column and remedy."""

from __future__ import annotations

import difflib
import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    MappingEndEvent,
    MappingStartEvent,
    NodeEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from cd.errors import UserError

MAX_BYTES = 256 << 10
MAX_DEPTH = 32
MAX_ALIASES = 64
MAX_FAULTS = 50

M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True)
class Fault:
    """One thing wrong in a file. Line and column count from 1."""

    line: int
    column: int
    message: str
    remedy: str = ""

    def __str__(self) -> str:
        text = f"{self.line}:{self.column}: {self.message}"
        return f"{text}; {self.remedy}" if self.remedy else text


class DocumentError(UserError):
    """A file can't be taken; `faults` says why, in the order of the file."""

    def __init__(self, name: str, faults: Iterable[Fault]) -> None:
        self.name = name
        self.faults = tuple(sorted(faults, key=lambda fault: (fault.line, fault.column)))[:MAX_FAULTS]
        super().__init__("\n".join(f"{name}:{fault}" for fault in self.faults))


def load(text: bytes, model: type[M], name: str) -> M:
    """Read one YAML document into `model`. Raises DocumentError with all faults that can be told at once."""
    root = _compose(_decode(text, name), name)
    if root is None:
        return model()
    faults: list[Fault] = []
    value = _plain(root, faults)
    if not isinstance(root, MappingNode):
        faults.append(_at(root, "the file must be a mapping", "begin with a key such as `stages:`"))
    if faults:
        raise DocumentError(name, faults)
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise DocumentError(name, [_fault(root, one, model) for one in error.errors()]) from error


def _decode(text: bytes, name: str) -> str:
    if len(text) > MAX_BYTES:
        raise DocumentError(name, [Fault(1, 1, f"the file is over {MAX_BYTES >> 10} KiB", "make it smaller")])
    try:
        decoded = text.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = text.count(b"\n", 0, error.start) + 1
        column = error.start - (text.rfind(b"\n", 0, error.start) + 1) + 1
        raise DocumentError(name, [Fault(line, column, "not UTF-8 text", "save the file as UTF-8")]) from error
    return decoded


def _compose(text: str, name: str) -> Node | None:
    try:
        _check_events(text, name)
        yaml = YAML(typ="rt", pure=True)
        yaml.allow_duplicate_keys = True  # told by us, with every other fault
        node: Node | None = yaml.compose(io.StringIO(text))
    except MarkedYAMLError as error:
        raise DocumentError(name, [_syntax(error)]) from error
    except YAMLError as error:
        raise DocumentError(name, [_unreadable(text, error)]) from error
    except (ValueError, RecursionError) as error:
        raise DocumentError(name, [Fault(1, 1, f"not valid YAML: {error}")]) from error
    return node


def _check_events(text: str, name: str) -> None:
    """Refuse what costs memory or runs code before a tree is made of it."""
    depth = aliases = documents = 0
    for event in YAML(typ="rt", pure=True).parse(io.StringIO(text)):
        mark = event.start_mark
        place = (mark.line + 1, mark.column + 1)
        if isinstance(event, DocumentStartEvent):
            documents += 1
            if documents > 1:
                raise DocumentError(name, [Fault(*place, "a second document begins here", "keep one document")])
        elif isinstance(event, MappingStartEvent | SequenceStartEvent):
            depth += 1
        elif isinstance(event, MappingEndEvent | SequenceEndEvent):
            depth -= 1
        elif isinstance(event, AliasEvent):
            aliases += 1
        if depth > MAX_DEPTH:
            raise DocumentError(name, [Fault(*place, f"nested deeper than {MAX_DEPTH} levels", "flatten it")])
        if aliases > MAX_ALIASES:
            raise DocumentError(name, [Fault(*place, f"more than {MAX_ALIASES} aliases", "write the values out")])
        if isinstance(event, NodeEvent) and getattr(event, "ctag", None):
            raise DocumentError(name, [Fault(*place, f"the tag {event.ctag} is not allowed", "remove the tag")])


def _syntax(error: MarkedYAMLError) -> Fault:
    mark = error.problem_mark or error.context_mark
    problem = (error.problem or error.context or "not valid YAML").strip()
    remedy = "indent with spaces" if "\\t" in problem or "tab" in problem else ""
    return Fault(mark.line + 1, mark.column + 1, problem, remedy) if mark else Fault(1, 1, problem, remedy)


def _unreadable(text: str, error: YAMLError) -> Fault:
    """A character that YAML does not allow, such as NUL."""
    position = getattr(error, "position", None)
    if not isinstance(position, int):
        return Fault(1, 1, str(error).splitlines()[0])
    before = text[:position]
    return Fault(
        before.count("\n") + 1,
        position - (before.rfind("\n") + 1) + 1,
        "a character that YAML does not allow",
        "remove it",
    )


def _plain(root: Node, faults: list[Fault], budget: list[int] | None = None) -> Any:
    """A node as plain Python values; aliases may not make more than 50,000 of them out of few."""
    budget = budget if budget is not None else [50_000]
    budget[0] -= 1
    if budget[0] < 0:
        if not faults or faults[-1].message != "too many values":
            faults.append(_at(root, "too many values", "write fewer aliases"))
        return None
    if isinstance(root, SequenceNode):
        return [_plain(item, faults, budget) for item in root.value]
    if isinstance(root, MappingNode):
        return _mapping(root, faults, budget)
    return _scalar(root, faults)


def _mapping(root: MappingNode, faults: list[Fault], budget: list[int]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key, value in root.value:
        if not isinstance(key, ScalarNode):
            faults.append(_at(key, "a key must be text"))
        elif key.value == "<<":
            faults.append(_at(key, "merge keys are not supported", "write the values out"))
        elif key.value in values:
            faults.append(_at(key, f"{key.value!r} stands here twice", "remove one of the two"))
        else:
            values[key.value] = _plain(value, faults, budget)
    return values


def _scalar(node: ScalarNode, faults: list[Fault]) -> Any:
    kind, text = str(node.tag).rsplit(":", 1)[-1], str(node.value)
    if node.style in ("'", '"', "|", ">") or kind == "str":
        return text
    if kind == "null":
        return None
    if kind == "bool":
        return text.lower() == "true"
    try:
        if kind == "int":
            return int(text.replace("_", ""), 0)
        if kind == "float":
            return float(text.replace("_", ""))
    except ValueError:
        return text
    return text


def _at(node: Node, message: str, remedy: str = "") -> Fault:
    return Fault(node.start_mark.line + 1, node.start_mark.column + 1, message, remedy)


def _fault(root: Node, error: Mapping[str, Any], model: type[BaseModel]) -> Fault:
    """One of pydantic's errors, at the place in the file that it is about."""
    path = tuple(error["loc"])
    node, key, names = _find(root, path)
    kind = error["type"]
    shown = ".".join(names)
    if kind == "extra_forbidden":
        known = _keys(model, names[:-1])
        close = difflib.get_close_matches(names[-1], known, n=1)
        remedy = f"did you mean {close[0]!r}?" if close else f"known here: {', '.join(sorted(known))}"
        return _at(key or node, f"unknown key {names[-1]!r}", remedy)
    if kind == "missing":
        return _at(node, f"{shown + ': ' if shown else ''}{path[-1]!r} is missing")
    message = str(error["msg"]).removeprefix("Value error, ")
    head, _, remedy = message.partition("; ")
    if kind == "string_type":
        head, remedy = "this must be text", "write it in quotes"
    at = node if node is not None else root
    context = error.get("ctx", {}).get("error")
    if isinstance(context, Misplaced):
        at, _, names = _find(root, (*path, *context.path))
        shown = ".".join(names)
    return _at(at, f"{shown}: {head}" if shown else head, remedy)


class Misplaced(ValueError):
    """For validators that look at several fields: the fault lies at `path` below the validated value."""

    def __init__(self, message: str, *path: str | int) -> None:
        super().__init__(message)
        self.path = path


def _find(root: Node, path: tuple[str | int, ...]) -> tuple[Node, Node | None, list[str]]:
    """The node at `path`, its key, and the parts of the path that exist; parts that pydantic made up are left out."""
    node, key, names = root, None, []
    for part in path:
        if isinstance(node, MappingNode):
            pair = next(((k, v) for k, v in node.value if k.value == str(part)), None)
            if pair is not None:
                key, node = pair
                names.append(str(part))
        elif isinstance(node, SequenceNode) and isinstance(part, int) and part < len(node.value):
            node, key = node.value[part], None
            names.append(str(part))
    return node, key, names


def _keys(model: Any, path: Iterable[str]) -> list[str]:
    """The keys that the model knows at `path`."""
    here: Any = model
    for part in path:
        if isinstance(here, type) and issubclass(here, BaseModel):
            field = here.model_fields.get(part) or next(
                (one for one in here.model_fields.values() if one.alias == part), None
            )
            here = field.annotation if field else None
        else:
            here = _inner(here)
    here = here if isinstance(here, type) else _inner(here)
    if isinstance(here, type) and issubclass(here, BaseModel):
        return [field.alias or name for name, field in here.model_fields.items()]
    return []


def _inner(annotation: Any) -> Any:
    """The model inside `X | None`, `dict[str, X]`, `tuple[X, ...]`, `Annotated[X, ...]`."""
    for argument in get_args(annotation):
        found = argument if isinstance(argument, type) and issubclass(argument, BaseModel) else _inner(argument)
        if found is not None:
            return found
    return None
