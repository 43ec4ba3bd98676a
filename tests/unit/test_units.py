from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cd.units import format_seconds, seconds, size


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("250ms", 0.25),
        ("30s", 30),
        ("10m", 600),
        ("1h30m", 5400),
        ("3d", 259_200),
        (" 1.5h ", 5400),
        (7, 7),
        (0.5, 0.5),
    ],
)
def test_durations(text: object, expected: float) -> None:
    assert seconds(text) == expected


@pytest.mark.parametrize("text", ["", "10", "10 m", "m", "-5s", "1h-30m", "10minutes", "1e3s", True, None, [], "٣s1"])
def test_what_is_no_duration(text: object) -> None:
    with pytest.raises(ValueError, match="is not a duration; write it like 30s, 10m or 1h30m"):
        seconds(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("512MiB", 512 << 20), ("1GB", 10**9), ("1.5 KiB", 1536), ("7B", 7), ("42", 42), (42, 42), ("2TiB", 2 << 40)],
)
def test_sizes(text: object, expected: int) -> None:
    assert size(text) == expected


@pytest.mark.parametrize("text", ["", "MiB", "1 mb", "-1KB", "1KiBs", "1e3", False, None, 1.5])
def test_what_is_no_size(text: object) -> None:
    with pytest.raises(ValueError, match="is not a size; write it like 512MiB or 1GiB"):
        size(text)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, "0 ms"), (0.25, "250 ms"), (1, "1.0 s"), (9.94, "9.9 s"), (9.99, "10 s"), (12.4, "12 s"), (60, "1 min"),
        (75, "1 min 15 s"), (3600, "1 h"), (5400, "1 h 30 min"), (200_000, "2 d"), (59.7, "1 min"), (0.9996, "1.0 s"),
        (3599.8, "1 h"),
    ],
)  # fmt: skip
def test_durations_for_people(value: float, expected: str) -> None:
    assert format_seconds(value) == expected


@given(st.text())
def test_any_text_is_a_duration_or_a_clear_error(text: str) -> None:
    try:
        value = seconds(text)
    except ValueError as error:
        message = str(error)
    else:
        message = "is not a duration"
        assert value >= 0
    assert "is not a duration" in message
