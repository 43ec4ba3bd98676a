"""Random secrets, of which only the SHA-256 is stored: they are too long to be guessed, so no slow hash is needed."""

from __future__ import annotations

import hashlib
import secrets


def make(prefix: str = "") -> str:
    """A new secret of 256 bits."""
    return prefix + secrets.token_urlsafe(32)


def digest(secret: str) -> str:
    """What is stored of it."""
    return hashlib.sha256(secret.encode(errors="surrogateescape")).hexdigest()
