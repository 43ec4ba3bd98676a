"""Terminal output as spans of classes and text. Colours and weight are kept, every other escape is dropped.

A line is what a terminal would show of it: CR goes back to its start, backspace one cell, `ESC[K` erases.
Spans carry class names and never styles, so that a page needs no inline style: `f1` is the foreground 1 of 256.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from markupsafe import Markup, escape

#: Longer lines are cut for display, in characters; the raw log has them whole.
MAX_LINE = 4096
#: Of more bytes than this only the end is looked at when it begins anew with a CR, else only the beginning.
MAX_RAW = 1 << 16

#: Class names, separated by spaces, and the text that they are for.
Span = tuple[str, str]

_PIECES = re.compile(
    r"\x1b\[(?P<args>[0-?]*)[ -/]*(?P<final>[@-~])"  # CSI
    r"|\x1b[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)?"  # OSC, DCS and other strings, with what is in them
    r"|\x1b[ -/]*[0-~]?"  # any other escape
    r"|(?P<move>[\r\b])"
    r"|(?P<text>[^\x00-\x08\x0b-\x1f\x7f-\x9f]+)"
    r"|[\x00-\x1f\x7f-\x9f]"
)
#: What goes back in a line, or erases of it.
_BACK = re.compile(r"[\r\b]|\x1b\[[^m@-ln-~]*K")
#: Characters that reorder the text around them: a log must not read other than it is.
_BIDI = dict.fromkeys([*range(0x202A, 0x202F), *range(0x2066, 0x206A), 0x200E, 0x200F], "\ufffd")
_FLAGS = {1: "bold", 2: "dim", 3: "italic", 4: "underline", 7: "inverse", 8: "hidden", 9: "strike"}
_OFF = {22: ("bold", "dim"), 23: ("italic",), 24: ("underline",), 27: ("inverse",), 28: ("hidden",), 29: ("strike",)}


@dataclass(frozen=True)
class Style:
    """Colours by their number in the palette of 256, -1 for the default; flags by name."""

    fg: int = -1
    bg: int = -1
    flags: frozenset[str] = frozenset()

    @property
    def classes(self) -> str:
        """As class names."""
        names = [f"f{self.fg}"] if self.fg >= 0 else []
        names += [f"b{self.bg}"] if self.bg >= 0 else []
        return " ".join(names + sorted(self.flags))

    @property
    def sgr(self) -> str:
        """As the arguments of the escape that makes it, to go on from later."""
        codes = [str(code) for code, name in _FLAGS.items() if name in self.flags]
        codes += [f"38;5;{self.fg}"] if self.fg >= 0 else []
        return ";".join(codes + ([f"48;5;{self.bg}"] if self.bg >= 0 else []))


PLAIN = Style()


def style(args: str, before: Style = PLAIN) -> Style:
    """The style after `ESC[<args>m`."""
    codes = [int(code) if code.isdigit() and len(code) < 6 else 0 for code in re.split("[;:]", args)]
    at = iter(codes)
    now = before
    for code in at:
        now = _colour(code, at, now) if code >= 30 else _flag(code, now)
    return now


def _flag(code: int, now: Style) -> Style:
    if code == 0:
        return PLAIN
    if code in _FLAGS:
        return replace(now, flags=now.flags | {_FLAGS[code]})
    return replace(now, flags=now.flags - set(_OFF.get(code, ())))


def _colour(code: int, rest: Iterator[int], now: Style) -> Style:
    base, index = code // 10 * 10, code % 10
    if base in (90, 100) and index < 8:
        return replace(now, fg=index + 8) if base == 90 else replace(now, bg=index + 8)
    if base not in (30, 40):
        return now
    value = index if index < 8 else -1
    if index == 8:
        value = _extended(rest)
    return replace(now, fg=value) if base == 30 else replace(now, bg=value)


def _extended(rest: Iterator[int]) -> int:
    kind = next(rest, 0)
    if kind == 5:
        return min(next(rest, 0), 255)
    if kind == 2:
        return nearest(next(rest, 0), next(rest, 0), next(rest, 0))
    return -1


def nearest(red: int, green: int, blue: int) -> int:
    """The colour of the palette's cube or greys that is closest to a true colour."""
    wanted = tuple(min(part, 255) for part in (red, green, blue))
    cube = [0 if part < 48 else 1 if part < 115 else (part - 35) // 40 for part in wanted]
    grey = min(max((sum(wanted) // 3 - 3) // 10, 0), 23)
    options = (16 + 36 * cube[0] + 6 * cube[1] + cube[2], 232 + grey)
    return min(options, key=lambda one: sum((a - b) ** 2 for a, b in zip(palette(one), wanted, strict=True)))


def palette(number: int) -> tuple[int, int, int]:
    """Red, green and blue of a colour from 16 to 255; the first 16 are the style sheet's."""
    if number >= 232:
        grey = 8 + 10 * (number - 232)
        return grey, grey, grey
    steps = (0, 95, 135, 175, 215, 255)
    number -= 16
    return steps[number // 36], steps[number // 6 % 6], steps[number % 6]


class Terminal:
    """Renders lines one after the other; the style carries over from line to line."""

    def __init__(self, sgr: str = "") -> None:
        self.style = style(sgr) if sgr else PLAIN

    def line(self, raw: bytes) -> list[Span]:
        """One line without its newline."""
        raw = raw.rstrip(b"\r")
        if len(raw) > MAX_RAW:
            raw = raw[-MAX_RAW:] if b"\r" in raw[-MAX_RAW:] else raw[:MAX_RAW]
        text = raw.decode("utf-8", "replace")
        if not text.isascii():
            text = text.translate(_BIDI)
        # What only goes on at its end, as nearly every line does, needs no cells.
        return self._cells(text) if _BACK.search(text) else self._pieces(text)

    def _pieces(self, raw: str) -> list[Span]:
        spans: list[tuple[Style, str]] = []
        left = MAX_LINE
        for piece in _PIECES.finditer(raw):
            if (text := piece["text"]) and left:
                spans.append((self.style, text[:left]))
                left -= len(spans[-1][1])
            elif piece["final"] == "m":
                self.style = style(piece["args"], self.style)
        return _spans(spans)

    def _cells(self, raw: str) -> list[Span]:
        cells: list[tuple[Style, str]] = []
        at = 0
        for piece in _PIECES.finditer(raw):
            if text := piece["text"]:
                text = text[: max(0, MAX_LINE - at)]
                cells[at : at + len(text)] = [(self.style, char) for char in text]
                at += len(text)
            elif piece["move"]:
                at = 0 if piece["move"] == "\r" else max(0, at - 1)
            elif piece["final"] == "m":
                self.style = style(piece["args"], self.style)
            elif piece["final"] == "K":
                cells = _erased(cells, at, piece["args"])
        return _spans(cells)


def _erased(cells: list[tuple[Style, str]], at: int, args: str) -> list[tuple[Style, str]]:
    blank = [(PLAIN, " ")] * min(at, len(cells))
    if args == "1":
        return blank + cells[at:]
    return blank if args == "2" else cells[:at]


def _spans(pieces: Iterable[tuple[Style, str]]) -> list[Span]:
    spans: list[tuple[Style, list[str]]] = []
    for look, text in pieces:
        if spans and (spans[-1][0] is look or spans[-1][0] == look):
            spans[-1][1].append(text)
        else:
            spans.append((look, [text]))
    return [(look.classes, "".join(texts)) for look, texts in spans]


def html(spans: Sequence[Span]) -> Markup:
    """Spans as HTML; the text is inert."""
    return Markup("").join(
        Markup('<span class="{}">{}</span>').format(names, text) if names else escape(text) for names, text in spans
    )


def stylesheet() -> str:
    """Rules for the colours 16 to 255; those below and the flags stand in the pages' own style sheet."""
    rules = []
    for number in range(16, 256):
        colour = "#{:02x}{:02x}{:02x}".format(*palette(number))
        rules.append(f".log .f{number}{{color:{colour}}}.log .b{number}{{background-color:{colour}}}")
    return "\n".join(rules) + "\n"
