"""The environments of a project as the file that people edit, and the places in it that are wrong."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq

from cd.documents import Fault
from cd.promote.records import Environment

#: What a new project starts from.
TEMPLATE = """\
environments:
  - name: dev
    from: {branches: [main]}
    promote: auto
    target: {kind: docker, url: "http://127.0.0.1:18001"}
  - name: staging
    after: [dev]
    promote: auto
    soak: 10m
    target: {kind: docker, url: "http://127.0.0.1:18002"}
  - name: prod
    after: [staging]
    promote: manual
    approvals: {required: 1, from: [approver]}
    target: {kind: docker, url: "http://127.0.0.1:18003"}
"""


@dataclass(frozen=True)
class Marked:
    """A fault with the line that it is in."""

    fault: Fault
    text: str

    @property
    def pointer(self) -> str:
        """Blanks up to the column."""
        return " " * (min(self.fault.column, 120) - 1)


def text(environments: Sequence[Environment]) -> str:
    """The file that would make these environments; comments of the one that did are not kept."""
    if not environments:
        return TEMPLATE
    yaml = YAML()
    yaml.width = 4096
    yaml.indent(mapping=2, sequence=4, offset=2)
    out = io.StringIO()
    yaml.dump({"environments": [_readable(row.spec) for row in environments]}, out)
    return out.getvalue()


def _readable(spec: dict[str, Any]) -> dict[str, Any]:
    """Seconds as people write them, short parts on one line, nothing that says nothing."""
    told = dict(spec)
    if "soak" in told:
        told["soak"] = duration(told["soak"])
    if "expire" in told.get("approvals", {}):
        told["approvals"] = told["approvals"] | {"expire": duration(told["approvals"]["expire"])}
    told["target"] = {name: value for name, value in told.get("target", {}).items() if value != ""}
    return {name: value if name == "env" else _flow(value) for name, value in told.items()}


def _flow(value: Any) -> Any:
    if isinstance(value, dict):
        mapping = CommentedMap({name: _flow(part) for name, part in value.items()})
        mapping.fa.set_flow_style()
        return mapping
    if isinstance(value, list):
        sequence = CommentedSeq(_flow(part) for part in value)
        sequence.fa.set_flow_style()
        return sequence
    return value


def duration(seconds: float) -> str:
    """In the largest unit that it is whole in: 600 is "10m"."""
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds and seconds % size == 0:
            return f"{int(seconds // size)}{unit}"
    return f"{seconds:g}s"


def marked(faults: Iterable[Fault], source: str) -> list[Marked]:
    """Each fault beside the line that it is in."""
    lines = source.splitlines()
    return [Marked(one, lines[one.line - 1][:160] if 0 < one.line <= len(lines) else "") for one in faults]
