"""Logs of steps: raw, followed, with times, and searched."""

from __future__ import annotations

from collections.abc import Iterator

from flask import Response
from pydantic import BaseModel, Field
from sqlalchemy import select

from cd.errors import NotFound
from cd.identity.people import Role
from cd.pipeline import logsearch
from cd.pipeline.records import Step
from cd.pipeline.states import STEP
from cd.pipeline.timedlog import timed
from cd.web.api import models
from cd.web.api.common import part, shown
from cd.web.api.runs import find
from cd.web.context import access, services
from cd.wiring import Services

api = part("logs")
#: Seconds that a followed log waits for more before it looks whether the step has ended.
LOOK = 1.0


class LogQuery(models.LogQuery):
    times: bool = Field(False, description="Each line behind its time and, in seconds, how long the next one took.")


class SearchQuery(BaseModel):
    q: str = Field(min_length=1, max_length=1000, description="Text of one line.")
    case: bool = Field(False, description="Tell capitals from small letters.")
    attempt: int | None = Field(None, ge=1, description="Default: the newest.")
    limit: int = Field(100, ge=1, le=1000, description="Lines at most.")
    cursor: str = Field("", max_length=80, description="`next` of the answer before.")


class LogMatch(BaseModel):
    line: int = Field(description="Number of the line, from 1.")
    position: int = Field(description="Byte of the log that the match begins at.")
    before: str
    found: str
    after: str


class LogMatches(BaseModel):
    items: list[LogMatch]
    next: str | None = Field(description="Cursor to go on from; null when the log was searched to its end.")
    searched: int = Field(description="Bytes that were looked at.")


@api.get("/projects/<slug>/runs/<int:number>/steps/<step>/log", responses={200: {"content": {"text/plain": {}}}})
@access(Role.viewer)
def step_log(path: models.StepPath, query: LogQuery) -> Response:
    """The raw log of a step, with `follow` until it ends; with `times` what is stored of it."""
    parts = services()
    step = _step(path)
    attempt = query.attempt or max(step.attempt, 1)
    if query.times:
        body = timed(parts.database, parts.logs, step.id, attempt)
    elif query.follow:
        body = _followed(parts, step.id, attempt, query.start)
    else:
        body = _stored(parts, step.id, attempt, query.start)
    return Response(body, mimetype="text/plain; charset=utf-8")


@api.get("/projects/<slug>/runs/<int:number>/steps/<step>/log/search", responses={200: LogMatches})
@access(Role.viewer)
def search_log(path: models.StepPath, query: SearchQuery) -> Response:
    """Lines of a log that hold a text. Ends within about a second; `next` goes on."""
    parts = services()
    step = _step(path)
    wanted = logsearch.pattern(query.q, case=query.case)
    found = logsearch.search(
        parts.database,
        parts.logs,
        step.id,
        query.attempt or max(step.attempt, 1),
        wanted,
        cursor=query.cursor,
        limit=query.limit,
    )
    items = [
        LogMatch(
            line=one.line,
            position=one.position,
            before=_text(one.before),
            found=_text(one.found),
            after=_text(one.after),
        )
        for one in found.matches
    ]
    return shown(LogMatches(items=items, next=found.next, searched=found.searched))


def _text(data: bytes) -> str:
    return data.decode(errors="replace")


def _step(path: models.StepPath) -> Step:
    with services().database.read() as session:
        run = find(session, path)
        step = session.scalar(select(Step).where(Step.run_id == run.id, Step.name == path.step))
    if step is None:
        raise NotFound(f"run #{path.number} has no step {path.step!r}")
    return step


def _stored(parts: Services, step_id: int, attempt: int, start: int) -> Iterator[bytes]:
    """Chunk by chunk: a slow reader must not hold a transaction open."""
    while True:
        with parts.database.read() as session:
            data = next((piece for piece in parts.logs.read(session, step_id, attempt, start) if piece), b"")
        if not data:
            return
        yield data
        start += len(data)


def _followed(parts: Services, step_id: int, attempt: int, start: int) -> Iterator[bytes]:
    """Everything until the step has ended; a further attempt begins after the one before."""
    while True:
        with parts.database.read() as session:
            step = session.get_one(Step, step_id)
        ended = step.state in STEP.terminal or step.attempt > attempt
        for position, data in parts.logs.follow(step_id, attempt, start, 0.01 if ended else LOOK):
            start = position + len(data)
            yield data
        if step.attempt > attempt:
            attempt, start = attempt + 1, 0
        elif ended:
            return
