"""What the documentation says of states and settings is what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cd.config import Settings
from cd.pipeline.states import RUN, STEP
from cd.promote.states import DEPLOYMENT, PROMOTION
from cd.store.states import Machine

ROOT = Path(__file__).parents[3]


def drawn(machine: Machine) -> str:
    """The machine as a Mermaid diagram."""
    lines = ["stateDiagram-v2", f"    [*] --> {next(iter(machine.transitions))}"]
    for state, follow in machine.transitions.items():
        ends = [f"    {state} --> [*]"]
        lines += [f"    {state} --> {other}" for other in machine.transitions if other in follow] or ends
    return "\n".join(lines)


@pytest.mark.parametrize("machine", [RUN, STEP, PROMOTION, DEPLOYMENT], ids=lambda machine: machine.name)
def test_states_are_drawn_as_they_are(machine: Machine) -> None:
    page = (ROOT / "docs/architecture.md").read_text()
    section = re.search(rf"^### {machine.name}$.*?```mermaid\n(.*?)\n```", page, re.DOTALL | re.MULTILINE)
    assert section is not None
    assert section[1] == drawn(machine)


def test_every_setting_is_in_the_readme_as_it_is() -> None:
    rows = re.findall(r"^\| `(TOWPATH_\w+)` \| (.*?) \| (.*?) \|$", (ROOT / "README.md").read_text(), re.MULTILINE)
    told = {name: (default.strip("`"), text) for name, default, text in rows}
    assert told == {
        f"TOWPATH_{name.upper()}": (default_of(name), field.description)
        for name, field in Settings.model_fields.items()
    }


def default_of(name: str) -> str:
    """A default as the table shows it: nothing for what is empty."""
    default = Settings.model_fields[name].default
    if isinstance(default, bool):
        return str(default).lower()
    return str(default) if default or default == 0 else ""
