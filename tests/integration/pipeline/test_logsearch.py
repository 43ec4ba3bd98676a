"""Search over a whole log, across chunk borders and calls; and a log told with times."""

from __future__ import annotations

from pathlib import Path

import pytest
import redis
import rows
from sqlalchemy import select

from cd.errors import UserError
from cd.pipeline import logsearch
from cd.pipeline.logs import LogStore
from cd.pipeline.logwriter import CHUNK_BYTES
from cd.pipeline.records import Step
from cd.pipeline.timedlog import timed
from cd.store.database import Database


@pytest.fixture
def store(database: Database, redis_client: redis.Redis, tmp_path: Path) -> LogStore:
    return LogStore(database, redis_client, f"file://{tmp_path}/blobs")


@pytest.fixture
def step(database: Database) -> int:
    with database.write() as session:
        run = rows.run(session, rows.project(session))
        return session.scalars(select(Step.id).where(Step.run_id == run.id)).one()


def test_every_line_is_found_once_over_chunks_and_calls(database: Database, store: LogStore, step: int) -> None:
    lines = [b"%07d Needle" % n if n % 1000 == 0 else b"%07d hay %s" % (n, b"x" * 40) for n in range(60_000)]
    data = b"\n".join(lines)
    data = data[: CHUNK_BYTES - 3] + b"needle" + data[CHUNK_BYTES + 3 :]
    expected = [at + 1 for at, line in enumerate(data.split(b"\n")) if b"needle" in line.lower()]
    with store.writer(step, 1, 1) as writer:
        writer.write(data)
    found: list[int] = []
    cursor: str | None = ""
    while cursor is not None:
        page = logsearch.search(
            database, store, step, 1, logsearch.pattern("nEEdle"), cursor=cursor, limit=7, most=CHUNK_BYTES
        )
        found += [one.line for one in page.matches]
        assert all(one.found.lower() == b"needle" for one in page.matches)
        cursor = page.next
    assert found == expected


def test_what_is_no_text_or_cursor_is_refused(database: Database, store: LogStore, step: int) -> None:
    for text in ("", "a\nb", "x" * 1001):
        with pytest.raises(UserError):
            logsearch.pattern(text)
    with pytest.raises(UserError, match="cursor"):
        logsearch.search(database, store, step, 1, logsearch.pattern("x"), cursor="1.2")


def test_lines_are_told_with_time_and_duration(database: Database, store: LogStore, step: int) -> None:
    with store.writer(step, 1, 1) as writer:
        writer.write(b"one\ntwo\n", [(0, 10**18), (4, 10**18 + 1_500_000_000)])
    said = b"".join(timed(database, store, step, 1)).decode().splitlines()
    assert said == ["2001-09-09T01:46:40.000Z     1.500  one", "2001-09-09T01:46:41.500Z            two"]
