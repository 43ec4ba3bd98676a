"""Server time of the board with 50 projects and 100,000 runs, on SQLite and PostgreSQL."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import insert

from bench.service import until
from bench.table import Figure, median
from cd import wiring
from cd.config import Settings
from cd.identity import sessions, users
from cd.identity.people import Role
from cd.pipeline.records import Project, Run, Step
from cd.promote.records import Deployment, Environment, Promotion, Release
from cd.store import migrations
from cd.store.base import now
from cd.wiring import Services

PROJECTS, RUNS, LOOKS = 50, 100_000, 40
ENVIRONMENTS = ("dev", "staging", "prod")
POSTGRES = Path("/usr/lib/postgresql/15/bin")


def seed(services: Services) -> None:
    """Fill the tables: each project with its share of runs, ten releases, and a history in each environment."""
    at = now() - timedelta(days=300)
    each = RUNS // PROJECTS
    with services.database.write() as session:
        project_rows = [
            {"id": p, "slug": f"project-{p:02}", "forge": "generic", "webhook_secret": b"", "next_run": each + 1,
             "created_at": at, "clone_url": None}
            for p in range(1, PROJECTS + 1)
        ]  # fmt: skip
        session.execute(insert(Project), project_rows)
        run_rows: list[dict[str, Any]] = []
        step_rows: list[dict[str, Any]] = []
        for p in range(1, PROJECTS + 1):
            for n in range(1, each + 1):
                run_id = (p - 1) * each + n
                began = at + timedelta(minutes=n * 200)
                state = "failed" if n % 7 == 0 else "passed"
                common = {"project_id": p, "started_at": began, "finished_at": began + timedelta(seconds=30)}
                run_rows.append(
                    {**common, "id": run_id, "number": n, "state": state, "event": "push", "ref": "refs/heads/main",
                     "sha": f"{run_id:040x}", "message": f"Change number {n}", "author": "Dev", "pusher": "dev",
                     "created_at": began}
                )  # fmt: skip
                if n > each - 20:
                    step_rows += [
                        {**common, "run_id": run_id, "name": name, "kind": kind, "position": place, "state": state}
                        for place, (name, kind) in enumerate((("build", "build"), ("lint", "stage"), ("unit", "stage")))
                    ]
        for start in range(0, len(run_rows), 5000):
            session.execute(insert(Run), run_rows[start : start + 5000])
        session.execute(insert(Step), step_rows)
        _seed_promotions(session, at, each)


def _seed_promotions(session: Any, at: Any, each: int) -> None:
    serial = 0
    for p in range(1, PROJECTS + 1):
        for place, name in enumerate(ENVIRONMENTS):
            spec = {"name": name, "target": {"kind": "docker", "url": f"http://127.0.0.1:{20000 + p * 10 + place}"}}
            session.execute(
                insert(Environment),
                [{"id": p * 10 + place, "project_id": p, "name": name, "position": place, "spec": spec, "version": 1}],
            )
        for number in range(1, 11):
            run_number = each - 20 + number
            run_id = (p - 1) * each + run_number
            release_id = p * 100 + number
            session.execute(
                insert(Release),
                [{"id": release_id, "project_id": p, "number": number, "run_id": run_id, "run_number": run_number,
                  "image": f"sha256:{run_id:064x}", "sha": f"{run_id:040x}", "ref": "refs/heads/main",
                  "subject": f"Change number {run_number}", "author": "Dev", "pusher": "dev", "created_at": at}],
            )  # fmt: skip
            for place in range(3):
                serial += 1
                waits = place == 2 and number == 10
                session.execute(
                    insert(Promotion),
                    [{"id": serial, "project_id": p, "environment_id": p * 10 + place, "release_id": release_id,
                      "kind": "promote", "state": "awaiting_approval" if waits else "succeeded", "fingerprint": "f",
                      "created_at": at, "finished_at": None if waits else at}],
                )  # fmt: skip
                if waits:
                    continue
                last = number == (9 if place == 2 else 10)
                session.execute(
                    insert(Deployment),
                    [{"id": serial, "project_id": p, "environment_id": p * 10 + place, "promotion_id": serial,
                      "release_id": release_id, "state": "live" if last else "retired", "serving_id": serial,
                      "image": f"sha256:{run_id:064x}", "environment_version": 1, "spec": {}, "started_at": at,
                      "finished_at": at}],
                )  # fmt: skip


def look(database_url: str) -> tuple[float, int]:
    """Median milliseconds of a board, and its size in bytes."""
    from cd import wsgi

    home = Path(tempfile.mkdtemp(prefix="tpo-"))
    services = wiring.build(Settings(home=home, database_url=database_url))
    try:
        migrations.upgrade(services.database)
        seed(services)
        with services.database.write() as session:
            user = users.create(session, "bench", "viewer", "correct horse battery", Role.viewer)
            secret = sessions.open(session, user.id)
        client = wsgi.application(services).test_client()
        client.set_cookie("towpath_session", secret)
        times = []
        for number in range(LOOKS + 5):
            began = time.perf_counter()
            page = client.get("/")
            took = (time.perf_counter() - began) * 1000
            if page.status_code != 200 or b"project-50" not in page.data:
                raise RuntimeError(f"not the board: {page.status_code}")
            if number >= 5:
                times.append(took)
        return median(times), len(page.data)
    finally:
        services.database.close()
        shutil.rmtree(home, ignore_errors=True)


@contextlib.contextmanager
def postgres() -> Iterator[str]:
    """A PostgreSQL server of its own on a socket; its URL."""
    folder = Path(tempfile.mkdtemp(prefix="tpg-"))
    shutil.chown(folder, "postgres")
    as_user = {"user": "postgres", "group": "postgres", "cwd": "/"} if os.geteuid() == 0 else {}
    data = folder / "data"
    subprocess.run(
        [POSTGRES / "initdb", "-D", data, "-A", "trust", "-U", "postgres"], check=True, capture_output=True, **as_user
    )
    server = subprocess.Popen(
        [POSTGRES / "postgres", "-D", data, "-k", folder, "-c", "listen_addresses="],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **as_user,
    )  # fmt: skip
    try:
        ready = [POSTGRES / "pg_isready", "-q", "-h", folder]
        until(lambda: subprocess.run(ready, check=False).returncode == 0, 30, "PostgreSQL's start")
        yield f"postgresql+psycopg://postgres@/postgres?host={folder}"
    finally:
        server.terminate()
        server.wait()
        shutil.rmtree(folder, ignore_errors=True)


def measure() -> list[Figure]:
    """On both databases."""
    folder = Path(tempfile.mkdtemp(prefix="tps-"))
    try:
        sqlite, size = look(f"sqlite:///{folder / 'board.db'}")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    with postgres() as url:
        server, _ = look(url)
    return [
        Figure(
            f"board with {PROJECTS} projects and {RUNS:,} runs ({size >> 10} KiB page)",
            "≤ 60 ms server time, SQLite and PostgreSQL",
            f"SQLite {sqlite:.0f} ms, PostgreSQL {server:.0f} ms",
            f"{LOOKS} looks each, median",
            max(sqlite, server) <= 60,
        )
    ]
