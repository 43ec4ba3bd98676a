"""Verdict reuse: a stage that passed for an image stands for that image, until its key changes."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping, Sequence

from sqlalchemy import select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from cd.pipeline import secrets
from cd.pipeline.definition import StageSpec
from cd.pipeline.records import Run, Step, Verdict
from cd.sandbox.options import SANDBOX_VERSION
from cd.store.base import now

NOTHING: Mapping[str, str] = {}
NO_VERSIONS: Mapping[str, int] = {}


def stage_key(spec: StageSpec, services: Mapping[str, str] = NOTHING, secrets: Mapping[str, int] = NO_VERSIONS) -> str:
    """SHA-256, in hex, over all that decides a stage's result besides its image.

    `services` gives the resolved image of each service, `secrets` the version of each secret that it asks for.
    """
    told = {
        "argv": list(spec.argv),
        "env": dict(spec.env),
        "limits": spec.limits.model_dump(mode="json"),
        "network": spec.network or ("services" if spec.services else "none"),
        "services": {
            name: {
                "image": services.get(name, service.image),
                "env": dict(service.env),
                "ready": list(service.ready) if service.ready is not None else None,
            }
            for name, service in spec.services.items()
        },
        "secrets": {name: secrets.get(name, 0) for name in spec.secrets},
        # Not what decides the result, but what a reused one has to show.
        "artifacts": list(spec.artifacts),
        "reports": spec.reports.model_dump(mode="json"),
        "arch": platform.machine(),
        "sandbox": SANDBOX_VERSION,
    }
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def keys(session: Session, project_id: int, steps: Sequence[Step]) -> dict[int, str]:
    """The stage key of each step as things are now, by its id; one statement where any of them has secrets."""
    specs = {step.id: StageSpec.model_validate(step.spec) for step in steps}
    names = {name for spec in specs.values() for name in spec.secrets}
    versions = secrets.versions(session, project_id, names) if names else NO_VERSIONS
    return {step.id: stage_key(specs[step.id], step.services, versions) for step in steps}


def find_many(session: Session, run: Run, steps: Sequence[Step]) -> dict[int, Verdict]:
    """The verdicts that stand for these stages, by step id; sets nothing.

    Only passed results are kept; a stage with network access to the outside may see another world each time,
    so it is never reused, and neither is anything in a run of somebody else's code or one asked to be fresh.
    """
    asked = [step for step in steps if reusable(run, step) and step.image is not None]
    if not asked:
        return {}
    wanted = keys(session, run.project_id, asked)
    images = {step.image for step in asked}
    found = session.scalars(
        select(Verdict).where(
            Verdict.project_id == run.project_id,
            Verdict.image.in_(images),
            Verdict.key.in_(set(wanted.values())),
            Verdict.revoked_at.is_(None),
        )
    )
    known = {(verdict.image, verdict.key): verdict for verdict in found}
    return {step.id: known[at] for step in asked if (at := (step.image or "", wanted[step.id])) in known}


def reusable(run: Run, step: Step) -> bool:
    """Whether this run may stand on what another one earned for this stage."""
    return (
        not run.fresh and run.trusted and step.spec.get("reuse") != "never" and step.spec.get("network") != "internet"
    )


def keep(session: Session, run: Run, step: Step) -> None:
    """Remember that this step passed under its key; the newest one that did stands."""
    if not run.trusted or step.image is None or step.key is None or step.started_at is None:
        return
    insert = postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert
    earned = {
        "step_id": step.id,
        "run_id": run.id,
        "seconds": (now() - step.started_at).total_seconds(),
        "created_at": now(),
        "revoked_at": None,
    }
    session.execute(
        insert(Verdict)
        .values(project_id=run.project_id, image=step.image, key=step.key, **earned)
        .on_conflict_do_update(index_elements=["project_id", "image", "key"], set_=earned)
    )


def revoke(session: Session, verdict_id: int) -> None:
    """What running it again contradicted stands no longer, until it is earned anew."""
    session.execute(update(Verdict).where(Verdict.id == verdict_id).values(revoked_at=now()))
