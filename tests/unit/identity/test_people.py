from __future__ import annotations

import stat
from pathlib import Path

import pytest

from cd.config import Settings
from cd.errors import ServiceError, UserError
from cd.identity import secrets
from cd.identity.people import Role
from cd.identity.vault import Vault, load_key

KEY = bytes(range(32))


def test_each_role_may_what_the_ones_before_it_may() -> None:
    order = [Role.viewer, Role.developer, Role.approver, Role.admin]
    for at, role in enumerate(order):
        assert [role.allows(needed) for needed in order] == [at >= place for place in range(4)]


def test_a_secret_comes_back_only_for_what_it_is_for() -> None:
    vault = Vault(KEY)
    blob = vault.encrypt("s3cret", "webhook/demo")
    assert b"s3cret" not in blob
    assert vault.decrypt(blob, "webhook/demo") == "s3cret"
    with pytest.raises(ServiceError, match="changed or moved"):
        vault.decrypt(blob, "webhook/other")


def test_the_same_text_is_never_the_same_blob() -> None:
    assert Vault(KEY).encrypt("x", "y") != Vault(KEY).encrypt("x", "y")


@pytest.mark.parametrize("place", range(33))
def test_every_byte_of_a_blob_counts(place: int) -> None:
    blob = bytearray(Vault(KEY).encrypt("x", "y"))
    blob[place] ^= 1
    with pytest.raises(ServiceError):
        Vault(KEY).decrypt(bytes(blob), "y")


@pytest.mark.parametrize("length", [0, 3, 4, 16, 20])
def test_a_cut_blob_is_refused(length: int) -> None:
    with pytest.raises(ServiceError):
        Vault(KEY).decrypt(Vault(KEY).encrypt("x", "y")[:length], "y")


def test_another_key_is_named_as_the_fault() -> None:
    blob = Vault(KEY).encrypt("x", "y")
    with pytest.raises(ServiceError, match="another key"):
        Vault(bytes(32)).decrypt(blob, "y")


def test_the_key_is_made_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    key = load_key(settings)
    assert len(key) == 32
    assert load_key(settings) == key
    assert stat.S_IMODE((tmp_path / "secret.key").stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["secret.key"]


def test_a_key_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="64 hex digits"):
        load_key(Settings(home=tmp_path, secret_key="short"))
    assert load_key(Settings(home=tmp_path, secret_key="ab" * 32)) == b"\xab" * 32


def test_secrets_are_long_and_stored_as_a_hash() -> None:
    secret = secrets.make("tp_")
    assert secret.startswith("tp_")
    assert len(secret) >= 43
    assert secret not in secrets.digest(secret)
    assert secrets.digest(secret) == secrets.digest(secret) != secrets.digest(secret + "x")
