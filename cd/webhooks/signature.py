"""Signatures of webhooks: over the exact raw bytes, before anything is parsed, in constant time."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping

from cd.errors import Unauthorized

#: Names in lower case.
Headers = Mapping[str, str]

#: How far, in seconds, the time of a Standard Webhook may be from ours.
TOLERANCE = 300
PREFIX = "whsec_"


def check_hex(secret: str, headers: Headers, header: str, body: bytes, prefix: str = "sha256=") -> None:
    """Hex HMAC-SHA256 of the body, as `prefix` + digits in `header`. Raises Unauthorized."""
    given = _given(headers, header)
    wanted = prefix + hmac.new(_key(secret.encode()), body, hashlib.sha256).hexdigest()
    # On bytes: on text compare_digest raises for what is not ASCII.
    if not hmac.compare_digest(given.lower().encode(errors="replace"), wanted.encode()):
        raise _wrong(header)


def check_standard(secret: str, headers: Headers, body: bytes, at: float) -> None:
    """Standard Webhooks: one of the `v1,` entries is the base64 HMAC-SHA256 of `id.timestamp.body`.

    `at` is the time now, in seconds of Unix time. Raises Unauthorized.
    """
    name, stamp = _given(headers, "webhook-id"), _given(headers, "webhook-timestamp")
    given = _given(headers, "webhook-signature")
    _check_time(stamp, at)
    mac = hmac.new(_standard_key(secret), f"{name}.{stamp}.".encode(errors="replace") + body, hashlib.sha256)
    wanted = b"v1," + base64.b64encode(mac.digest())
    entries = [entry.encode(errors="replace") for entry in given.split(" ")]
    # All are looked at, so that the time tells nothing of the place.
    if not sum(hmac.compare_digest(entry, wanted) for entry in entries):
        raise _wrong("webhook-signature")


def _standard_key(secret: str) -> bytes:
    """The key that a secret stands for: base64 behind `whsec_`, else its own bytes."""
    if not secret.startswith(PREFIX):
        return _key(secret.encode())
    try:
        return _key(base64.b64decode(secret.removeprefix(PREFIX), validate=True))
    except binascii.Error as error:
        raise Unauthorized("the project's webhook secret is not valid base64", remedy="make a new one") from error


def _key(key: bytes) -> bytes:
    if not key:
        raise Unauthorized("the project has no webhook secret", remedy="make a new one")
    return key


def _check_time(stamp: str, at: float) -> None:
    if not (stamp.isascii() and stamp.isdigit() and len(stamp) <= 12):
        raise Unauthorized(f"webhook-timestamp is not a Unix time: {stamp[:40]!r}", remedy="send whole seconds")
    if abs(at - int(stamp)) > TOLERANCE:
        raise Unauthorized(
            f"webhook-timestamp is more than {TOLERANCE // 60} minutes from the time here",
            remedy="set the clocks of both sides right; sign a delivery anew when it is sent again",
        )


def _given(headers: Headers, header: str) -> str:
    value = headers.get(header, "").strip()
    if not value:
        raise Unauthorized(
            f"the header {header} is missing", remedy="give the forge the webhook secret that Towpath showed"
        )
    return value


def _wrong(header: str) -> Unauthorized:
    return Unauthorized(f"{header} does not match the body", remedy="check that both sides have the same secret")
