"""Server-sent events: in order, none lost, none twice, whatever breaks off in between."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from itertools import islice
from typing import Any

import pytest
import redis
from flask import Flask
from flask.testing import FlaskClient
from redis.backoff import NoBackoff
from redis.retry import Retry

from cd.pipeline.records import Project
from cd.store import events
from cd.store.records import Event
from cd.web import live
from cd.wiring import Services


def happen(services: Services, *kinds: str, project_id: int | None = None) -> None:
    for kind in kinds:
        with services.database.write() as session:
            events.append(session, kind, project_id=project_id, subject=7, note="a\nb")


def parsed(frame: str) -> dict[str, Any]:
    fields = dict(line.split(": ", 1) for line in frame.strip().split("\n"))
    return {"id": int(fields["id"]), "event": fields.get("event"), "data": json.loads(fields.get("data", "{}"))}


def frames(chunks: Iterator[str]) -> Iterator[dict[str, Any]]:
    """Events of a stream; what only moves the cursor is left out."""
    for chunk in chunks:
        for frame in chunk.split("\n\n"):
            if "event: " in frame:
                yield parsed(frame)


@pytest.fixture
def hub(services: Services) -> Iterator[live.Hub]:
    made = live.Hub(services.database, services.redis)
    yield made
    made.close()


def everything(_: Event) -> bool:
    return True


def kinds(found: Iterator[dict[str, Any]], count: int) -> list[str]:
    return [frame["event"] for frame in islice(found, count)]


def test_what_was_before_and_what_comes_arrive_in_order(services: Services, hub: live.Hub) -> None:
    happen(services, "run.queued", "run.running")
    stream = frames(hub.stream(0, everything))
    assert kinds(stream, 2) == ["run.queued", "run.running"]
    happen(services, "run.passed")
    last = next(stream)
    assert last["event"] == "run.passed"
    assert last["data"]["note"] == "a\nb"
    assert last["data"]["subject"] == 7


def test_a_stream_goes_on_where_the_one_before_broke_off(services: Services, hub: live.Hub) -> None:
    happen(services, *(f"e.{number}" for number in range(10)))
    first = frames(hub.stream(0, everything))
    seen = list(islice(first, 4))
    first.close()  # type: ignore[attr-defined]
    happen(services, "e.10", "e.11")
    assert kinds(frames(hub.stream(seen[-1]["id"], everything)), 8) == [f"e.{number}" for number in range(4, 12)]


def test_more_than_is_kept_is_read_from_the_database(services: Services, hub: live.Hub) -> None:
    with services.database.write() as session:
        for number in range(live.KEPT + 600):
            events.append(session, f"e.{number}", project_id=None)
    ids = [frame["id"] for frame in islice(frames(hub.stream(0, everything)), live.KEPT + 600)]
    assert ids == sorted(set(ids))
    assert len(ids) == live.KEPT + 600


def test_an_id_from_the_future_does_not_silence_the_stream(services: Services, hub: live.Hub) -> None:
    happen(services, "old")
    stream = frames(hub.stream(10_000, everything))
    got: list[str] = []
    reader = threading.Thread(target=lambda: got.extend(kinds(stream, 1)))
    reader.start()
    # Before the stream has looked, or after: the new event comes either way, the old one never.
    while reader.is_alive():
        happen(services, "new")
        reader.join(0.2)
    assert got == ["new"]


def test_a_life_ends_and_says_where_it_stood(services: Services, hub: live.Hub) -> None:
    happen(services, "not.wanted", "not.wanted")
    chunks = list(hub.stream(0, lambda _: False, life=0.0))
    assert chunks == ["id: 2\n\n"]


def test_many_streams_share_one_thread_which_ends_with_them(services: Services, hub: live.Hub) -> None:
    streams = [frames(hub.stream(0, everything)) for _ in range(20)]
    happen(services, "a")
    assert [kinds(stream, 1) for stream in streams] == [["a"]] * 20
    assert sum(thread.name == "events" for thread in threading.enumerate()) == 1
    listener = next(thread for thread in threading.enumerate() if thread.name == "events")
    for stream in streams:
        stream.close()  # type: ignore[attr-defined]
    listener.join(10)
    assert not listener.is_alive()
    happen(services, "b")
    assert kinds(frames(hub.stream(1, everything)), 1) == ["b"]


def test_without_redis_it_is_only_later(services: Services) -> None:
    away = redis.Redis(unix_socket_path="/nonexistent", retry=Retry(NoBackoff(), 0))
    hub = live.Hub(services.database, away)
    stream = frames(hub.stream(0, everything))
    happen(services, "a")
    assert kinds(stream, 1) == ["a"]
    happen(services, "b")
    assert kinds(stream, 1) == ["b"]
    hub.close()


def test_the_api_resumes_by_header(services: Services, clients: dict[str, FlaskClient], project: Project) -> None:
    happen(services, "run.passed", project_id=project.id)
    happen(services, "other.thing")
    with services.database.read() as session:
        newest = events.newest(session)
    cursor = {"Last-Event-ID": str(newest - 2)}
    with clients["viewer"].get("/api/v1/events", headers=cursor, buffered=False) as answer:
        assert answer.mimetype == "text/event-stream"
        assert answer.headers["X-Accel-Buffering"] == "no"
        texts = (chunk.decode() if isinstance(chunk, bytes) else chunk for chunk in answer.iter_encoded())
        assert next(texts) == "retry: 1000\n\n"
        assert kinds(frames(texts), 2) == ["run.passed", "other.thing"]
    with clients["viewer"].get("/api/v1/events?project=demo&after=0", buffered=False) as answer:
        texts = (chunk.decode() if isinstance(chunk, bytes) else chunk for chunk in answer.iter_encoded())
        assert kinds(frames(texts), 2) == ["project.created", "run.passed"]


@pytest.mark.parametrize("cursor", ["x", "-1", "1.5", "9" * 30])
def test_a_cursor_that_is_none_is_refused(clients: dict[str, FlaskClient], cursor: str) -> None:
    answer = clients["viewer"].get("/api/v1/events", headers={"Last-Event-ID": cursor})
    assert answer.status_code == 400


def test_without_a_cursor_the_stream_begins_now(services: Services, app: Flask) -> None:
    happen(services, "old")
    with app.test_request_context("/api/v1/events"):
        stream = frames(live.stream(None, everything))
    happen(services, "new")
    assert kinds(stream, 1) == ["new"]
    stream.close()  # type: ignore[attr-defined]
