"""Terminal output as spans: colours stay, everything else that is not text goes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ui.ansi import MAX_LINE, Style, Terminal, html, nearest, palette, style, stylesheet

FIXTURES = Path(__file__).parents[4] / "shared" / "fixtures" / "ansi"


def text(raw: bytes) -> str:
    return "".join(part for _, part in Terminal().line(raw))


@pytest.mark.parametrize(
    "args, classes",
    [
        ("31", "f1"),
        ("1;32", "f2 bold"),
        ("91;44", "f9 b4"),
        ("38;5;208", "f208"),
        ("48;2;255;0;0", "b196"),
        ("38;2;0;0;0;1", "f16 bold"),
        ("38:5:12", "f12"),
        ("0", ""),
        ("", ""),
        ("31;39", ""),
        ("4;24;3", "italic"),
        ("38;5", "f0"),
        ("999", ""),
    ],
)
def test_sgr_becomes_classes(args: str, classes: str) -> None:
    assert style(args).classes == classes


def test_style_goes_on_to_the_next_line_and_can_be_resumed() -> None:
    terminal = Terminal()
    assert terminal.line(b"\x1b[1;35mone") == [("f5 bold", "one")]
    assert Terminal(terminal.style.sgr).line(b"two\x1b[0m three") == [("f5 bold", "two"), ("", " three")]


@pytest.mark.parametrize(
    "raw, shown",
    [
        (b" 10%\r 57%\r100%", "100%"),
        (b"long text\rshort", "shorttext"),
        (b"long text\r\x1b[Kshort", "short"),
        (b"abc\b\bX", "aXc"),
        (b"title\x1b]0;evil\x07 here", "title here"),
        (b"\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
        (b"\x1b[2J\x1b[3;4Hgone\x1b[A", "gone"),
        (b"bell\x07 nul\x00 del\x7f", "bell nul del"),
        ("caf\u00e9 \u202egnp.exe".encode(), "caf\u00e9 \ufffdgnp.exe"),
        (b"bad \xff byte", "bad \ufffd byte"),
        (b"cut \x1b[3", "cut 3"),
        (b"tab\there", "tab\there"),
    ],
)
def test_a_line_is_what_a_terminal_would_show(raw: bytes, shown: str) -> None:
    assert text(raw) == shown


def test_html_is_inert() -> None:
    shown = html(Terminal().line(b"\x1b[31m<script>alert(1)</script>\x1b[0m & \"'"))
    assert shown == '<span class="f1">&lt;script&gt;alert(1)&lt;/script&gt;</span> &amp; &#34;&#39;'


def test_long_lines_are_cut_and_progress_without_end_shows_its_end() -> None:
    assert len(text(b"x" * 10_000_000)) == MAX_LINE
    assert text(b"\r".join(b"%9d" % number for number in range(200_000))) == "   199999"


@given(st.binary(max_size=200))
def test_any_bytes_give_text_without_controls(raw: bytes) -> None:
    spans = Terminal().line(raw.replace(b"\n", b""))
    assert not re.search(r"[\x00-\x08\x0a-\x1f\x7f-\x9f]", "".join(part for _, part in spans))
    assert all(re.fullmatch(r"[a-z0-9 ]*", names) for names, _ in spans)


PARTS = (
    b"abc",
    b"<&> ",
    b"\t",
    b"\x1b[31m",
    b"\x1b[1;4m",
    b"\x1b[0m",
    b"\x1b]8;;u\x07",
    b"\xe2\x82\xac",
    b"\x07",
    b"\x1b[2J",
    b"\x1b",
)


@given(st.lists(st.sampled_from(PARTS), max_size=30))
def test_a_cursor_that_goes_back_and_writes_nothing_changes_nothing(parts: list[bytes]) -> None:
    raw = b"".join(parts)
    straight, back = Terminal(), Terminal()
    assert straight.line(raw) == back.line(raw + b"\b")
    assert straight.style == back.style


@given(st.integers(-1, 255), st.integers(-1, 255), st.sets(st.sampled_from(["bold", "dim", "inverse", "strike"])))
def test_a_style_survives_being_written_down(fg: int, bg: int, flags: set[str]) -> None:
    wanted = Style(fg, bg, frozenset(flags))
    assert style(wanted.sgr) == wanted


def test_true_colours_find_their_neighbour() -> None:
    for number in range(16, 256):
        assert palette(nearest(*palette(number))) == palette(number)
    assert ".log .f255{" in stylesheet()


@pytest.mark.skipif(not FIXTURES.is_dir(), reason=f"the recordings of real programs are not here: {FIXTURES}")
def test_recordings_of_real_programs() -> None:
    files = sorted(FIXTURES.glob("*.raw"))
    assert files
    for file in files:
        terminal, coloured = Terminal(), 0
        for line in file.read_bytes().split(b"\n"):
            spans = terminal.line(line)
            coloured += any(names for names, _ in spans)
            assert "\x1b" not in "".join(part for _, part in spans), file.name
        if b"\x1b[3" in file.read_bytes():
            assert coloured, file.name
