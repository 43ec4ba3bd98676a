from __future__ import annotations

import io
import json
from typing import Any

import httpx
import pytest

from cd.cli import output
from cd.cli.client import _error, part
from cd.cli.stepprinter import LONGEST, Lines, StepPrinter
from cd.documents import DocumentError
from cd.errors import Conflict, NotFound, ServiceError, Unauthorized, UserError


@pytest.mark.parametrize(
    ("line", "plain", "coloured"),
    [
        ("text", "text", "text"),
        ("\x1b[31mred\x1b[0m", "red", "\x1b[31mred\x1b[0m\x1b[0m"),
        ("\x1b]0;title\x07a\x1b]52;c;AAAA\x1b\\b", "ab", "ab"),
        ("\x1b[2J\x1b[1;1Hgone\x1b[K", "gone", "gone"),
        ("\x1b]0;never ended", "", ""),
        ("\x1bcreset \x1b(B\x1b", "reset ", "reset "),
        ("1%\r50%\r100%\r", "100%", "100%"),
        ("a\x00\x07\x08\x7f\x9b31mb", "a31mb", "a31mb"),
        ("\u202etxt.exe", "txt.exe", "txt.exe"),
        ("tab\there", "tab\there", "tab\there"),
    ],
)
def test_only_colours_of_a_log_reach_the_terminal(line: str, plain: str, coloured: str) -> None:
    assert output.log_line(line, colours=False) == plain
    assert output.log_line(line, colours=True) == coloured


def test_a_cell_is_one_harmless_line() -> None:
    assert output.plain("a\nb\tc\x1b[31m\x00[bold]") == "a b c[bold]"
    assert output.plain(None) == ""


def test_a_table_in_a_pipe_is_one_line_a_row(capsys: pytest.CaptureFixture[str]) -> None:
    output.table(("A", "B"), [("[red]x[/]", "y" * 300)], "nothing")
    heading, row = capsys.readouterr().out.splitlines()
    assert heading.split() == ["A", "B"]
    assert row.split() == ["[red]x[/]", "y" * 300]
    output.table(("A",), [], "nothing")
    assert capsys.readouterr().out == "nothing\n"


def test_lines_over_the_borders_of_chunks() -> None:
    lines = Lines()
    assert lines.add(b"one\ntw") == ["one"]
    assert lines.add("o é".encode()[:-1]) == []
    assert lines.add("é".encode()[-1:] + b"\n\nthree") == ["two é", ""]
    assert lines.add(b"", final=True) == ["three"]
    assert lines.add(b"", final=True) == []


def test_a_line_without_end_is_not_kept_for_ever() -> None:
    lines = Lines()
    pieces = [piece for _ in range(100) for piece in lines.add(b"x" * LONGEST)]
    assert {len(piece) for piece in pieces} == {LONGEST}
    assert len(lines.add(b"", final=True)) == 1


def test_steps_are_told_apart() -> None:
    stream = io.StringIO()
    printer = StepPrinter(["unit", "lint"], stream)
    printer.write("unit", b"a")
    printer.write("lint", b"b\n")
    printer.close()
    assert stream.getvalue() == "lint │ b\nunit │ a\n"


def answer(status: int, told: Any) -> Exception:
    content = told if isinstance(told, bytes) else json.dumps(told).encode()
    return _error(httpx.Response(status, content=content), "http://here", "env.yml")


@pytest.mark.parametrize(
    ("status", "kind"), [(400, UserError), (401, Unauthorized), (404, NotFound), (409, Conflict), (503, ServiceError)]
)
def test_problems_become_errors(status: int, kind: type[Exception]) -> None:
    error = answer(status, {"detail": "it is so", "remedy": "do that", "status": status})
    assert type(error) is kind
    assert str(error).startswith("it is so; ")


def test_faults_of_a_file_keep_their_places() -> None:
    fault = {"line": 3, "column": 5, "message": "unknown key 'x'", "remedy": "did you mean 'y'?"}
    error = answer(400, {"detail": "no", "faults": [fault]})
    assert isinstance(error, DocumentError)
    assert str(error) == "env.yml:3:5: unknown key 'x'; did you mean 'y'?"


@pytest.mark.parametrize("told", [b"<html>", b"", [], {"a": 1}])
def test_an_answer_of_something_else_says_so(told: Any) -> None:
    assert "not as Towpath does" in str(answer(502, told))


def test_a_name_is_one_part_of_a_path() -> None:
    assert part("a/../b?c#d") == "a%2F..%2Fb%3Fc%23d"
    for name in ("", ".", ".."):
        with pytest.raises(UserError):
            part(name)
