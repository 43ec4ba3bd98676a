from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from cd.cli import main


def validate(*arguments: str, text: str | bytes | None = None) -> Result:
    return CliRunner().invoke(main, ["validate", *arguments], input=text)


def test_a_good_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".towpath.yml").write_text("stages: {unit: {run: pytest}}\n")
    monkeypatch.chdir(tmp_path)
    result = validate()
    assert (result.exit_code, result.output) == (0, ".towpath.yml is valid\n")


def test_every_fault_has_its_place() -> None:
    result = validate("-", text="stages:\n  unit:\n    rum: pytest\n  lint:\n    run: x\n    needs: [nothing]\n")
    assert result.exit_code == 1
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    assert any(line.startswith("-:3:5: ") and "did you mean 'run'?" in line for line in lines)


def test_faults_as_json() -> None:
    result = validate("-", "--json", text="stage: {}\n")
    assert result.exit_code == 1
    told = json.loads(result.stdout)
    assert told["valid"] is False
    assert (told["faults"][0]["line"], told["faults"][0]["column"]) == (1, 1)


def test_what_this_version_can_not_do_is_no_valid_file() -> None:
    result = validate("-", text="deploy: {port: 80, before: ./migrate}\n")
    assert result.exit_code == 1
    assert "deploy.before can't be done by this version" in result.stderr


def test_a_missing_file_says_so(tmp_path: Path) -> None:
    result = validate(str(tmp_path / "none.yml"))
    assert result.exit_code == 1
    assert "No such file" in result.stderr


def test_a_huge_file_is_refused_at_once(tmp_path: Path) -> None:
    path = tmp_path / "huge.yml"
    with path.open("wb") as file:
        file.truncate(1 << 32)
    result = validate(str(path))
    assert result.exit_code == 1
    assert "over 256 KiB" in result.stderr
