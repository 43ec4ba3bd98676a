"""Tables of projects, runs, steps, images and verdicts."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, ForeignKey, Index, LargeBinary, String, Text, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from cd.store.base import Base, UTCDateTime
from cd.store.records import Id


class Project(Base):
    """A git repository connected to Towpath."""

    __tablename__ = "project"

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    #: Name in URLs; `[a-z0-9][a-z0-9-]{0,62}`.
    slug: Mapped[str] = mapped_column(String(63), unique=True)
    #: Name of the forge whose webhooks are accepted; a key of `cd.webhooks.forges.FORGES`.
    forge: Mapped[str] = mapped_column(String(32))
    #: None for a hosted repository.
    clone_url: Mapped[str | None] = mapped_column(Text)
    #: Encrypted webhook secret.
    webhook_secret: Mapped[bytes] = mapped_column(LargeBinary)
    #: Number that the next run gets; the same for releases.
    next_run: Mapped[int] = mapped_column(default=1)
    next_release: Mapped[int] = mapped_column(default=1)
    created_at: Mapped[datetime] = mapped_column(UTCDateTime)
    #: Set when the project was deleted; its history stays, its slug gets a suffix.
    deleted_at: Mapped[datetime | None] = mapped_column(UTCDateTime)

    @property
    def hosted(self) -> bool:
        """Whether Towpath itself holds the repository."""
        return self.clone_url is None


class Run(Base):
    """One execution of the pipeline for one commit."""

    __tablename__ = "run"

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    project_id: Mapped[int] = mapped_column(Id, ForeignKey("project.id"))
    number: Mapped[int]
    state: Mapped[str] = mapped_column(String(16), default="queued")
    #: Why it is in that state, for people; empty when there is nothing to say.
    reason: Mapped[str] = mapped_column(Text, default="")
    #: Harmless remarks, such as keys of the pipeline file that are not acted on yet.
    notes: Mapped[list[str]] = mapped_column(JSON, default=list)
    #: push, tag, pull_request or manual.
    event: Mapped[str] = mapped_column(String(16))
    #: Full ref, such as refs/heads/main.
    ref: Mapped[str] = mapped_column(Text)
    sha: Mapped[str] = mapped_column(String(64))
    tree: Mapped[str | None] = mapped_column(String(64))
    message: Mapped[str] = mapped_column(Text, default="")
    author: Mapped[str] = mapped_column(String(255), default="")
    #: Who pushed, as the forge names them; compared with the user name for self-approval.
    pusher: Mapped[str] = mapped_column(String(255), default="")
    #: False for forks: no secrets, no reuse, no release.
    trusted: Mapped[bool] = mapped_column(default=True)
    #: The release image once it is known.
    image: Mapped[str | None] = mapped_column(String(80))
    #: The `deploy` section of the pipeline file, as the model's JSON; None without one.
    deploy: Mapped[dict[str, Any] | None] = mapped_column(JSON)
    retry_of: Mapped[int | None] = mapped_column(Id, ForeignKey("run.id"))
    #: Do not look up verdicts or known images.
    fresh: Mapped[bool] = mapped_column(default=False)
    canceled_by: Mapped[str | None] = mapped_column(String(64))
    created_at: Mapped[datetime] = mapped_column(UTCDateTime)
    started_at: Mapped[datetime | None] = mapped_column(UTCDateTime)
    finished_at: Mapped[datetime | None] = mapped_column(UTCDateTime)

    __table_args__ = (
        UniqueConstraint("project_id", "number"),
        Index("ix_run_project_sha", "project_id", "sha"),
        Index(
            "ix_run_open",
            "state",
            sqlite_where=text("state IN ('queued', 'running')"),
            postgresql_where=text("state IN ('queued', 'running')"),
        ),
    )

    @property
    def branch(self) -> str | None:
        """The branch's name, None for a tag."""
        return self.ref.removeprefix("refs/heads/") if self.ref.startswith("refs/heads/") else None

    @property
    def subject(self) -> str:
        """First line of the commit message."""
        return self.message.strip().split("\n", 1)[0][:200]


class Step(Base):
    """The build of a run, or one of its stages."""

    __tablename__ = "step"

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    run_id: Mapped[int] = mapped_column(Id, ForeignKey("run.id"))
    project_id: Mapped[int] = mapped_column(Id, ForeignKey("project.id"))
    #: "build", or the stage's name.
    name: Mapped[str] = mapped_column(String(63))
    #: build or stage.
    kind: Mapped[str] = mapped_column(String(8))
    #: Place in the file, 0 for the build.
    position: Mapped[int] = mapped_column(default=0)
    state: Mapped[str] = mapped_column(String(16), default="waiting")
    reason: Mapped[str] = mapped_column(Text, default="")
    needs: Mapped[list[str]] = mapped_column(JSON, default=list)
    #: The stage's part of the pipeline file as the model's JSON; the image part for the build.
    spec: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)
    allow_failure: Mapped[bool] = mapped_column(default=False)
    #: The image it tests; for the build, the release image.
    image: Mapped[str | None] = mapped_column(String(80))
    #: Counts from 1 once it runs; each attempt has a container and a log of its own.
    attempt: Mapped[int] = mapped_column(default=0)
    #: Fence of the task that runs it; every write of a running step carries it.
    fence: Mapped[int] = mapped_column(default=0)
    exit_code: Mapped[int | None]
    #: out_of_memory or timeout, when that is what ended it.
    cause: Mapped[str | None] = mapped_column(String(16))
    verdict_id: Mapped[int | None] = mapped_column(Id, ForeignKey("verdict.id"))
    queued_at: Mapped[datetime | None] = mapped_column(UTCDateTime)
    started_at: Mapped[datetime | None] = mapped_column(UTCDateTime)
    finished_at: Mapped[datetime | None] = mapped_column(UTCDateTime)

    __table_args__ = (UniqueConstraint("run_id", "name"),)


class Image(Base):
    """An image that a build made from known inputs; looked up by `key` before anything is built."""

    __tablename__ = "image"

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    project_id: Mapped[int] = mapped_column(Id, ForeignKey("project.id"))
    #: Hash of all inputs: tree, Dockerfile, target, arguments, base images.
    key: Mapped[str] = mapped_column(String(64))
    digest: Mapped[str] = mapped_column(String(80))
    run_id: Mapped[int] = mapped_column(Id, ForeignKey("run.id"))
    created_at: Mapped[datetime] = mapped_column(UTCDateTime)

    __table_args__ = (UniqueConstraint("project_id", "key"),)


class Verdict(Base):
    """The passed result of a stage, for the image and the stage key that it was earned with."""

    __tablename__ = "verdict"

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    project_id: Mapped[int] = mapped_column(Id, ForeignKey("project.id"))
    image: Mapped[str] = mapped_column(String(80))
    #: Hash of all that decides the result besides the image; see `cd.pipeline.verdicts`.
    key: Mapped[str] = mapped_column(String(64))
    #: The step that earned it.
    step_id: Mapped[int] = mapped_column(Id)
    run_id: Mapped[int] = mapped_column(Id, ForeignKey("run.id"))
    #: What the step took, in seconds: the time that a reuse saves.
    seconds: Mapped[float]
    created_at: Mapped[datetime] = mapped_column(UTCDateTime)

    __table_args__ = (UniqueConstraint("project_id", "image", "key"),)


class LogChunk(Base):
    """A piece of a step's log in the blob store. Chunks of one attempt lie end to end."""

    __tablename__ = "log_chunk"

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    step_id: Mapped[int] = mapped_column(Id, ForeignKey("step.id"))
    attempt: Mapped[int]
    #: Position of the first byte in the whole log, and the number of bytes.
    start: Mapped[int] = mapped_column(Id)
    size: Mapped[int]
    #: Newlines before this chunk, and in it.
    first_line: Mapped[int] = mapped_column(Id)
    lines: Mapped[int]
    #: Name in the blob store; zstd.
    blob: Mapped[str] = mapped_column(String(200))

    __table_args__ = (UniqueConstraint("step_id", "attempt", "start"),)
