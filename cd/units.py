"""Durations and sizes as people write them."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BeforeValidator

_DURATION_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SIZE_UNITS = {
    "": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12,
    "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40,
}  # fmt: skip


def seconds(value: Any) -> float:
    """ "1h30m", "10m", "250ms" or a number of seconds, as seconds. Raises ValueError."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    text = value.strip() if isinstance(value, str) else ""
    parts = re.findall(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)", text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError(f"{value!r} is not a duration; write it like 30s, 10m or 1h30m")
    return sum(float(number) * _DURATION_UNITS[unit] for number, unit in parts)


def size(value: Any) -> int:
    """ "512MiB", "1GB" or a number of bytes, as bytes. Raises ValueError."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]i?B|B|)", value.strip()) if isinstance(value, str) else None
    if match is None:
        raise ValueError(f"{value!r} is not a size; write it like 512MiB or 1GiB")
    return int(float(match[1]) * _SIZE_UNITS[match[2]])


#: Fields of models: read from text, kept as a number.
Seconds = Annotated[float, BeforeValidator(seconds, json_schema_input_type=str | float)]
Bytes = Annotated[int, BeforeValidator(size, json_schema_input_type=str | int)]


def format_seconds(value: float) -> str:
    """About how long, for people: 0.25 -> "250 ms", 75 -> "1 min 15 s"."""
    if round(value, 3) < 1:
        return f"{round(value * 1000)} ms"
    if round(value) < 60:
        return f"{value:.1f} s" if round(value, 1) < 10 else f"{round(value)} s"
    minutes, rest = divmod(round(value), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    return f"{hours // 24} d"
