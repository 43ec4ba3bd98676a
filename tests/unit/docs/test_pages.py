"""What the documentation says of states and settings is what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cd.config import Settings
from cd.pipeline.definition import unsupported
from cd.pipeline.parse import parse
from cd.pipeline.states import RUN, STEP
from cd.promote import policy
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


def test_files_shown_are_taken_as_they_are() -> None:
    pipelines = [*blocks("docs/pipeline-file.md"), (ROOT / "examples/demo/.towpath.yml").read_text()]
    assert len(pipelines) == 2
    assert [unsupported(parse(text.encode())) for text in pipelines] == [[], []]
    policies = [*blocks("docs/environments.md"), (ROOT / "examples/demo/environments.yml").read_text()]
    assert [[spec.name for spec in policy.parse(text.encode())] for text in policies] == [
        ["dev", "staging", "prod"]
    ] * 2


def blocks(page: str) -> list[str]:
    """The YAML that a page shows."""
    return re.findall(r"^```yaml\n(.*?)^```$", (ROOT / page).read_text(), re.DOTALL | re.MULTILINE)


def test_pages_that_are_linked_are_there() -> None:
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    links = [(page, link) for page in pages for link in re.findall(r"\]\((?!https?:)([^)#]+)\)", page.read_text())]
    assert [f"{page.name}: {link}" for page, link in links if not (page.parent / link).exists()] == []
