"""Logs on pages: a window of lines in colour, the same lines live, and the raw text."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from time import monotonic

from flask import Blueprint, Response, request
from flask.typing import ResponseReturnValue
from markupsafe import Markup
from sqlalchemy import select
from sqlalchemy.orm import Session

from cd.errors import NotFound, UserError
from cd.identity.people import Role
from cd.pipeline import logsearch
from cd.pipeline.queries import StepRow
from cd.pipeline.records import Project, Run, Step
from cd.pipeline.states import STEP
from cd.pipeline.timedlog import durations, stamp
from cd.units import format_seconds
from cd.web.context import access, services
from cd.wiring import Services
from ui import ansi
from ui.ansi import Span
from ui.pages.common import argument

#: Lines that a page shows at once; the rest is a link away.
LINES = 1000
#: Life of a stream, and how long it waits for more before it looks whether the step has ended; seconds.
LIFE, LOOK = 55.0, 1.0
#: Seconds before the next line that are worth telling, and that stand out.
SHORT, LONG = 0.1, 5.0
#: A line that is longer than this without an end is shown as it is so far; bytes.
OPEN_LINE = 1 << 16


@dataclass(frozen=True)
class Shown:
    """Lines of a log. `first` is the number of the first one, from 1; `at` says where a live view goes on."""

    lines: tuple[Markup, ...]
    first: int
    total: int
    attempt: int
    live: bool
    at: Place
    #: The line that was asked for.
    line: int | None = None
    #: Of each line; empty unless they were asked for.
    times: tuple[Time, ...] = ()

    @property
    def last(self) -> int:
        """Number of the last line shown."""
        return self.first + len(self.lines) - 1


@dataclass(frozen=True)
class Time:
    """When a line came, in RFC 3339, and how long it was until the next; empty where it is not known."""

    at: str
    took: str
    long: bool


@dataclass(frozen=True)
class Match:
    """A line of a search's answer."""

    line: int
    before: str
    found: str
    after: str


@dataclass(frozen=True)
class Search:
    """Answer of one look through a log; `next` is the cursor to go on from, `fault` what is wrong with the question."""

    text: str
    case: bool
    cursor: str
    matches: tuple[Match, ...] = ()
    next: str | None = None
    searched: int = 0
    fault: str = ""


@dataclass(frozen=True)
class Place:
    """Where a line begins: byte, number of lines before it, style carried over from them."""

    byte: int = 0
    line: int = 0
    sgr: str = ""

    def __str__(self) -> str:
        return f"{self.byte}:{self.line}:{self.sgr}"

    @staticmethod
    def parse(text: str) -> Place:
        """From its text; the beginning for what is none."""
        byte, _, rest = text.partition(":")
        line, _, sgr = rest.partition(":")
        good = byte.isascii() and byte.isdigit() and line.isascii() and line.isdigit() and len(text) < 200
        return Place(int(byte), int(line), sgr) if good else Place()


def register(pages: Blueprint) -> None:
    """The raw log and the live one."""
    base = "/projects/<slug>/runs/<int:number>/steps/<step>"
    pages.add_url_rule(f"{base}/log.txt", "raw_log", access(Role.viewer)(raw))
    pages.add_url_rule(f"{base}/log", "live_log", access(Role.viewer)(live))


def window(session: Session, step: StepRow, attempt: int | None, line: int | None, *, times: bool = False) -> Shown:
    """The lines around number `line`, with `times` if wanted; without one the end, which is where a failure stands."""
    attempt = min(attempt or step.attempt, step.attempt) or step.attempt
    first = -LINES if line is None else max(0, line - 1 - LINES // 2)
    size, newlines = services().logs.size(session, step.id, attempt)
    found = services().logs.window(session, step.id, attempt, first, LINES)
    newest = attempt == step.attempt and step.state == "running" and found.first + len(found.lines) >= found.total
    terminal = ansi.Terminal()
    lines, sgr = [], ""
    for raw_line in found.lines:
        sgr = terminal.style.sgr
        lines.append(ansi.html(terminal.line(raw_line)))
    unfinished = found.total > newlines and bool(found.lines)
    place = (
        Place(size - len(found.lines[-1]), newlines, sgr) if unfinished else Place(size, newlines, terminal.style.sgr)
    )
    told = tuple(map(_time, found.times, durations(found.times))) if times else ()
    return Shown(tuple(lines), found.first + 1, found.total, attempt, newest, place, line, told)


def _time(at: int, took: float | None) -> Time:
    shown = "" if took is None or took < SHORT else f"+{took:.3f}" if took < 10 else f"+{format_seconds(took)}"
    return Time(stamp(at).strip(), shown, took is not None and took >= LONG)


def search(step: StepRow, attempt: int) -> Search | None:
    """What the address asks to find in this log; None when it asks for nothing."""
    text, cursor = request.args.get("q", ""), request.args.get("cursor", "")
    case = request.args.get("case") == "1"
    if not text:
        return None
    parts = services()
    try:
        wanted = logsearch.pattern(text, case=case)
        found = logsearch.search(parts.database, parts.logs, step.id, attempt, wanted, cursor=cursor)
    except UserError as error:
        return Search(text, case, "", fault=str(error))
    matches = (Match(one.line, _plain(one.before), _plain(one.found), _plain(one.after)) for one in found.matches)
    return Search(text, case, cursor, tuple(matches), found.next, found.searched)


def _plain(data: bytes) -> str:
    return "".join(text for _, text in ansi.Terminal().line(data))


def raw(slug: str, number: int, step: str) -> ResponseReturnValue:
    """The whole log as text, escapes and all."""
    parts = services()
    with parts.database.read() as session:
        found = _step(session, slug, number, step)
    attempt = argument("attempt") or max(found.attempt, 1)
    answer = Response(_stored(parts, found.id, attempt), mimetype="text/plain; charset=utf-8")
    if argument("download"):
        name = re.sub("[^A-Za-z0-9._-]+", "-", f"{slug}-{number}-{step}-{attempt}.log")
        answer.headers.set("Content-Disposition", "attachment", filename=name)
    return answer


def _stored(parts: Services, step_id: int, attempt: int) -> Iterator[bytes]:
    """Chunk by chunk: a slow reader must not hold a transaction open."""
    start = 0
    while True:
        with parts.database.read() as session:
            data = next((piece for piece in parts.logs.read(session, step_id, attempt, start) if piece), b"")
        if not data:
            return
        yield data
        start += len(data)


def live(slug: str, number: int, step: str) -> ResponseReturnValue:
    """New lines as server-sent events, from `Last-Event-ID` or `?at=` on, until the step ends."""
    parts = services()
    with parts.database.read() as session:
        found = _step(session, slug, number, step)
    place = Place.parse(request.headers.get("Last-Event-ID") or request.args.get("at", ""))
    frames = _frames(parts, found.id, argument("attempt") or max(found.attempt, 1), place)
    answer = Response(chain(["retry: 1000\n\n"], frames), mimetype="text/event-stream")
    answer.headers["Cache-Control"] = "no-store"
    answer.headers["X-Accel-Buffering"] = "no"
    return answer


def _frames(parts: Services, step_id: int, attempt: int, place: Place) -> Iterator[str]:
    """Frames `lines` with [number, spans] of each line that is new or grew, and `end` when nothing follows."""
    screen = Screen(place)
    until = monotonic() + LIFE
    while monotonic() < until:
        with parts.database.read() as session:
            step = session.get_one(Step, step_id)
        ended = step.state in STEP.terminal or step.attempt > attempt
        quiet = True
        for position, data in parts.logs.follow(step_id, attempt, screen.end, 0.01 if ended else LOOK):
            changed = screen.take(position, data)
            quiet = False
            yield f"id: {screen.place}\nevent: lines\ndata: {json.dumps(changed, separators=(',', ':'))}\n\n"
            if monotonic() >= until and not ended:
                return
        if ended:
            yield "event: end\ndata: {}\n\n"
            return
        if quiet:
            yield ": still here\n\n"


class Screen:
    """Turns bytes as they come into numbered lines; the last one is shown again as it grows."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.end = place.byte
        self._terminal = ansi.Terminal(place.sgr)
        self._open = bytearray()

    def take(self, position: int, data: bytes) -> list[tuple[int, list[Span]]]:
        """Numbers from 1 and spans of the lines that these bytes made or changed."""
        self.end = position + len(data)
        *whole, rest = (bytes(self._open) + data).split(b"\n")
        lines = [(self.place.line + 1 + index, self._terminal.line(line)) for index, line in enumerate(whole)]
        if whole:
            self.place = Place(self.end - len(rest), self.place.line + len(whole), self._terminal.style.sgr)
        self._open = bytearray(rest if len(rest) <= OPEN_LINE else rest[: OPEN_LINE // 2] + rest[-OPEN_LINE // 2 :])
        if rest:
            before = self._terminal.style
            lines.append((self.place.line + 1, self._terminal.line(bytes(self._open))))
            self._terminal.style = before
        return lines


def _step(session: Session, slug: str, number: int, name: str) -> Step:
    query = (
        select(Step)
        .join(Run, Run.id == Step.run_id)
        .join(Project, Project.id == Run.project_id)
        .where(Project.slug == slug, Project.deleted_at.is_(None), Run.number == number, Step.name == name)
    )
    found = session.scalar(query)
    if found is None:
        raise NotFound(f"run #{number} of {slug} has no step {name!r}", remedy="look at the run's page")
    return found
