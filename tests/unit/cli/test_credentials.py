from __future__ import annotations

from pathlib import Path

import pytest

from cd.cli import credentials
from cd.cli.credentials import Credentials
from cd.errors import UserError

HERE, THERE = "http://here:8000", "https://there.example.org"


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    for name in ("TOWPATH_URL", "TOWPATH_TOKEN"):
        monkeypatch.delenv(name, raising=False)


def test_what_is_kept_is_for_its_owner_alone() -> None:
    where = credentials.save(Credentials(HERE, "tp_1"))
    assert where.stat().st_mode & 0o777 == 0o600
    assert where.parent.stat().st_mode & 0o777 == 0o700
    assert credentials.load() == Credentials(HERE, "tp_1")
    credentials.save(Credentials(THERE, "tp_2"))
    assert credentials.load() == Credentials(THERE, "tp_2")
    assert [one.name for one in where.parent.iterdir()] == ["credentials.json"]


def test_without_the_variable_it_is_below_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("XDG_CONFIG_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert credentials.path() == tmp_path / ".config" / "towpath" / "credentials.json"


def test_the_environment_stands_above_it(monkeypatch: pytest.MonkeyPatch) -> None:
    credentials.save(Credentials(HERE, "tp_1"))
    monkeypatch.setenv("TOWPATH_TOKEN", "tp_other")
    assert credentials.load() == Credentials(HERE, "tp_other")
    monkeypatch.setenv("TOWPATH_URL", f"{THERE}/")
    assert credentials.load() == Credentials(THERE, "tp_other")


def test_a_kept_token_is_not_sent_to_another_server(monkeypatch: pytest.MonkeyPatch) -> None:
    credentials.save(Credentials(HERE, "tp_1"))
    monkeypatch.setenv("TOWPATH_URL", HERE)
    assert credentials.load().token == "tp_1"
    monkeypatch.setenv("TOWPATH_URL", THERE)
    with pytest.raises(UserError, match="TOWPATH_TOKEN is not set"):
        credentials.load()


def test_a_broken_file_says_which() -> None:
    credentials.save(Credentials(HERE, "tp_1")).write_text("{}")
    with pytest.raises(UserError, match=r"credentials\.json"):
        credentials.load()
