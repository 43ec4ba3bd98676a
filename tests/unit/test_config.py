from __future__ import annotations

import os
from pathlib import Path

import pytest
from pydantic import ValidationError

from cd.config import Settings


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("TOWPATH_"):
            monkeypatch.delenv(name)


def test_everything_lies_at_home_unless_it_is_told_otherwise(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    assert settings.database == f"sqlite:///{tmp_path}/towpath.db"
    assert settings.redis == f"unix://{tmp_path}/redis.sock"
    assert settings.blobs == f"file://{tmp_path}/blobs"
    assert settings.url == "http://127.0.0.1:8000"
    assert not settings.cookies_are_secure


def test_variables_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOWPATH_DATABASE_URL", "postgresql+psycopg://db/x")
    monkeypatch.setenv("TOWPATH_REDIS_URL", "redis://r")
    monkeypatch.setenv("TOWPATH_BLOBS_URL", "s3://bucket")
    monkeypatch.setenv("TOWPATH_PUBLIC_URL", "https://ci.example.com/")
    monkeypatch.setenv("TOWPATH_GIT_INTERNAL_HOSTS", '["git.corp"]')
    settings = Settings()
    assert (settings.database, settings.redis) == ("postgresql+psycopg://db/x", "redis://r")
    assert (settings.blobs, settings.url) == ("s3://bucket", "https://ci.example.com")
    assert settings.git_internal_hosts == {"git.corp"}
    assert settings.cookies_are_secure


def test_home_is_made_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Settings().folder == tmp_path / ".towpath"


@pytest.mark.parametrize(
    "wrong",
    [{"workers": 0}, {"lease_seconds": 0.5}, {"trusted_proxies": -1}, {"log_level": "loud"}, {"build_timeout": 0}],
)
def test_what_can_not_be_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Settings.model_validate(wrong)


def test_every_setting_is_described() -> None:
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []
