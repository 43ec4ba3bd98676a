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
    #: Number that the next run gets.
    next_run: Mapped[int] = mapped_column(default=1)
    #: Which runs of a branch a newer push ends: waiting (those not begun), running (those too), or never.
    supersede: Mapped[str] = mapped_column(String(8), default="waiting", server_default="waiting")
    #: Builds and stages at the same time at most; None for no limit.
    parallel: Mapped[int | None]
    #: Whether a failed stage's files are kept for a look with `towpath shell`.
    keep_failed: Mapped[bool] = mapped_column(default=False, server_default=text("false"))
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
    #: Commit that `when.paths` compares with: where the branch was, or what a pull request goes into. None: unknown.
    before: Mapped[str | None] = mapped_column(String(64))
    #: False for forks: no secrets, no reuse, no release.
    trusted: Mapped[bool] = mapped_column(default=True)
    #: The release image once it is known: `sha256:…`, the engine's id, or `registry/name@sha256:…`.
    image: Mapped[str | None] = mapped_column(Text)
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
        # What a newer push of the same branch ends.
        Index(
            "ix_run_open_ref",
            "project_id",
            "ref",
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
    #: "build", the stage's name, or `stage:cell` for one cell of its matrix.
    name: Mapped[str] = mapped_column(String(191))
    #: The stage's name in the file; empty for the build.
    stage: Mapped[str] = mapped_column(String(63), default="", server_default="")
    #: Name and value of each axis, for a cell of a matrix.
    cell: Mapped[dict[str, str]] = mapped_column(JSON, default=dict, server_default=text("'{}'"))
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
    image: Mapped[str | None] = mapped_column(Text)
    #: Image of each of its services, resolved by the build.
    services: Mapped[dict[str, str]] = mapped_column(JSON, default=dict, server_default=text("'{}'"))
    #: Stage key that it runs under or was reused by; None before.
    key: Mapped[str | None] = mapped_column(String(64))
    #: Counts from 1 once it runs; each attempt has a container and a log of its own.
    attempt: Mapped[int] = mapped_column(default=0)
    #: Fence of the task that runs it; every write of a running step carries it.
    fence: Mapped[int] = mapped_column(default=0)
    exit_code: Mapped[int | None]
    #: What ended it, where that is more than its exit code: out_of_memory, timeout, service, output, artifacts, or
    #: when (skipped by the file's own conditions: what needs it goes on).
    cause: Mapped[str | None] = mapped_column(String(16))
    verdict_id: Mapped[int | None] = mapped_column(Id, ForeignKey("verdict.id"))
    queued_at: Mapped[datetime | None] = mapped_column(UTCDateTime)
    started_at: Mapped[datetime | None] = mapped_column(UTCDateTime)
    finished_at: Mapped[datetime | None] = mapped_column(UTCDateTime)

    __table_args__ = (
        UniqueConstraint("run_id", "name"),
        # How long a stage took before: estimates.
        Index("ix_step_history", "project_id", "stage", "finished_at"),
    )


class Image(Base):
    """An image that a build made from known inputs; looked up by `key` before anything is built."""

    __tablename__ = "image"

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    project_id: Mapped[int] = mapped_column(Id, ForeignKey("project.id"))
    #: Hash of all inputs: tree, Dockerfile, target, arguments, base images.
    key: Mapped[str] = mapped_column(String(64))
    digest: Mapped[str] = mapped_column(Text)
    run_id: Mapped[int] = mapped_column(Id, ForeignKey("run.id"))
    created_at: Mapped[datetime] = mapped_column(UTCDateTime)

    __table_args__ = (UniqueConstraint("project_id", "key"),)


class Verdict(Base):
    """The passed result of a stage, for the image and the stage key that it was earned with."""

    __tablename__ = "verdict"

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    project_id: Mapped[int] = mapped_column(Id, ForeignKey("project.id"))
    image: Mapped[str] = mapped_column(Text)
    #: Hash of all that decides the result besides the image; see `cd.pipeline.verdicts`.
    key: Mapped[str] = mapped_column(String(64))
    #: The step that earned it.
    step_id: Mapped[int] = mapped_column(Id)
    run_id: Mapped[int] = mapped_column(Id, ForeignKey("run.id"))
    #: What the step took, in seconds: the time that a reuse saves.
    seconds: Mapped[float]
    created_at: Mapped[datetime] = mapped_column(UTCDateTime)
    #: Set when running it again contradicted it; it no longer stands.
    revoked_at: Mapped[datetime | None] = mapped_column(UTCDateTime)

    __table_args__ = (UniqueConstraint("project_id", "image", "key"),)


class Attempt(Base):
    """One execution of a stage that came to an end: the history behind estimates, flakes and the audit of reuse."""

    __tablename__ = "attempt"

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    project_id: Mapped[int] = mapped_column(Id, ForeignKey("project.id"))
    run_id: Mapped[int] = mapped_column(Id, ForeignKey("run.id"))
    step_id: Mapped[int] = mapped_column(Id, ForeignKey("step.id"))
    number: Mapped[int]
    #: The step's name.
    name: Mapped[str] = mapped_column(String(191))
    image: Mapped[str] = mapped_column(Text)
    key: Mapped[str] = mapped_column(String(64))
    #: passed or failed; what the engine or Towpath spoiled is not a result.
    state: Mapped[str] = mapped_column(String(16))
    exit_code: Mapped[int | None]
    cause: Mapped[str | None] = mapped_column(String(16))
    #: From the container's start to its end.
    seconds: Mapped[float]
    #: True when a reused verdict was tried again to see whether it stands.
    shadow: Mapped[bool] = mapped_column(default=False)
    #: Counts of its reports (`cd.pipeline.reports.Summary` as JSON); None without reports.
    report: Mapped[dict[str, Any] | None] = mapped_column(JSON)
    created_at: Mapped[datetime] = mapped_column(UTCDateTime)

    __table_args__ = (
        UniqueConstraint("step_id", "number"),
        Index("ix_attempt_verdicts", "project_id", "key", "image", "state"),
        Index("ix_attempt_history", "project_id", "name", "created_at"),
        # How often reuse was wrong.
        Index("ix_attempt_shadow", "project_id", "state", sqlite_where=text("shadow"), postgresql_where=text("shadow")),
    )


class Secret(Base):
    """A secret of a project, encrypted. A deleted one stays as a row without value, so that versions only grow."""

    __tablename__ = "secret"

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    project_id: Mapped[int] = mapped_column(Id, ForeignKey("project.id"))
    name: Mapped[str] = mapped_column(String(128))
    #: None once it is deleted.
    value: Mapped[bytes | None] = mapped_column(LargeBinary)
    #: Grows with each change; part of the stage keys of those who use it.
    version: Mapped[int] = mapped_column(default=1)
    changed_by: Mapped[str] = mapped_column(String(64))
    changed_at: Mapped[datetime] = mapped_column(UTCDateTime)

    __table_args__ = (UniqueConstraint("project_id", "name"),)


class TestCase(Base):
    """A test that a stage reported at least once."""

    __tablename__ = "test_case"
    __test__ = False  # not for pytest

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    project_id: Mapped[int] = mapped_column(Id, ForeignKey("project.id"))
    #: The step's name, the report's class (or suite) name, the test's name.
    stage: Mapped[str] = mapped_column(String(191))
    classname: Mapped[str] = mapped_column(Text)
    name: Mapped[str] = mapped_column(Text)
    #: SHA-256 of stage, class name and name, in hex.
    hash: Mapped[str] = mapped_column(String(64))

    __table_args__ = (UniqueConstraint("project_id", "hash"),)


class TestResult(Base):
    """How a test came out in one attempt."""

    __tablename__ = "test_result"
    __test__ = False  # not for pytest

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    case_id: Mapped[int] = mapped_column(Id, ForeignKey("test_case.id"))
    step_id: Mapped[int] = mapped_column(Id, ForeignKey("step.id"))
    attempt: Mapped[int]
    #: passed, failed, error or skipped.
    state: Mapped[str] = mapped_column(String(8))
    seconds: Mapped[float]
    #: What the report says of a failure, an error or a skip; cut to a stated length.
    text: Mapped[str] = mapped_column(Text, default="")

    __table_args__ = (Index("ix_test_result_case", "case_id", "id"), Index("ix_test_result_step", "step_id", "attempt"))


class Artifact(Base):
    """A file that a stage left to be kept."""

    __tablename__ = "artifact"

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    project_id: Mapped[int] = mapped_column(Id, ForeignKey("project.id"))
    run_id: Mapped[int] = mapped_column(Id, ForeignKey("run.id"))
    step_id: Mapped[int] = mapped_column(Id, ForeignKey("step.id"))
    attempt: Mapped[int]
    #: Absolute path inside the container.
    path: Mapped[str] = mapped_column(Text)
    size: Mapped[int] = mapped_column(Id)
    sha256: Mapped[str] = mapped_column(String(64))
    #: Name in the blob store.
    blob: Mapped[str] = mapped_column(String(200))
    created_at: Mapped[datetime] = mapped_column(UTCDateTime)
    expires_at: Mapped[datetime] = mapped_column(UTCDateTime, index=True)
    #: Set when its blob was removed after it expired.
    removed_at: Mapped[datetime | None] = mapped_column(UTCDateTime)

    __table_args__ = (UniqueConstraint("step_id", "attempt", "path"),)


class Snapshot(Base):
    """What a failed attempt left in /work and /tmp, kept as an image on the engine that ran it."""

    __tablename__ = "snapshot"

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    project_id: Mapped[int] = mapped_column(Id, ForeignKey("project.id"))
    run_id: Mapped[int] = mapped_column(Id, ForeignKey("run.id"))
    step_id: Mapped[int] = mapped_column(Id, ForeignKey("step.id"))
    attempt: Mapped[int]
    #: Image id on the engine.
    image: Mapped[str] = mapped_column(Text)
    size: Mapped[int] = mapped_column(Id)
    created_at: Mapped[datetime] = mapped_column(UTCDateTime)
    expires_at: Mapped[datetime] = mapped_column(UTCDateTime, index=True)
    removed_at: Mapped[datetime | None] = mapped_column(UTCDateTime)

    __table_args__ = (UniqueConstraint("step_id", "attempt"),)


class LogChunk(Base):
    """A piece of a step's log in the blob store. Chunks of one attempt lie end to end."""

    __tablename__ = "log_chunk"

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    step_id: Mapped[int] = mapped_column(Id, ForeignKey("step.id"))
    attempt: Mapped[int]
    #: Position of the first byte in the whole log, and the number of bytes.
    start: Mapped[int] = mapped_column(Id)
    size: Mapped[int]
    #: Blob of the time of each line that begins in it; empty where times are not known. See `cd.pipeline.logs`.
    times: Mapped[str] = mapped_column(String(200), default="", server_default="")
    #: Newlines before this chunk, and in it.
    first_line: Mapped[int] = mapped_column(Id)
    lines: Mapped[int]
    #: Name in the blob store; zstd.
    blob: Mapped[str] = mapped_column(String(200))

    __table_args__ = (UniqueConstraint("step_id", "attempt", "start"),)
