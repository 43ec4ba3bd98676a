"""Secrets in logs: every disguise of every secret, cut at every byte, through the real writer, Redis and the store."""

from __future__ import annotations

import base64
import json
import shlex
from collections.abc import Iterator
from urllib.parse import quote, quote_plus
from xml.sax.saxutils import escape

from bench.service import service
from bench.table import Figure
from cd.pipeline.records import Project, Run, Step
from cd.store.base import now

SECRETS = (
    "7!xQ",
    "hunter2!",
    "pässwörd with spaces & 'quotes'",
    'a/b+c="d"\\e<f>',
    "AKIAIOSFODNN7EXAMPLE",
    "-----BEGIN KEY-----\nMIIEpAIBAAKCAQEAx7nq\nq83vEjZkTf4aLwIDAQAB\n-----END KEY-----\n",
)


def disguises(secret: str) -> Iterator[tuple[str, bytes]]:
    """What a program could print of a secret: name and bytes, made apart from what the masker looks for."""
    raw = secret.encode()
    yield "as it is", raw
    for shift in range(3):
        coded = base64.b64encode(b"user:"[:shift] + raw)
        yield f"base64, {shift} bytes before it", coded
        yield f"base64 for URLs, {shift} bytes before it", coded.translate(bytes.maketrans(b"+/", b"-_"))
    yield "hexadecimal", raw.hex().encode()
    yield "hexadecimal, capitals", raw.hex().upper().encode()
    yield "URL", quote(secret, safe="").encode()
    yield "URL, with slashes", quote(secret).encode()
    yield "URL, as a form", quote_plus(secret).encode()
    yield "JSON", json.dumps(secret).encode()
    yield "JSON in UTF-8", json.dumps(secret, ensure_ascii=False).encode()
    yield "XML", escape(secret).encode()
    yield "XML, as an attribute", escape(secret, {'"': "&quot;", "'": "&apos;"}).encode()
    yield "shell", shlex.quote(secret).replace("'\"'\"'", "'\\''").encode()


def told(kind: str, shown: bytes, secret: str) -> bytes:
    """What of a disguise must not be readable: all but quotes, and in base64 what no neighbour decides with it."""
    if kind.startswith("base64"):
        shift, raw = int(kind.split(", ")[1][0]), secret.encode()
        one, other = (base64.b64encode(byte * shift + raw + byte * 3) for byte in (b"\0", b"\xff"))
        alike = [a == b for a, b in zip(one, other, strict=True)]
        begin = alike.index(True)
        end = begin + [*alike[begin:], False].index(False)
        return shown[begin:end]
    return shown[1:-1] if kind.startswith("JSON") or (kind == "shell" and shown[:1] == b"'") else shown


def measure() -> list[Figure]:
    """Each disguise between two words, in two writes cut at each of its bytes; all in one log of many lines."""
    cases = [(secret, kind, shown) for secret in SECRETS for kind, shown in disguises(secret)]
    printed, leaks, wrong = 0, [], 0
    with service() as running:
        project_id, _, _ = running.project("bench")
        with running.services.database.write() as session:
            project = session.get_one(Project, project_id)
            run = Run(
                project_id=project.id, number=1, event="manual", ref="refs/heads/main", sha="0" * 40, state="failed"
            )
            run.created_at = run.finished_at = now()
            session.add(run)
            session.flush()
            steps = [
                Step(run_id=run.id, project_id=project.id, name=f"s{at}", kind="stage", state="passed", position=at)
                for at in range(len(cases))
            ]
            session.add_all(steps)
            session.flush()
            ids = [step.id for step in steps]
        for step_id, (secret, kind, shown) in zip(ids, cases, strict=True):
            plain = bytearray()
            with running.services.logs.writer(step_id, 1, 1, SECRETS) as writer:
                for cut in range(1, len(shown)):
                    writer.write(b"begin " + shown[:cut])
                    writer.write(shown[cut:] + b" end\n")
                    plain += b"begin " + shown + b" end\n"
                    printed += 1
            with running.services.database.read() as session:
                stored = b"".join(running.services.logs.read(session, step_id, 1))
            live = b"".join(data for _, data in running.services.logs.follow(step_id, 1, 0, 0.05))
            wrong += len(stored) != len(plain)
            for seen in (stored, live):
                leaks += [(kind, secret)] * seen.count(told(kind, shown, secret))
                wrong += seen.count(b"begin ") != len(shown) - 1
    return [
        Figure(
            f"secrets in logs: {len(SECRETS)} secrets × {len(cases) // len(SECRETS)} disguises × every chunk border",
            "0 leaks, no other byte changed",
            f"{len(leaks)} leaks of {printed:,}; {wrong} logs changed elsewhere",
            f"{printed:,} printed",
            not leaks and not wrong,
        )
    ]
