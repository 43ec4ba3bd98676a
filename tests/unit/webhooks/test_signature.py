from __future__ import annotations

import base64
import hashlib
import hmac

import pytest

from cd.errors import Unauthorized
from cd.webhooks.signature import check_hex, check_standard

SECRET = "It's a Secret to Everybody"
HEX = {
    b"Hello, World!": "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17",
    b"Hello World!": "a4771c39fbe90f317c7824e83ddef3caae9cb3d976c214ace1f2937e133263c9",
}
STANDARD_SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
STANDARD_AT = 1614265330.0
STANDARD_BODY = b'{"test": 2432232314}'
STANDARD = {
    "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
    "webhook-timestamp": "1614265330",
    "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
}


@pytest.mark.parametrize("body", HEX)
def test_published_vectors_of_hex_signatures(body: bytes) -> None:
    check_hex(SECRET, {"x": f"sha256={HEX[body]}"}, "x", body)
    check_hex(SECRET, {"x": HEX[body]}, "x", body, prefix="")


@pytest.mark.parametrize(
    "given",
    ["", "sha256=", HEX[b"Hello, World!"], f"sha1={HEX[b'Hello, World!']}", "sha256=" + "0" * 64, "sha256=é", "\udcff"],
)
def test_wrong_hex_signatures_are_refused(given: str) -> None:
    with pytest.raises(Unauthorized):
        check_hex(SECRET, {"x": given}, "x", b"Hello, World!")


def test_one_changed_byte_is_noticed() -> None:
    with pytest.raises(Unauthorized, match="does not match"):
        check_hex(SECRET, {"x": f"sha256={HEX[b'Hello, World!']}"}, "x", b"Hello, World?")


def test_an_empty_secret_refuses_even_what_it_signed() -> None:
    signed = hmac.new(b"", b"body", hashlib.sha256).hexdigest()
    with pytest.raises(Unauthorized, match="no webhook secret"):
        check_hex("", {"x": f"sha256={signed}"}, "x", b"body")
    with pytest.raises(Unauthorized, match="no webhook secret"):
        check_standard("whsec_", STANDARD, STANDARD_BODY, STANDARD_AT)


def test_a_forge_that_signs_hex_uses_the_secret_as_it_is_shown() -> None:
    signed = hmac.new(STANDARD_SECRET.encode(), b"body", hashlib.sha256).hexdigest()
    check_hex(STANDARD_SECRET, {"x": f"sha256={signed}"}, "x", b"body")


def test_published_vector_of_standard_webhooks() -> None:
    check_standard(STANDARD_SECRET, STANDARD, STANDARD_BODY, STANDARD_AT)


def test_one_right_entry_of_the_list_is_enough() -> None:
    entries = f"v1,AAAA v2,xyz v1a,abc {STANDARD['webhook-signature']}"
    check_standard(STANDARD_SECRET, {**STANDARD, "webhook-signature": entries}, STANDARD_BODY, STANDARD_AT)


def test_a_secret_without_prefix_is_its_own_bytes() -> None:
    mac = hmac.new(b"plain", b"id.1614265330.body", hashlib.sha256).digest()
    headers = {**STANDARD, "webhook-id": "id", "webhook-signature": f"v1,{base64.b64encode(mac).decode()}"}
    check_standard("plain", headers, b"body", STANDARD_AT)


@pytest.mark.parametrize(
    "changed",
    [
        {"webhook-id": "msg_other"},
        {"webhook-timestamp": "1614265331"},
        {"webhook-timestamp": "-1"},
        {"webhook-timestamp": "１６１４２６５３３０"},
        {"webhook-timestamp": "1614265330.5"},
        {"webhook-timestamp": "9" * 30},
        {"webhook-signature": "v1,"},
        {"webhook-signature": "v2,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="},
        {"webhook-signature": "é"},
    ],
)
def test_wrong_standard_signatures_are_refused(changed: dict[str, str]) -> None:
    with pytest.raises(Unauthorized):
        check_standard(STANDARD_SECRET, {**STANDARD, **changed}, STANDARD_BODY, STANDARD_AT)


@pytest.mark.parametrize("header", STANDARD)
def test_a_missing_header_is_named(header: str) -> None:
    headers = {name: value for name, value in STANDARD.items() if name != header}
    with pytest.raises(Unauthorized, match=header):
        check_standard(STANDARD_SECRET, headers, STANDARD_BODY, STANDARD_AT)


@pytest.mark.parametrize(("shift", "taken"), [(-300, True), (300, True), (-301, False), (301, False), (3600, False)])
def test_five_minutes_on_either_side(shift: int, taken: bool) -> None:
    if taken:
        check_standard(STANDARD_SECRET, STANDARD, STANDARD_BODY, STANDARD_AT + shift)
        return
    with pytest.raises(Unauthorized, match="5 minutes"):
        check_standard(STANDARD_SECRET, STANDARD, STANDARD_BODY, STANDARD_AT + shift)


def test_a_secret_that_is_not_base64_says_so() -> None:
    with pytest.raises(Unauthorized, match="base64"):
        check_standard("whsec_***", STANDARD, STANDARD_BODY, STANDARD_AT)
