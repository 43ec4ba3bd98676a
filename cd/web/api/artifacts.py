"""Artifacts: what the stages of a run left to be kept."""

from __future__ import annotations

import posixpath
import re
import tarfile
from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import chain
from urllib.parse import quote

from flask import Response
from pydantic import BaseModel, Field

from cd.errors import NotFound
from cd.identity.people import Role
from cd.pipeline import artifacts, queries
from cd.pipeline.artifacts import ArtifactRow, ArtifactStore
from cd.web.api.common import part, shown
from cd.web.api.models import RunPath, Shown
from cd.web.context import access, services

api = part("artifacts")


class Artifact(Shown):
    id: int
    step: str
    run_number: int = Field(description="The run that made it: an earlier one where the stage was reused.")
    path: str
    size: int
    sha256: str
    created_at: datetime
    expires_at: datetime
    removed_at: datetime | None = Field(description="When it was removed since it had expired; None: it is there.")


class Artifacts(BaseModel):
    items: list[Artifact]


class ArtifactPath(RunPath):
    artifact: int = Field(ge=1, le=2**53)


class TarQuery(BaseModel):
    step: str | None = Field(None, description="Only those of this stage.")


@api.get("/projects/<slug>/runs/<int:number>/artifacts", responses={200: Artifacts})
@access(Role.viewer)
def list_artifacts(path: RunPath) -> Response:
    """What the stages of a run left, also what has expired."""
    return shown(Artifacts(items=[Artifact.model_validate(row) for row in _all(path)]))


@api.get(
    "/projects/<slug>/runs/<int:number>/artifacts/<int:artifact>",
    responses={200: {"content": {"application/octet-stream": {}}}},
)
@access(Role.viewer)
def download(path: ArtifactPath) -> Response:
    """The content of one."""
    with services().database.read() as session:
        run = queries.detail(session, path.slug, path.number).run
        row = artifacts.find(session, run.id, path.artifact)
    answer = _attached(_store().read(row.blob), posixpath.basename(row.path))
    answer.content_length = row.size
    answer.headers["X-Content-SHA256"] = row.sha256
    return answer


@api.get("/projects/<slug>/runs/<int:number>/artifacts.tar", responses={200: {"content": {"application/x-tar": {}}}})
@access(Role.viewer)
def download_all(path: RunPath, query: TarQuery) -> Response:
    """All that are still there in one tar, each stage's in a folder of its own."""
    rows = [row for row in _all(path) if row.removed_at is None and query.step in (None, row.step)]
    if not rows:
        raise NotFound(f"run #{path.number} of {path.slug} has no artifacts")
    return _attached(_tar(rows), f"{path.slug}-{path.number}.tar", "application/x-tar")


def _all(path: RunPath) -> Sequence[ArtifactRow]:
    with services().database.read() as session:
        return artifacts.of_run(session, queries.detail(session, path.slug, path.number).run.id)


def _store() -> ArtifactStore:
    return ArtifactStore(services().settings.blobs)


def _attached(pieces: Iterator[bytes], name: str, kind: str = "application/octet-stream") -> Response:
    """Always as a file to save, never as a page: who wrote it is not trusted."""
    # The first piece is read before the answer begins, so that a store that fails can still be told of.
    answer = Response(chain([next(pieces, b"")], pieces), mimetype=kind)
    plain = re.sub(r"[^A-Za-z0-9._-]", "_", name)
    answer.headers["Content-Disposition"] = f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"
    answer.headers["Content-Security-Policy"] = "sandbox; default-src 'none'"
    return answer


def _tar(rows: Sequence[ArtifactRow]) -> Iterator[bytes]:
    store = _store()

    def pieces() -> Iterator[bytes]:
        for row in rows:
            info = tarfile.TarInfo(f"{row.step.replace('/', '_')}{row.path}")
            info.size, info.mtime = row.size, int(row.created_at.timestamp())
            yield info.tobuf(tarfile.PAX_FORMAT)
            yield from store.read(row.blob)
            yield bytes(-row.size % tarfile.BLOCKSIZE)
        yield bytes(2 * tarfile.BLOCKSIZE)

    return pieces()
