"""Rows that tests begin with."""

from __future__ import annotations

from sqlalchemy.orm import Session

from cd.pipeline import runs
from cd.pipeline.definition import Pipeline
from cd.pipeline.parse import parse
from cd.pipeline.plan import Occasion, plan
from cd.pipeline.records import Project, Run
from cd.store.base import now


def project(session: Session, slug: str = "shop") -> Project:
    """A connected project."""
    row = Project(
        slug=slug, forge="generic", clone_url="https://git.example.com/x.git", webhook_secret=b"", created_at=now()
    )
    session.add(row)
    session.flush()
    return row


def run(session: Session, of: Project, pipeline: str = "", *, sha: str = "a" * 40, trusted: bool = True) -> Run:
    """A queued run of main, with the stages of a pipeline file beside its build."""
    row = runs.create(session, of, event="push", ref="refs/heads/main", sha=sha, trusted=trusted)
    definition = parse(pipeline.encode()) if pipeline else Pipeline()
    runs.add_stages(session, row, plan(definition, Occasion(row.event, row.ref)))
    return row
