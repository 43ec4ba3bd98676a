"""Logs of steps on both databases, with a real Redis, and without one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis
import rows
from redis.backoff import NoBackoff
from redis.retry import Retry
from sqlalchemy import select

from cd.errors import ServiceError, StaleWrite
from cd.pipeline import logwriter as module
from cd.pipeline.logs import LogStore
from cd.pipeline.logwindow import LINE_BYTES
from cd.pipeline.logwriter import CHUNK_BYTES
from cd.pipeline.records import LogChunk, Step
from cd.store.database import Database


@pytest.fixture
def store(database: Database, redis_client: redis.Redis, tmp_path: Path) -> LogStore:
    return LogStore(database, redis_client, f"file://{tmp_path}/blobs")


@pytest.fixture
def step(database: Database) -> int:
    with database.write() as session:
        run = rows.run(session, rows.project(session))
        return session.scalars(select(Step.id).where(Step.run_id == run.id)).one()


@pytest.fixture
def without_redis(database: Database, tmp_path: Path) -> Iterator[LogStore]:
    with redis.Redis(unix_socket_path=str(tmp_path / "nobody.sock"), retry=Retry(NoBackoff(), 0)) as nobody:
        yield LogStore(database, nobody, f"file://{tmp_path}/blobs")


def stored(store: LogStore, step: int, start: int = 0, attempt: int = 1) -> bytes:
    with store._database.read() as session:
        return b"".join(store.read(session, step, attempt, start))


def chunks(database: Database) -> list[LogChunk]:
    with database.read() as session:
        return list(session.scalars(select(LogChunk).order_by(LogChunk.start)))


def follow(store: LogStore, step: int, start: int = 0, wait: float = 0.3) -> bytes:
    """What a page sees; fails when a piece does not begin where the one before it ended."""
    text = b""
    for position, data in store.follow(step, 1, start, wait):
        assert position == start + len(text)
        text += data
    return text


def test_what_is_written_is_stored_when_the_writer_is_left(store: LogStore, step: int) -> None:
    with store.writer(step, 1, 1) as writer:
        assert writer.position == 0
        for number in range(100):
            writer.write(b"line %d\n" % number)
    assert stored(store, step) == b"".join(b"line %d\n" % number for number in range(100))
    assert stored(store, step, start=7) == stored(store, step)[7:]
    with store._database.read() as session:
        assert store.size(session, step, 1) == (790, 100)
        assert store.size(session, step, 2) == (0, 0)


def test_attempts_have_logs_of_their_own(store: LogStore, step: int) -> None:
    for attempt in (1, 2):
        with store.writer(step, attempt, attempt) as writer:
            writer.write(b"attempt %d\n" % attempt)
    assert [stored(store, step, attempt=attempt) for attempt in (1, 2)] == [b"attempt 1\n", b"attempt 2\n"]


def test_a_worker_that_takes_over_goes_on_where_the_stored_log_ends(
    store: LogStore, step: int, database: Database
) -> None:
    """The first one dies with bytes that were never stored: the container still has them."""
    output = b"".join(b"line %d\n" % number for number in range(50))
    with store.writer(step, 1, 1) as first:
        first.write(output[:100])
    dead = store.writer(step, 1, 2)
    dead._buffer += output[100:130]  # killed before its thread stored it
    with store.writer(step, 1, 3) as writer:
        assert writer.position == 100
        writer.write(output[writer.position :])
    assert stored(store, step) == output
    end, lines = 0, 0
    for chunk in chunks(database):
        assert (chunk.start, chunk.first_line) == (end, lines)
        end, lines = end + chunk.size, lines + chunk.lines
    assert (end, lines) == (len(output), 50)


def test_two_writers_at_the_same_place_are_one_too_many(store: LogStore, step: int) -> None:
    """One that was halted past its lease comes back when another one went on: its bytes are not stored twice."""
    halted = store.writer(step, 1, 1)
    with store.writer(step, 1, 2) as newer:
        newer.write(b"from the newer one\n")
    with pytest.raises(StaleWrite, match="has another writer"), halted:
        halted.write(b"from the halted\n")
    assert stored(store, step) == b"from the newer one\n"


def test_any_window_of_lines(store: LogStore, step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK_BYTES", 64)  # lines lie across the borders of chunks
    lines = [b"%d " % number + b"x" * (number * 7 % 50) for number in range(100)]
    with store.writer(step, 1, 1) as writer:
        writer.write(b"\n".join(lines))
    with store._database.read() as session:
        for first in (0, 1, 37, 98, 99):
            for count in (1, 2, 50, 1000):
                window = store.window(session, step, 1, first, count)
                assert (window.first, list(window.lines)) == (first, lines[first : first + count])
                assert window.total == 100
        assert list(store.window(session, step, 1, -3, 10).lines) == lines[-3:]
        assert list(store.window(session, step, 1, 100, 5).lines) == []
        assert list(store.window(session, step, 1, -1000, 2).lines) == lines[:2]


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        (b"", []),
        (b"a", [b"a"]),
        (b"a\n", [b"a"]),
        (b"\n", [b""]),
        (b"a\n\n\nb\n", [b"a", b"", b"", b"b"]),
        (b"\xff\x00\x1b[31m\r\n", [b"\xff\x00\x1b[31m\r"]),
    ],
)
def test_what_a_line_is(store: LogStore, step: int, text: bytes, lines: list[bytes]) -> None:
    with store.writer(step, 1, 1) as writer:
        writer.write(text)
    with store._database.read() as session:
        window = store.window(session, step, 1, 0, 10)
    assert (list(window.lines), window.total) == (lines, len(lines))


def test_a_line_of_many_megabytes(store: LogStore, step: int, database: Database) -> None:
    piece = bytes(range(11, 111)) * 1000
    with store.writer(step, 1, 1) as writer:
        writer.write(b"first\n")
        for _ in range(35):
            writer.write(piece)
        writer.write(b"\nlast\n")
    assert max(chunk.size for chunk in chunks(database)) <= CHUNK_BYTES
    with database.read() as session:
        window = store.window(session, step, 1, 1, 2)
    assert window.total == 3
    more = 35 * len(piece) - LINE_BYTES
    assert list(window.lines) == [
        (piece * 35)[:LINE_BYTES] + f" … {more:,} more bytes, see the raw log".encode(),
        b"last",
    ]
    assert b"".join(stored(store, step).split(b"\n")[1:2]) == piece * 35, "the raw log has all of it"


def test_times_of_lines_are_those_of_the_engine(store: LogStore, step: int, database: Database) -> None:
    with store.writer(step, 1, 1) as writer:
        writer.write(b"a\nb\nc", [(0, 10**9), (2, 2 * 10**9)])
        writer.write(b"c\nd\n", [(2, 5 * 10**9)])
    with database.read() as session:
        window = store.window(session, step, 1, 1, 10)
        assert store.resume(session, step, 1, 8) == (5 * 10**9, 7)
    assert (list(window.lines), list(window.times)) == ([b"b", b"cc", b"d"], [2 * 10**9, 2 * 10**9, 5 * 10**9])


@pytest.mark.parametrize("died_at", range(8, 23, 2))
def test_a_secret_is_masked_wherever_its_writer_died(store: LogStore, step: int, died_at: int) -> None:
    text, secret = b"token is s3cr3t-t0k3n, really\nand more\n", "s3cr3t-t0k3n"
    first = store.writer(step, 1, 1, [secret])
    with first:
        first.write(text[:died_at])
        first._masker.flush = lambda: b""  # type: ignore[method-assign]  # a killed worker flushes nothing
    with store.writer(step, 1, 2, [secret]) as second:
        assert second.position <= second.resumed
        second.write(text[second.position :])
    assert stored(store, step) == text.replace(secret.encode(), b"*" * len(secret))


def together_with_a_reader(store: LogStore, step: int, write: Callable[[], None], start: int = 0) -> bytes:
    seen: list[bytes] = []
    reader = threading.Thread(target=lambda: seen.append(follow(store, step, start, wait=2)))
    reader.start()
    write()
    reader.join()
    return seen[0]


def test_a_page_sees_each_byte_once_while_it_is_written(store: LogStore, step: int) -> None:
    output = b"".join(b"line %d\n" % number for number in range(20_000))

    def write() -> None:
        with store.writer(step, 1, 1) as writer:
            for at in range(0, len(output), 1000):
                writer.write(output[at : at + 1000])

    assert together_with_a_reader(store, step, write) == output


def test_a_page_goes_on_from_where_it_was(store: LogStore, step: int) -> None:
    with store.writer(step, 1, 1) as writer:
        writer.write(b"0123456789")
    assert follow(store, step, start=4) == b"456789"
    assert follow(store, step, start=10) == b""


def test_live_bytes_come_before_they_are_stored(store: LogStore, step: int, database: Database) -> None:
    """A chunk is late by a second at most, a line by a tenth of it."""
    store.publish(step, 1, 0, b"live ")
    store.publish(step, 1, 5, b"and quick")
    assert chunks(database) == []
    assert follow(store, step) == b"live and quick"
    assert follow(store, step, start=7) == b"d quick"


def test_what_redis_forgot_comes_from_the_store(store: LogStore, step: int, redis_client: redis.Redis) -> None:
    with store.writer(step, 1, 1) as writer:
        writer.write(b"0123456789")
    pages = store.follow(step, 1, 0, wait=0.3)
    assert next(pages) == (0, b"0123456789")
    redis_client.flushall()
    with store.writer(step, 1, 2) as writer:
        writer.write(b"abcdef")
    redis_client.flushall()
    store.publish(step, 1, 16, b"GHI")
    assert list(pages) == [(10, b"abcdef"), (16, b"GHI")]


def test_without_redis_the_stored_log_is_all_there_is(without_redis: LogStore, step: int) -> None:
    with without_redis.writer(step, 1, 1) as writer:
        writer.write(b"a\n")
    assert stored(without_redis, step) == b"a\n"
    assert follow(without_redis, step) == b"a\n"


def test_redis_going_away_and_coming_back_loses_no_byte(
    store: LogStore, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish, calls = store.publish, iter(range(1000))

    def sometimes(*piece: int | bytes) -> None:
        if next(calls) % 3 == 1:
            raise redis.ConnectionError
        publish(*piece)  # type: ignore[arg-type]

    monkeypatch.setattr(store, "publish", sometimes)
    monkeypatch.setattr(module, "LIVE_SECONDS", 0.0)  # as many pieces as there can be
    output = b"".join(b"line %d\n" % number for number in range(20_000))

    def write() -> None:
        with store.writer(step, 1, 1) as writer:
            for at in range(0, len(output), 3000):
                writer.write(output[at : at + 3000])

    assert together_with_a_reader(store, step, write) == output


def test_a_disk_that_refuses_stops_who_writes(store: LogStore, step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store._files, "pipe_file", full)
    with pytest.raises(ServiceError, match="No space left"), store.writer(step, 1, 1) as writer:
        writer.write(b"x" * 10 * CHUNK_BYTES)


def test_a_flood_is_seen_whole_and_does_not_go_through_redis(
    store: LogStore, step: int, redis_client: redis.Redis
) -> None:
    block = b"".join(b"line %d\n" % number for number in range(20_000))

    def write() -> None:
        with store.writer(step, 1, 1) as writer:
            for _ in range(60):
                writer.write(block)

    assert together_with_a_reader(store, step, write) == block * 60
    (stream,) = redis_client.keys("towpath:log:*")
    assert redis_client.memory_usage(stream, samples=0) < len(block) * 60 / 10
