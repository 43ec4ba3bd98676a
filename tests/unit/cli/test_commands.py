"""What holds for every command: help, options, errors, and how little is imported."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner

from cd.cli import COMMANDS, main

PROCESSES = {"up", "web", "worker", "scheduler", "migrate"}


def commands(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command with its whole name."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        yield (*path, name), command
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))


ALL = {" ".join(path): command for path, command in commands(main)}


@pytest.mark.parametrize("path", ALL)
def test_every_command_has_help_for_itself_and_its_options(path: str) -> None:
    result = CliRunner().invoke(main, [*path.split(), "--help"])
    assert result.exit_code == 0, result.output
    assert result.output.startswith(f"Usage: main {path}")
    assert ALL[path].help
    for option in ALL[path].params:
        if isinstance(option, click.Option):
            assert option.help, f"{path} {option.opts}"


@pytest.mark.parametrize("name", COMMANDS)
def test_the_table_says_what_the_command_says(name: str) -> None:
    assert (ALL[name].help or "").startswith(COMMANDS[name].short.rstrip("."))


@pytest.mark.parametrize("path", [path for path in ALL if path.split()[-1] in {"list", "show", "why", "verify"}])
def test_what_prints_data_can_print_json(path: str) -> None:
    assert any("--json" in param.opts for param in ALL[path].params)


def test_help_imports_nothing_that_is_slow() -> None:
    code = (
        "import sys; from cd.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "slow = {'httpx', 'rich', 'pydantic', 'sqlalchemy', 'flask', 'docker', 'rq', 'redis', 'ruamel', 'git'}\n"
        "print('imported:', slow & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("imported: set()")


def test_no_command_imports_the_client_before_it_is_needed() -> None:
    modules = sorted({entry.module for name, entry in COMMANDS.items() if name not in PROCESSES})
    code = f"import sys, {', '.join(modules)}; print({{'httpx', 'rich', 'sqlalchemy', 'docker'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_a_wrong_call_is_status_2() -> None:
    for call in (["nothing"], ["run", "show"], ["run", "show", "demo", "x"], ["project", "create", "demo"]):
        result = CliRunner().invoke(main, call)
        assert result.exit_code == 2
        assert "Usage:" in result.stderr


def test_an_error_is_one_line_with_a_remedy_and_status_1(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    for name in ("TOWPATH_URL", "TOWPATH_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    result = CliRunner().invoke(main, ["project", "list"])
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr == "towpath: you are not logged in; run `towpath login URL`\n"
