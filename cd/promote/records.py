"""Tables of environments, releases, promotions, approvals and deployments."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, ForeignKey, Index, String, Text, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from cd.store.base import Base, UTCDateTime
from cd.store.records import Id

#: Promotions that have not ended, in the words of the index that finds them among all that have.
OPEN = "state IN ('waiting', 'awaiting_approval', 'queued', 'deploying', 'verifying', 'rolling_back')"


class Environment(Base):
    """A place where a project's releases run, with the policy that guards it."""

    __tablename__ = "environment"

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    project_id: Mapped[int] = mapped_column(Id, ForeignKey("project.id"))
    name: Mapped[str] = mapped_column(String(63))
    position: Mapped[int]
    #: `EnvironmentSpec` of `cd.promote.policy` as JSON.
    spec: Mapped[dict[str, Any]] = mapped_column(JSON)
    #: Grows with each change of `spec`; part of an approval's fingerprint.
    version: Mapped[int] = mapped_column(default=1)
    #: Why nothing is promoted here by itself, and who said so; None when it is not held.
    hold: Mapped[str | None] = mapped_column(Text)
    held_by: Mapped[str | None] = mapped_column(String(64))
    #: Set when a newer file no longer names it; its history stays.
    removed_at: Mapped[datetime | None] = mapped_column(UTCDateTime)

    __table_args__ = (UniqueConstraint("project_id", "name"),)


class Release(Base):
    """An image that passed, with its commit and how to run it: the thing that is promoted."""

    __tablename__ = "release"

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    project_id: Mapped[int] = mapped_column(Id, ForeignKey("project.id"))
    number: Mapped[int]
    run_id: Mapped[int] = mapped_column(Id, ForeignKey("run.id"), unique=True)
    run_number: Mapped[int]
    image: Mapped[str] = mapped_column(Text)
    sha: Mapped[str] = mapped_column(String(64))
    ref: Mapped[str] = mapped_column(Text)
    #: First line of the commit message; who wrote and who pushed it.
    subject: Mapped[str] = mapped_column(Text)
    author: Mapped[str] = mapped_column(String(255))
    pusher: Mapped[str] = mapped_column(String(255))
    #: `DeploySpec` of `cd.pipeline.definition` as JSON; None when the repository says nothing of it.
    deploy: Mapped[dict[str, Any] | None] = mapped_column(JSON)
    created_at: Mapped[datetime] = mapped_column(UTCDateTime)
    #: Set when its image was let go to keep the disk within its bound; it can't be promoted any more.
    retired_at: Mapped[datetime | None] = mapped_column(UTCDateTime)

    __table_args__ = (UniqueConstraint("project_id", "number"),)


class Promotion(Base):
    """A request to bring a release into an environment."""

    __tablename__ = "promotion"

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    project_id: Mapped[int] = mapped_column(Id, ForeignKey("project.id"))
    environment_id: Mapped[int] = mapped_column(Id, ForeignKey("environment.id"))
    release_id: Mapped[int] = mapped_column(Id, ForeignKey("release.id"))
    #: promote or rollback.
    kind: Mapped[str] = mapped_column(String(16))
    state: Mapped[str] = mapped_column(String(24), default="waiting")
    reason: Mapped[str] = mapped_column(Text, default="")
    #: What an approval is for: release image, environment version, target; see `cd.promote.gates`.
    fingerprint: Mapped[str] = mapped_column(String(64))
    #: User name; empty when Towpath opened it by policy.
    requested_by: Mapped[str] = mapped_column(String(64), default="")
    fence: Mapped[int] = mapped_column(default=0)
    created_at: Mapped[datetime] = mapped_column(UTCDateTime)
    #: When a timer changes something by itself: a soak is over, or nobody approved in time.
    due_at: Mapped[datetime | None] = mapped_column(UTCDateTime)
    finished_at: Mapped[datetime | None] = mapped_column(UTCDateTime)

    __table_args__ = (
        Index("ix_promotion_environment", "environment_id", "id"),
        Index("ix_promotion_release", "release_id"),
        Index(
            "ix_promotion_open",
            "state",
            sqlite_where=text(OPEN),
            postgresql_where=text(OPEN),
        ),
    )


class Approval(Base):
    """One person's vote on a promotion, for the fingerprint that the person saw."""

    __tablename__ = "approval"

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    promotion_id: Mapped[int] = mapped_column(Id, ForeignKey("promotion.id"))
    username: Mapped[str] = mapped_column(String(64))
    #: approve or reject.
    vote: Mapped[str] = mapped_column(String(8))
    comment: Mapped[str] = mapped_column(Text, default="")
    fingerprint: Mapped[str] = mapped_column(String(64))
    at: Mapped[datetime] = mapped_column(UTCDateTime)

    __table_args__ = (UniqueConstraint("promotion_id", "username"),)


class Deployment(Base):
    """One attempt to run a release in an environment."""

    __tablename__ = "deployment"

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    project_id: Mapped[int] = mapped_column(Id, ForeignKey("project.id"))
    environment_id: Mapped[int] = mapped_column(Id, ForeignKey("environment.id"))
    promotion_id: Mapped[int] = mapped_column(Id, ForeignKey("promotion.id"), unique=True)
    release_id: Mapped[int] = mapped_column(Id, ForeignKey("release.id"))
    #: deploying, live, retired, failed, errored, rolled_back.
    state: Mapped[str] = mapped_column(String(16), default="deploying")
    reason: Mapped[str] = mapped_column(Text, default="")
    #: The deployment that was live when this one began.
    previous_id: Mapped[int | None] = mapped_column(Id, ForeignKey("deployment.id"))
    #: The deployment whose containers serve this one: another one when image and config were the same.
    serving_id: Mapped[int | None] = mapped_column(Id)
    image: Mapped[str] = mapped_column(Text)
    environment_version: Mapped[int]
    #: `EnvironmentSpec` that it is deployed with, whatever the environment's says by now.
    spec: Mapped[dict[str, Any]] = mapped_column(JSON)
    fence: Mapped[int] = mapped_column(default=0)
    #: What happened and when: list of {"at", "what", "ok"}; probes, switch, drain.
    timeline: Mapped[list[dict[str, Any]]] = mapped_column(JSON, default=list)
    #: After a failure: container state, exit code, out of memory, last log lines.
    evidence: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)
    started_at: Mapped[datetime] = mapped_column(UTCDateTime)
    #: When the attempt ended: it went live, or failed.
    finished_at: Mapped[datetime | None] = mapped_column(UTCDateTime)
    #: When it stopped being the live one.
    retired_at: Mapped[datetime | None] = mapped_column(UTCDateTime)

    __table_args__ = (
        Index(
            "uq_deployment_active",
            "environment_id",
            unique=True,
            sqlite_where=text("state = 'deploying'"),
            postgresql_where=text("state = 'deploying'"),
        ),
        Index(
            "uq_deployment_live",
            "environment_id",
            unique=True,
            sqlite_where=text("state = 'live'"),
            postgresql_where=text("state = 'live'"),
        ),
        Index("ix_deployment_environment", "environment_id", "id"),
        Index("ix_deployment_release", "release_id"),
    )
