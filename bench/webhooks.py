"""Signed webhooks accepted and committed: 16 clients for 30 s against the web process, SQLite."""

from __future__ import annotations

import hashlib
import hmac
import http.client
import json
import multiprocessing
import secrets
import threading
import time

from sqlalchemy import func, select

from bench.service import Service, service
from bench.table import Figure, quantile
from cd.pipeline.records import Run
from cd.store.records import Task
from cd.webhooks.records import Delivery

PROCESSES, THREADS = 2, 8


def body(sha: str) -> bytes:
    """A push as GitHub sends it, with the parts that are read and about the usual size."""
    repository = {"id": 1, "full_name": "acme/shop", "clone_url": "https://github.com/acme/shop.git", "fork": False}
    commit = {"id": sha, "message": "Change one line", "author": {"name": "Dev", "email": "dev@example.invalid"}}
    return json.dumps(
        {
            "ref": f"refs/heads/b-{sha[:12]}",
            "before": "0" * 40,
            "after": sha,
            "created": True,
            "deleted": False,
            "forced": False,
            "repository": {
                **repository,
                **{f"{name}_url": f"https://api.github.com/x/{name}" * 3 for name in "abcdefgh"},
            },
            "pusher": {"name": "dev", "email": "dev@example.invalid"},
            "sender": {"login": "dev", "id": 7},
            "head_commit": commit,
            "commits": [commit] * 3,
        }
    ).encode()


def client(port: int, secret: bytes, seconds: float, times: list[float], ids: list[str]) -> None:
    """One client: sends the next as soon as the last is answered. Fails on any answer but 202."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        sha = secrets.token_hex(20)
        data = body(sha)
        identifier = f"{sha[:8]}-{sha[8:12]}-{sha[12:16]}-{sha[16:20]}-{sha[20:32]}"
        headers = {
            "Content-Type": "application/json",
            "X-GitHub-Event": "push",
            "X-GitHub-Delivery": identifier,
            "X-Hub-Signature-256": f"sha256={hmac.new(secret, data, hashlib.sha256).hexdigest()}",
        }
        began = time.perf_counter()
        connection.request("POST", "/hooks/shop", data, headers)
        answer = connection.getresponse()
        text = answer.read()
        times.append(time.perf_counter() - began)
        if answer.status != 202:
            raise RuntimeError(f"{answer.status}: {text[:300]!r}")
        ids.append(identifier)


def _process(port: int, secret: bytes, seconds: float, queue: multiprocessing.Queue) -> None:  # type: ignore[type-arg]
    times: list[float] = []
    ids: list[str] = []
    threads = [threading.Thread(target=client, args=(port, secret, seconds, times, ids)) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    queue.put((times, ids))


def load(running: Service, secret: str, seconds: float) -> tuple[list[float], list[str], float]:
    """Seconds of each answer, ids of what was accepted, and how long it took."""
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    began = time.monotonic()
    processes = [
        context.Process(target=_process, args=(running.port, secret.encode(), seconds, queue)) for _ in range(PROCESSES)
    ]
    for process in processes:
        process.start()
    times: list[float] = []
    ids: list[str] = []
    for _ in processes:
        more, accepted = queue.get(timeout=seconds + 60)
        times += more
        ids += accepted
    for process in processes:
        process.join()
    return times, ids, time.monotonic() - began


def measure(seconds: float = 30.0) -> list[Figure]:
    """Run it. Only Redis and the web process: nothing is built while the answers are timed."""
    with service(("web",)) as running:
        secret = running.forge_project("shop", "github", "https://github.com/acme/shop.git")
        load(running, secret, 2.0)
        times, ids, took = load(running, secret, seconds)
        with running.services.database.read() as session:
            kept = set(session.scalars(select(Delivery.delivery_id)))
            runs = session.scalar(select(func.count(Run.id)))
            tasks = session.scalar(select(func.count(Task.id)).where(Task.kind == "build"))
    lost = len(set(ids) - kept)
    rate, p99 = len(ids) / seconds, quantile(times, 0.99) * 1000
    return [
        Figure(
            "signed webhooks accepted and committed, 16 clients, SQLite (web and Redis run, workers do not)",
            "≥ 300/s, p99 ≤ 150 ms, none lost",
            f"{rate:.0f}/s, p99 {p99:.0f} ms, {lost} lost",
            f"{len(ids)} in {took:.0f} s",
            rate >= 300 and p99 <= 150 and lost == 0 and runs == tasks == len(kept),
        )
    ]
