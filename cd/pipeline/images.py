"""Images that are known: what was built from the same inputs before is not built again."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping

from sqlalchemy import select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from cd.pipeline.definition import ImageSpec
from cd.pipeline.records import Image, Run
from cd.store.base import now

#: Part of every key: raised when the way of building changes what comes out.
BUILD_VERSION = 2
NO_VERSIONS: Mapping[str, int] = {}


def image_key(
    tree: str,
    spec: ImageSpec,
    target: str | None,
    bases: Mapping[str, str],
    secrets: Mapping[str, int] = NO_VERSIONS,
) -> str:
    """SHA-256 over all that decides an image.

    `bases` maps each base image's name to its id, `secrets` each secret of the build to its version.
    """
    told = {
        "tree": tree,
        "context": spec.context,
        "dockerfile": spec.dockerfile,
        "args": dict(spec.args),
        "target": target,
        "bases": dict(bases),
        "secrets": dict(secrets),
        "arch": platform.machine(),
        "version": BUILD_VERSION,
    }
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def known(session: Session, project_id: int, keys: list[str]) -> dict[str, tuple[str, int]]:
    """By key: the image's digest, and the number of the run that built it."""
    rows = session.execute(
        select(Image.key, Image.digest, Run.number)
        .join(Run, Run.id == Image.run_id)
        .where(Image.project_id == project_id, Image.key.in_(keys))
    )
    return {key: (digest, number) for key, digest, number in rows}


def keep(session: Session, run: Run, key: str, digest: str) -> None:
    """Remember what was built from these inputs; the newest image stands."""
    insert = postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert
    made = {"digest": digest, "run_id": run.id, "created_at": now()}
    session.execute(
        insert(Image)
        .values(project_id=run.project_id, key=key, **made)
        .on_conflict_do_update(index_elements=["project_id", "key"], set_=made)
    )
