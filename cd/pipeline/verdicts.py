"""Verdict reuse: a stage that passed for an image stands for that image, until its key changes."""

from __future__ import annotations

import hashlib
import json
import platform

from sqlalchemy import select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from cd.pipeline.definition import StageSpec
from cd.pipeline.records import Run, Step, Verdict
from cd.sandbox.options import SANDBOX_VERSION
from cd.store.base import now


def stage_key(spec: StageSpec) -> str:
    """SHA-256 over all that decides a stage's result besides its image: command, env, limits, network, engine."""
    told = {
        "argv": list(spec.argv),
        "env": dict(spec.env),
        "limits": spec.limits.model_dump(mode="json"),
        "network": spec.network,
        "arch": platform.machine(),
        "sandbox": SANDBOX_VERSION,
    }
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def find(session: Session, run: Run, image: str, spec: StageSpec, key: str) -> Verdict | None:
    """The verdict that stands for this image and key, if this run may use one.

    Only passed results are kept; a stage with network access to the outside may see another world each time,
    so it is never reused, and neither is anything in a run of somebody else's code or one asked to be fresh.
    """
    if run.fresh or not run.trusted or spec.reuse == "never" or spec.network == "internet":
        return None
    return session.scalar(
        select(Verdict).where(Verdict.project_id == run.project_id, Verdict.image == image, Verdict.key == key)
    )


def keep(session: Session, run: Run, step: Step, key: str) -> None:
    """Remember that this step passed; the newest one that did stands."""
    if not run.trusted or step.image is None or step.started_at is None:
        return
    insert = postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert
    earned = {
        "step_id": step.id,
        "run_id": run.id,
        "seconds": (now() - step.started_at).total_seconds(),
        "created_at": now(),
    }
    session.execute(
        insert(Verdict)
        .values(project_id=run.project_id, image=step.image, key=key, **earned)
        .on_conflict_do_update(index_elements=["project_id", "image", "key"], set_=earned)
    )
