"""Webhook answered → build step started: 100 pushes to an idle service."""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.client
import json
import secrets
import time
from datetime import UTC, datetime

from sqlalchemy import select

from bench.service import Service, service, until
from bench.table import Figure, quantile
from cd.pipeline.records import Run, Step
from cd.pipeline.states import RUN

PUSHES = 100


def signed(secret: str, body: bytes) -> dict[str, str]:
    """Headers of the generic scheme."""
    identifier, stamp = f"msg_{secrets.token_hex(8)}", str(int(time.time()))
    key = base64.b64decode(secret.removeprefix("whsec_")) if secret.startswith("whsec_") else secret.encode()
    text = f"{identifier}.{stamp}.".encode() + body
    mac = base64.b64encode(hmac.new(key, text, hashlib.sha256).digest()).decode()
    return {
        "Content-Type": "application/json",
        "webhook-id": identifier,
        "webhook-timestamp": stamp,
        "webhook-signature": f"v1,{mac}",
    }


def push(running: Service, secret: str) -> float:
    """One push of a commit that the repository does not have; seconds from the answer to the build's start."""
    sha = secrets.token_hex(20)
    body = json.dumps({"type": "push", "ref": f"refs/heads/{sha[:8]}", "after": sha}).encode()
    connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=10)
    connection.request("POST", "/hooks/bench", body, signed(secret, body))
    answer = connection.getresponse()
    text = answer.read()
    answered = datetime.now(UTC)
    if answer.status != 202:
        raise RuntimeError(f"{answer.status}: {text!r}")

    def ended() -> Run | None:
        run = running.run_of(sha)
        return run if run is not None and run.state in RUN.terminal else None

    run = until(ended, 30, "the run's end")
    with running.services.database.read() as session:
        started = session.scalars(select(Step.started_at).where(Step.run_id == run.id, Step.name == "build")).one()
    if started is None:
        raise RuntimeError(f"the build never started: {run.reason}")
    return max(0.0, (started - answered).total_seconds())


def measure(pushes: int = PUSHES) -> list[Figure]:
    """Each push waits for the end of the one before: the service is idle."""
    with service() as running:
        _, secret, _ = running.project("bench")
        push(running, secret)
        times = [push(running, secret) * 1000 for _ in range(pushes)]
    p50, p99 = quantile(times, 0.5), quantile(times, 0.99)
    return [
        Figure(
            "webhook answered → build step started, idle service",
            "p50 ≤ 50 ms, p99 ≤ 250 ms",
            f"p50 {p50:.0f} ms, p99 {p99:.0f} ms",
            f"{pushes} pushes",
            p50 <= 50 and p99 <= 250,
        )
    ]
