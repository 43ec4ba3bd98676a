"""Secrets in what leaves a worker: written over by stars, one for each byte, so that every position stays what it was.

Masked are a secret itself, its lines where it has several, and its usual disguises: base64 (plain and URL-safe, at each
of the three places that it can begin at), hexadecimal, and as escaped in URLs, JSON, XML and shell quotes.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator
from urllib.parse import quote, quote_plus
from xml.sax.saxutils import escape

#: Shorter secrets would blank out ordinary words; so many bytes tell a line of a longer one from text.
SHORTEST, SHORTEST_LINE = 4, 8
STAR = b"*"


class Masker:
    """Masks a stream, piece by piece. A piece may end in the middle of a secret: what could become one is held back."""

    def __init__(self, secrets: Iterable[str]) -> None:
        self._patterns = patterns(secrets)
        #: Bytes that a match may reach back, at most: whoever resumes a stream begins that much earlier.
        self.reach = max((len(one) for one in self._patterns), default=1) - 1
        self._held = b""
        #: So many bytes at the beginning of what is held are part of a match that began before.
        self._covered = 0

    def feed(self, data: bytes) -> bytes:
        """The bytes that are sure by now, masked; together as many as were fed, less those held back."""
        if not self._patterns:
            return data
        buffer = self._held + data
        masked, covered = self._masked(buffer)
        cut = len(buffer) - self._open(buffer)
        self._held, self._covered = buffer[cut:], max(0, covered - cut)
        return masked[:cut]

    def flush(self) -> bytes:
        """What is held back, now that nothing follows."""
        masked, _ = self._masked(self._held)
        self._held, self._covered = b"", 0
        return masked

    def _masked(self, buffer: bytes) -> tuple[bytes, int]:
        """The buffer with all matches written over, and the end of the last of them."""
        spans = [(0, self._covered)] if self._covered else []
        for pattern in self._patterns:
            at = buffer.find(pattern)
            while at >= 0:
                spans.append((at, at + len(pattern)))
                at = buffer.find(pattern, at + 1)
        if not spans:
            return buffer, 0
        masked = bytearray(buffer)
        for begin, end in spans:
            masked[begin:end] = STAR * (end - begin)
        return bytes(masked), max(end for _, end in spans)

    def _open(self, buffer: bytes) -> int:
        """Length of the longest end of the buffer that a secret may begin with."""
        longest = 0
        for pattern in self._patterns:
            at = buffer.find(pattern[:1], max(0, len(buffer) - len(pattern) + 1))
            while 0 <= at < len(buffer) - longest:
                if pattern.startswith(buffer[at:]):
                    longest = len(buffer) - at
                    break
                at = buffer.find(pattern[:1], at + 1)
        return longest


def masked(data: bytes, secrets: Iterable[str]) -> bytes:
    """All of `data` at once."""
    masker = Masker(secrets)
    return masker.feed(data) + masker.flush()


def patterns(secrets: Iterable[str]) -> list[bytes]:
    """What is looked for, each once, the longest first."""
    found = {pattern for secret in secrets for text in _texts(secret) for pattern in _disguises(text)}
    return sorted((one for one in found if len(one) >= SHORTEST), key=lambda one: (-len(one), one))


def _texts(secret: str) -> Iterator[str]:
    yield secret
    stripped = secret.strip()
    yield stripped
    lines = stripped.splitlines()
    if len(lines) > 1:
        yield from (line.strip() for line in lines if len(line.strip()) >= SHORTEST_LINE)


def _disguises(text: str) -> Iterator[bytes]:
    raw = text.encode(errors="surrogateescape")
    if len(raw) < SHORTEST:
        return
    yield raw
    for shift in range(3):
        yield from _base64(raw, shift)
    yield raw.hex().encode()
    yield raw.hex().upper().encode()
    for quoted in (quote(text, safe=""), quote(text), quote_plus(text)):
        yield quoted.encode()
        yield _lower_escapes(quoted).encode()
    yield json.dumps(text)[1:-1].encode()
    yield json.dumps(text, ensure_ascii=False)[1:-1].encode(errors="surrogateescape")
    yield escape(text).encode(errors="surrogateescape")
    yield escape(text, {'"': "&quot;", "'": "&apos;"}).encode(errors="surrogateescape")
    yield escape(text, {'"': "&#34;", "'": "&#39;"}).encode(errors="surrogateescape")
    yield text.replace("'", "'\\''").encode(errors="surrogateescape")


def _base64(raw: bytes, shift: int) -> Iterator[bytes]:
    """The characters that only the secret decides, when it begins `shift` bytes after a group of three does."""
    coded = base64.b64encode(b"\0" * shift + raw)
    begin = -(-shift * 8 // 6)
    end = (shift + len(raw)) * 8 // 6
    sure = coded[begin:end]
    # A short secret leaves so few characters that ordinary words would be taken for them.
    if len(sure) >= SHORTEST:
        yield sure
        yield sure.translate(bytes.maketrans(b"+/", b"-_"))


def _lower_escapes(quoted: str) -> str:
    """%2F as %2f."""
    parts = quoted.split("%")
    return "%".join([parts[0], *(part[:2].lower() + part[2:] for part in parts[1:])])
