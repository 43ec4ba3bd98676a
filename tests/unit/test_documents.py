"""Files that people write: hostile ones are refused at once, wrong ones with the place and the remedy."""

from __future__ import annotations

import time
import tracemalloc

import pytest
from pydantic import BaseModel, ConfigDict

from cd.documents import MAX_BYTES, MAX_FAULTS, DocumentError, Fault, load


class Inner(BaseModel):
    model_config = ConfigDict(extra="forbid")
    width: int = 1
    height: int = 1


class Outer(BaseModel):
    model_config = ConfigDict(extra="forbid")
    text: str = ""
    number: float = 0.0
    flag: bool = False
    inner: Inner = Inner()
    many: dict[str, Inner] = {}
    row: list[str] = []


def faults(text: bytes | str) -> list[str]:
    with pytest.raises(DocumentError) as caught:
        load(text.encode() if isinstance(text, str) else text, Outer, "file.yml")
    return [str(fault) for fault in caught.value.faults]


BOMB = b"a: &a [x,x,x,x,x,x,x,x,x]\n" + b"".join(
    b"%c: &%c [%s]\n" % (c, c, b",".join([b"*%c" % (c - 1)] * 9)) for c in range(ord("b"), ord("j"))
)
WIDE_BOMB = (
    b"a: &a [" + b",".join([b"x"] * 1000) + b"]\n"
    b"b: &b [" + b",".join([b"*a"] * 30) + b"]\nc: [" + b",".join([b"*b"] * 30) + b"]\n"
)  # fmt: skip


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(BOMB, ["9:11: more than 64 aliases; write the values out"], id="alias bomb"),
        pytest.param(WIDE_BOMB, ["1:1900: too many values; write fewer aliases"], id="few aliases, many values"),
        pytest.param(b"row: &a [*a]", ["1:6: it contains itself by an alias; write the values out"], id="circle"),
        pytest.param(
            b"many: &a\n  x: *a\n", ["1:7: it contains itself by an alias; write the values out"], id="circle of maps"
        ),
        pytest.param(b"row: *nope\n", ["1:6: found undefined alias 'nope'"], id="unknown alias"),
        pytest.param(b"[" * 10_000, ["1:33: nested deeper than 32 levels; flatten it"], id="depth"),
        pytest.param(
            b"".join(b" " * i + b"a:\n" for i in range(600)),
            ["33:33: nested deeper than 32 levels; flatten it"],
            id="depth of maps",
        ),
        pytest.param(b"a" * (50 << 20), ["1:1: the file is over 256 KiB; make it smaller"], id="50 MB"),
        pytest.param(
            b"row: !!python/object/apply:os.system ['true']\n",
            ["1:6: the tag tag:yaml.org,2002:python/object/apply:os.system is not allowed; remove the tag"],
            id="python object",
        ),
        pytest.param(b"row: !mine []\n", ["1:6: the tag !mine is not allowed; remove the tag"], id="local tag"),
    ],
)
def test_hostile_files_are_refused_in_a_second_and_little_memory(text: bytes, expected: list[str]) -> None:
    tracemalloc.start()
    try:
        assert faults(text) == expected
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()


def test_a_long_file_costs_about_a_second() -> None:
    before = time.process_time()
    assert faults(b"- x\n" * 60_000) == ["30000:3: more than 30000 keys and values; make the file smaller"]
    assert time.process_time() - before < 3  # a busy small machine takes 0.8


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("many:\n\ta: {}\n", ["2:1: found character '\\t' that cannot start any token; indent with spaces"]),
        ("many:\n  a: {}\n  b: {}\n  a: {}\n", ["4:3: 'a' stands here twice; remove one of the two"]),
        ("text: x\ntext: y\nnumber: z\nnumber: 1\n",
         ["2:1: 'text' stands here twice; remove one of the two",
          "4:1: 'number' stands here twice; remove one of the two"]),
        ("text: x\n---\ntext: y\n", ["2:1: a second document begins here; keep one document"]),
        ("- a\n", ["1:1: the file must be a mapping; begin with a key such as `stages:`"]),
        ("many:\n  a: &a {width: 1}\n  b:\n    <<: *a\n",
         ["4:5: merge keys are not supported; write the values out"]),
        ("? [a, b]\n: x\n", ["1:3: a key must be text"]),
        ("text: 'open\n", ["2:1: found unexpected end of stream"]),
        (b"text: a\nrow: [\xe9]\n", ["2:7: not UTF-8 text; save the file as UTF-8"]),
        (b"text: a\nrow:  \x00\n", ["2:7: a character that YAML does not allow; remove it"]),
        ('text: "a\\0b"\n', ["1:7: it has a NUL or half a character in it; remove the escape"]),
        ('text: "\\ud800"\n', ["1:7: it has a NUL or half a character in it; remove the escape"]),
        ('many: {"\\0": {}}\n', ["1:8: it has a NUL or half a character in it; remove the escape"]),
    ],
)  # fmt: skip
def test_syntax_faults_tell_line_and_column(text: bytes | str, expected: list[str]) -> None:
    assert faults(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("txet: a\n", ["1:1: unknown key 'txet'; did you mean 'text'?"]),
        ("many:\n  a:\n    widht: 1\n", ["3:5: unknown key 'widht'; did you mean 'width'?"]),
        ("inner:\n  zzzz: 1\n", ["2:3: unknown key 'zzzz'; known here: height, width"]),
        ("inner:\r\n  widht: 1\r\n", ["2:3: unknown key 'widht'; did you mean 'width'?"]),
        ("\ufeffinner:\n  widht: 1\n", ["2:3: unknown key 'widht'; did you mean 'width'?"]),
        ("text: 5\n", ["1:7: text: this must be text; write it in quotes"]),
        ("row: [a, 5]\n", ["1:10: row.1: this must be text; write it in quotes"]),
        ("many:\n  a:\n  b: {}\n", ["2:3: many.a: this must be a mapping; write `key: value` below it, or remove it"]),
        ("inner: 5\n", ["1:8: inner: this must be a mapping; write `key: value` below it, or remove it"]),
        ("number: .inf\nmore: 1\ninner: {widht: 1}\n",
         ["2:1: unknown key 'more'; known here: flag, inner, many, number, row, text",
          "3:9: unknown key 'widht'; did you mean 'width'?"]),
    ],
)  # fmt: skip
def test_faults_of_meaning_tell_place_and_remedy(text: str, expected: list[str]) -> None:
    assert [one for one in faults(text) if "number" not in one.split(";")[0]] == expected


def test_all_faults_come_in_the_order_of_the_file() -> None:
    text = "number: x\ninner:\n  width: y\n  hieght: 1\ntext: []\n"
    assert [fault.split(": ")[0] for fault in faults(text)] == ["1:9", "3:10", "4:3", "5:7"]


def test_no_more_faults_than_a_person_reads() -> None:
    assert len(faults("\n".join(f"k{n}: x" for n in range(2000)))) == MAX_FAULTS


def test_scalars_are_read_as_yaml_1_2_has_them() -> None:
    text = "text: on\nnumber: 0x10\nflag: true\nrow: ['yes', no, \"1\", 2026-01-01]\n"
    assert load(text.encode(), Outer, "f") == Outer(
        text="on", number=16, flag=True, row=["yes", "no", "1", "2026-01-01"]
    )


def test_empty_files_are_all_defaults() -> None:
    for text in (b"", b"# only a comment\n", b"---\n...\n", b"\n" * 1000):
        assert load(text, Outer, "f") == Outer()


def test_just_small_enough_is_read() -> None:
    text = b"text: a\n#" + b"x" * (MAX_BYTES - 9)
    assert len(text) == MAX_BYTES
    assert load(text, Outer, "f").text == "a"


def test_the_message_names_file_and_place() -> None:
    error = DocumentError("a.yml", [Fault(2, 3, "wrong", "mend it"), Fault(1, 9, "bad")])
    assert str(error) == "a.yml:1:9: bad\na.yml:2:3: wrong; mend it"
    assert error.status == 400
