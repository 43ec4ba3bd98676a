"""JUnit reports, whoever wrote them: read piece by piece, with entities refused and memory that does not grow.

What a test case means is junitparser's to say. It is given one case at a time, made of nothing but what counts; the
XML is read by expat itself, since a report is as untrusted as the code that it tells of.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from xml.etree.ElementTree import TreeBuilder
from xml.parsers import expat

import junitparser

from cd.errors import UserError

#: Longest name and longest text of a case that are kept, in characters. Of a longer text the middle is left out.
NAME_CHARS = 1000
TEXT_CHARS = 16_000
#: Text within one case that is looked at at all, and results within it.
CASE_CHARS = 4_000_000
CASE_PARTS = 50

_PARTS = frozenset({"failure", "error", "skipped", "system-out", "system-err"})
#: The attributes that are looked at.
_TOLD = frozenset({"name", "classname", "time", "message", "type"})
#: The worse state counts where a case has several.
WORSE = ("skipped", "passed", "failed", "error")


class BadReport(UserError):
    """It is no JUnit report, or a damaged one."""


@dataclass(frozen=True)
class Case:
    """One test case. `state` is passed, failed, error or skipped; `text` what is said of the last three."""

    classname: str
    name: str
    state: str
    seconds: float
    text: str = ""


class Reader:
    """Takes one report in pieces; `cases` and `suites` grow as it goes."""

    def __init__(self) -> None:
        self.cases: list[Case] = []
        self.suites = 0
        self._open: list[str] = []
        self._suite_names: list[str] = []
        self._case: TreeBuilder | None = None
        self._part = False
        self._parts = self._chars = 0
        parser: Any = expat.ParserCreate()
        parser.buffer_text = True
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._text
        parser.EntityDeclHandler = _refuse_entity
        self._parser = parser

    def feed(self, piece: bytes, last: bool = False) -> None:
        """Go on with it. Raises BadReport."""
        try:
            self._parser.Parse(piece, last)
        except (expat.ExpatError, LookupError, ValueError) as error:
            raise BadReport(f"it is no XML: {error}") from error

    def _start(self, tag: str, attributes: dict[str, str]) -> None:
        tag = tag.rpartition(":")[2]
        if not self._open and tag not in ("testsuites", "testsuite"):
            raise BadReport(f"it is no JUnit report: it begins with <{tag}>")
        self._open.append(tag)
        if self._case is not None:
            self._parts += 1
            self._part = tag in _PARTS and self._open[-2] == "testcase" and self._parts <= CASE_PARTS
            if self._part:
                self._case.start(tag, _told(attributes))
        elif tag == "testsuite":
            self.suites += 1
            self._suite_names.append(attributes.get("name", ""))
        elif tag == "testcase":
            self._case, self._parts, self._chars = TreeBuilder(), 0, 0
            self._case.start(tag, _told(attributes))

    def _end(self, tag: str) -> None:
        tag = self._open.pop()
        if self._case is None:
            if tag == "testsuite":
                self._suite_names.pop()
        elif tag == "testcase" and "testcase" not in self._open:
            self._case.end(tag)
            suite = self._suite_names[-1] if self._suite_names else ""
            case: Any = junitparser.TestCase
            self.cases.append(_case(case.fromelem(self._case.close()), suite))
            self._case = None
        elif self._part:
            self._part = False
            self._case.end(tag)

    def _text(self, text: str) -> None:
        if self._part and self._case is not None and self._chars < CASE_CHARS:
            self._chars += len(text)
            self._case.data(text)


def _refuse_entity(name: str, *_: object) -> None:
    raise BadReport(f"it declares an entity ({name}), which no report needs")


def _told(attributes: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in attributes.items() if name in _TOLD}


def _case(case: Any, suite: str) -> Case:
    results = case.result
    state = max((_state(one) for one in results), key=WORSE.index, default="passed")
    lines = [part for one in results for part in _said(one)]
    if state in ("failed", "error"):
        lines += [f"--- {name} ---\n{text}" for name, text in _output(case) if text and text.strip()]
    return Case(
        classname=case.classname if case.classname is not None else suite,
        name=case.name or "",
        state=state,
        seconds=_seconds(case),
        text="\n".join(lines),
    )


def _state(result: Any) -> str:
    if isinstance(result, junitparser.Error):
        return "error"
    return "failed" if isinstance(result, junitparser.Failure) else "skipped"


def _said(result: Any) -> Iterator[str]:
    """Its message, unless that only repeats how its text begins; then its text."""
    message, text = (result.message or "").strip(), (result.text or "").strip()
    head = text.partition("\n")[0]
    if message and not (head and message.startswith(head)) and not text.startswith(message):
        yield message
    if text:
        yield text
    elif not message and result.type:
        yield str(result.type)


def _output(case: Any) -> Iterator[tuple[str, str | None]]:
    yield "output", case.system_out
    yield "errors", case.system_err


def _seconds(case: Any) -> float:
    """Of what can't be a time nothing is made; a time that goes back is none."""
    try:
        seconds = float(case.time or 0.0)
    except ValueError:
        return 0.0
    return max(0.0, seconds) if math.isfinite(seconds) else 0.0


def shortened(text: str, most: int) -> str:
    """A text with its middle left out where it is longer than `most` characters."""
    if len(text) <= most:
        return text
    half = most // 2
    return f"{text[:half]}\n… {len(text) - 2 * half} characters left out …\n{text[-half:]}"
