"""Secrets at rest: AES-256-GCM under a key that is not in the database, each bound to what it is for."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from cd.config import Settings
from cd.errors import ServiceError, UserError

KEY_BYTES, NONCE_BYTES, ID_BYTES = 32, 12, 4
KEY_TEXT = re.compile(r"[0-9a-fA-F]{64}")


class Vault:
    """Encrypts and decrypts. A stored secret is: key id (4 bytes), nonce (12), ciphertext with tag."""

    def __init__(self, key: bytes) -> None:
        self._cipher = AESGCM(key)
        self._id = hashlib.sha256(b"towpath key id" + key).digest()[:ID_BYTES]
        #: For what must be secret and the same in all processes, such as signing forms.
        self.signing_key = hashlib.sha256(b"towpath signing" + key).digest()

    def encrypt(self, text: str, about: str) -> bytes:
        """`about` names what the secret is for; it must be the same to decrypt."""
        nonce = os.urandom(NONCE_BYTES)
        return self._id + nonce + self._cipher.encrypt(nonce, text.encode(), about.encode())

    def decrypt(self, blob: bytes, about: str) -> str:
        """Raises ServiceError when the key is another one, or the secret is not what it should be for."""
        key_id, nonce, sealed = (
            blob[:ID_BYTES],
            blob[ID_BYTES : ID_BYTES + NONCE_BYTES],
            blob[ID_BYTES + NONCE_BYTES :],
        )
        if len(blob) < ID_BYTES + NONCE_BYTES:
            raise ServiceError(f"the secret of {about} was cut off", retryable=False)
        if key_id != self._id:
            raise ServiceError(
                f"the secret of {about} was encrypted with another key",
                retryable=False,
                remedy="give the key of then: TOWPATH_SECRET_KEY, or secret.key in HOME",
            )
        try:
            return self._cipher.decrypt(nonce, sealed, about.encode()).decode()
        except InvalidTag as error:
            raise ServiceError(f"the secret of {about} was changed or moved", retryable=False) from error


def load_key(settings: Settings) -> bytes:
    """The key in force: from the settings, or HOME/secret.key, made at first use for its owner alone."""
    if settings.secret_key:
        return _key(settings.secret_key, "TOWPATH_SECRET_KEY")
    path = settings.folder / "secret.key"
    if not path.exists():
        _make(path)
    return _key(path.read_text().strip(), str(path))


def _make(path: Path) -> None:
    """Written whole before it has its name, so that of two processes that start at once one wins."""
    part = path.with_name(f".secret.{os.getpid()}.{secrets.token_hex(4)}")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(secrets.token_hex(KEY_BYTES))
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(part, path)
    except FileExistsError:
        return
    finally:
        part.unlink()


def _key(text: str, where: str) -> bytes:
    if not KEY_TEXT.fullmatch(text):
        raise UserError("not a key", where=where, remedy="give 64 hex digits, such as from `openssl rand -hex 32`")
    return bytes.fromhex(text)
