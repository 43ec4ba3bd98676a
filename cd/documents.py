"""YAML files that people write, read into models; every fault with its line, column and remedy."""

from __future__ import annotations

import difflib
import io
import itertools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    Event,
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
#: Keys and values; reading costs about 50 us for each.
MAX_NODES = 30_000
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


class Misplaced(ValueError):
    """For validators that look at several fields: the fault lies at `path` below the validated value."""

    def __init__(self, message: str, *path: str | int) -> None:
        super().__init__(message)
        self.path = path


#: From the plain values of a document to what is wrong across its places.
Across = Callable[[Any], Iterable[Misplaced]]


def load(text: bytes, model: type[M], name: str, across: Across = lambda value: ()) -> M:
    """Read one YAML document into `model`. Raises DocumentError with all faults that can be told at once.

    A model looks at what concerns several places only when each of them is right by itself; when one is not, `across`
    tells such faults from the plain values.
    """
    root = _compose(_decode(text, name), name)
    if root is None or (isinstance(root, ScalarNode) and not root.value and not root.style):
        return model()
    faults: list[Fault] = []
    value = _plain(root, _Reading(faults))
    if not isinstance(root, MappingNode):
        faults.append(_at(root, "the file must be a mapping", "begin with a key such as `stages:`"))
    if faults:
        raise DocumentError(name, faults)
    try:
        return model.model_validate(value)
    except ValidationError as error:
        told = [_fault(root, one, model) for one in error.errors()[:MAX_FAULTS]]
        told += [_misplaced(root, one) for one in itertools.islice(across(value), MAX_FAULTS)]
        raise DocumentError(name, dict.fromkeys(told)) from error


def _misplaced(root: Node, fault: Misplaced) -> Fault:
    at, _, names = _find(root, fault.path)
    head, _, remedy = str(fault).partition("; ")
    return _at(at, f"{'.'.join(names)}: {head}" if names else head, remedy)


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
        yaml.composer.warn_double_anchors = False
        node: Node | None = yaml.compose(io.StringIO(text))
    except MarkedYAMLError as error:
        raise DocumentError(name, [_syntax(error)]) from error
    except YAMLError as error:
        raise DocumentError(name, [_unreadable(text, error)]) from error
    except (ValueError, RecursionError) as error:
        raise DocumentError(name, [Fault(1, 1, f"not valid YAML: {error}")]) from error
    return node


#: Of each kind of event so many, and what to say of one more.
_AT_MOST: tuple[tuple[type[Event], int, str, str], ...] = (
    (DocumentStartEvent, 1, "a second document begins here", "keep one document"),
    (AliasEvent, MAX_ALIASES, f"more than {MAX_ALIASES} aliases", "write the values out"),
    (NodeEvent, MAX_NODES, f"more than {MAX_NODES} keys and values", "make the file smaller"),
)


def _check_events(text: str, name: str) -> None:
    """Refuse what costs memory or runs code before a tree is made of it."""
    depth, seen = 0, [0] * len(_AT_MOST)
    for event in YAML(typ="rt", pure=True).parse(io.StringIO(text)):
        line, column = event.start_mark.line + 1, event.start_mark.column + 1
        for index, (kind, limit, message, remedy) in enumerate(_AT_MOST):
            seen[index] += isinstance(event, kind)
            if seen[index] > limit:
                raise DocumentError(name, [Fault(line, column, message, remedy)])
        depth += isinstance(event, MappingStartEvent | SequenceStartEvent)
        depth -= isinstance(event, MappingEndEvent | SequenceEndEvent)
        if depth > MAX_DEPTH:
            raise DocumentError(name, [Fault(line, column, f"nested deeper than {MAX_DEPTH} levels", "flatten it")])
        tag = getattr(event, "ctag", None)
        if tag:
            raise DocumentError(name, [Fault(line, column, f"the tag {tag} is not allowed", "remove the tag")])


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


@dataclass
class _Reading:
    """Where the walk over the tree is: aliases may neither make much out of little nor close a circle."""

    faults: list[Fault]
    left: int = 50_000
    inside: set[int] = field(default_factory=set)


def _plain(node: Node, reading: _Reading) -> Any:
    """A node as plain Python values; what can't be one is told as a fault."""
    reading.left -= 1
    if reading.left < 0:
        if reading.left == -1:
            reading.faults.append(_at(node, "too many values", "write fewer aliases"))
        return None
    if isinstance(node, ScalarNode):
        return _scalar(node, reading.faults)
    if id(node) in reading.inside:
        reading.faults.append(_at(node, "it contains itself by an alias", "write the values out"))
        return None
    reading.inside.add(id(node))
    value = _mapping(node, reading) if isinstance(node, MappingNode) else [_plain(one, reading) for one in node.value]
    reading.inside.remove(id(node))
    return value


def _mapping(root: MappingNode, reading: _Reading) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key, value in root.value:
        if not isinstance(key, ScalarNode):
            reading.faults.append(_at(key, "a key must be text"))
        elif key.value == "<<":
            reading.faults.append(_at(key, "merge keys are not supported", "write the values out"))
        elif key.value in values:
            reading.faults.append(_at(key, f"{key.value!r} stands here twice", "remove one of the two"))
        else:
            _check_text(key, reading.faults)
            values[key.value] = _plain(value, reading)
    return values


def _check_text(node: ScalarNode, faults: list[Fault]) -> None:
    """Escapes in double quotes can make what no program takes as an argument and no database as text."""
    if any(char == "\0" or "\ud800" <= char <= "\udfff" for char in node.value):
        faults.append(_at(node, "it has a NUL or half a character in it", "remove the escape"))


def _scalar(node: ScalarNode, faults: list[Fault]) -> Any:
    kind, text = str(node.tag).rsplit(":", 1)[-1], str(node.value)
    _check_text(node, faults)
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
        return _at(node, f"{shown + ': ' if shown else ''}{path[-1]!r} is missing", f"add `{path[-1]}:`")
    message = str(error["msg"]).removeprefix("Value error, ")
    head, _, remedy = message.partition("; ")
    if kind == "string_type":
        head, remedy = "this must be text", "write it in quotes"
    elif kind in ("model_type", "dict_type"):
        head, remedy = "this must be a mapping", "write `key: value` below it, or remove it"
    elif kind in _BOUNDS:
        word, remedy = _BOUNDS[kind]
        bound = _bound(next(iter(error["ctx"].values())))
        head, remedy = f"this must be at {word} {bound}", f"write {bound} or {remedy}"
    # Nothing was written: the key shows better where that is.
    at = key if key is not None and node.start_mark.index == node.end_mark.index else node
    context = error.get("ctx", {}).get("error")
    if isinstance(context, Misplaced):
        at, _, names = _find(root, (*path, *context.path))
        shown = ".".join(names)
    return _at(at, f"{shown}: {head}" if shown else head, remedy)


#: Kinds of pydantic's errors about a number's size.
_BOUNDS = {"greater_than_equal": ("least", "more"), "less_than_equal": ("most", "less")}


def _bound(value: float) -> str:
    """A bound as people would write it: those of a MiB and above are sizes."""
    for unit, bytes_ in (("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20)):
        if value >= bytes_ and value % bytes_ == 0:
            return f"{value // bytes_:.0f}{unit}"
    return f"{value:g}"


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
            known = here.model_fields.get(part) or next(
                (one for one in here.model_fields.values() if one.alias == part), None
            )
            here = known.annotation if known else None
        else:
            here = _inner(here)
    here = here if isinstance(here, type) else _inner(here)
    if isinstance(here, type) and issubclass(here, BaseModel):
        return [one.alias or name for name, one in here.model_fields.items()]
    return []


def _inner(annotation: Any) -> Any:
    """The model inside `X | None`, `dict[str, X]`, `tuple[X, ...]`, `Annotated[X, ...]`."""
    for argument in get_args(annotation):
        found = argument if isinstance(argument, type) and issubclass(argument, BaseModel) else _inner(argument)
        if found is not None:
            return found
    return None
