"""Masking: no disguise of a secret gets through, wherever the stream is cut."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from urllib.parse import quote, quote_plus
from xml.sax.saxutils import escape

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cd.pipeline.masking import Masker, masked

SECRET = "hunter2 & <Zürich>/+'\"\\=="
DISGUISES: dict[str, Callable[[str], bytes]] = {
    "raw": str.encode,
    "base64": lambda text: base64.b64encode(text.encode()),
    "base64 after one": lambda text: base64.b64encode(b"u" + text.encode() + b"xyz"),
    "base64 after two": lambda text: base64.b64encode(b"us" + text.encode() + b"xyz"),
    "base64 for URLs": lambda text: base64.urlsafe_b64encode(b"user:" + text.encode()),
    "hexadecimal": lambda text: text.encode().hex().encode(),
    "URL": lambda text: quote(text, safe="").encode(),
    "URL, lower": lambda text: quote(text, safe="").lower().encode() if text.islower() else quote(text).encode(),
    "form": lambda text: quote_plus(text).encode(),
    "JSON": lambda text: json.dumps({"password": text}).encode(),
    "JSON, not ASCII": lambda text: json.dumps({"password": text}, ensure_ascii=False).encode(),
    "XML": lambda text: escape(text).encode(),
}


def pieces(data: bytes, cuts: list[int], secret: str) -> bytes:
    """What comes out when the stream is cut there."""
    masker, out, at = Masker([secret]), b"", 0
    for cut in sorted({min(cut, len(data)) for cut in cuts}):
        out += masker.feed(data[at:cut])
        at = cut
    return out + masker.feed(data[at:]) + masker.flush()


@pytest.mark.parametrize("disguise", DISGUISES)
def test_every_border_of_two_pieces(disguise: str) -> None:
    hidden = DISGUISES[disguise](SECRET)
    data = b"before " + hidden + b" after"
    whole = masked(data, [SECRET])
    assert len(whole) == len(data)
    assert whole.startswith(b"before ")
    assert whole.endswith(b" after")
    assert whole.count(b"*") >= len(SECRET) - 4
    for cut in range(len(data) + 1):
        assert pieces(data, [cut], SECRET) == whole


@given(st.text(st.characters(codec="utf-8"), min_size=4, max_size=30), st.lists(st.integers(0, 300), max_size=20))
def test_any_secret_cut_anywhere(secret: str, cuts: list[int]) -> None:
    data = b"<" + secret.encode() + b"|" + json.dumps(secret).encode() + b"|" + quote(secret, safe="").encode() + b">"
    out = pieces(data, cuts, secret)
    assert len(out) == len(data)
    if len(secret.encode()) >= 4:
        assert secret.encode() not in out or set(secret) == {"*"}


def test_secrets_that_overlap_are_both_gone() -> None:
    assert masked(b"xabcdefghx", ["abcdef", "defgh"]) == b"x********x"


def test_lines_of_a_key_are_masked_each_by_itself() -> None:
    key = "-----BEGIN KEY-----\nMIIEpAIBAAKCAQEA\nshort\n-----END KEY-----\n"
    assert b"MIIEpAIBAAKCAQEA" not in masked(b"  1: MIIEpAIBAAKCAQEA\n", [key])


def test_short_secrets_are_not_looked_for() -> None:
    assert masked(b"a yes is a yes", ["yes"]) == b"a yes is a yes"


def test_a_line_goes_out_at_once() -> None:
    masker = Masker(["secret-value"])
    assert masker.feed(b"hello\n") == b"hello\n"
    assert masker.feed(b"a sec") == b"a "
    assert masker.feed(b"ond\n") == b"second\n"
