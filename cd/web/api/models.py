"""What the API takes and gives, as its OpenAPI description shows it. Times are RFC 3339 in UTC."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr

#: Runs that have not begun, those too that have, or none.
Supersede = Literal["waiting", "running", "never"]


class Shown(BaseModel):
    """Read from a row of the read models."""

    model_config = ConfigDict(from_attributes=True)


class Taken(BaseModel):
    """A request's body; keys that are not known are faults."""

    model_config = ConfigDict(extra="forbid")


class ProjectPath(BaseModel):
    slug: str


class EnvironmentPath(ProjectPath):
    name: str


class SecretPath(ProjectPath):
    name: str


class RunPath(ProjectPath):
    number: int = Field(ge=1, le=2**31)


class StepPath(RunPath):
    step: str


class PromotionPath(BaseModel):
    promotion: int = Field(ge=1, le=2**53)


class DeliveryPath(BaseModel):
    delivery: int = Field(ge=1, le=2**53)


class UserPath(BaseModel):
    username: str


class TokenPath(BaseModel):
    token: int = Field(ge=1, le=2**53)


class Page(BaseModel):
    before: int | None = Field(None, ge=1, le=2**53, description="The `next` of the page before.")
    limit: int = Field(50, ge=1, le=200)


class PromotionQuery(Page):
    environment: str | None = Field(None, description="Only into this environment.")


class LogQuery(BaseModel):
    start: int = Field(0, ge=0, description="First byte.")
    attempt: int | None = Field(None, ge=1, description="Default: the newest.")
    follow: bool = Field(False, description="Keep the answer open until the step ends.")


class EventsQuery(BaseModel):
    project: str | None = Field(None, description="Only of this project.")
    after: int | None = Field(None, ge=0, le=2**53, description="Id of an event, where there is no Last-Event-ID.")


class Project(Shown):
    slug: str
    forge: str
    clone_url: str | None
    hosted: bool
    created_at: datetime
    supersede: Supersede = Field(description="Which runs of a branch a newer push ends.")
    parallel: int | None = Field(description="Builds and stages at the same time at most.")
    keep_failed: bool = Field(description="Whether a failed stage's files are kept for `towpath shell`.")


class ProjectSettings(Taken):
    supersede: Supersede | None = Field(None, description="Which runs of a branch a newer push ends.")
    parallel: int | None = Field(None, ge=0, le=1000, description="Builds and stages at a time; 0: no limit.")
    keep_failed: bool | None = Field(None, description="Keep a failed stage's files for `towpath shell`.")


class SecretValue(Taken):
    value: SecretStr = Field(description="At most 64 KiB; it is not shown again.")


class Secret(Shown):
    name: str
    version: int = Field(description="Grows with each change; stages that ask for it are run anew.")
    changed_by: str
    changed_at: datetime


class StoredSecret(BaseModel):
    name: str
    version: int


class Secrets(BaseModel):
    items: list[Secret]


class NewProject(Taken):
    slug: str
    forge: str = "generic"
    clone_url: str | None = Field(None, description="Where the repository is; none with `hosted`.")
    hosted: bool = Field(False, description="Towpath makes the repository itself.")


class CreatedProject(Project):
    webhook_url: str
    webhook_secret: str = Field(description="Shown only now.")
    push_url: str | None = Field(description="The hosted repository.")


class Reused(Shown):
    run_number: int
    step: str
    at: datetime
    seconds: float


class Waits(Shown):
    reason: str
    seconds: float | None = Field(description="About how long until it starts; null when unknown.")


class Step(Shown):
    name: str
    kind: str
    state: str
    reason: str
    needs: tuple[str, ...]
    allow_failure: bool
    image: str | None
    attempt: int
    exit_code: int | None
    cause: str | None
    command: tuple[str, ...]
    queued_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    reused: Reused | None
    stage: str
    cell: Mapping[str, str]
    services: Mapping[str, str]
    when: Mapping[str, Sequence[str]]
    network: str
    key: str | None = Field(description="Stage key that it ran under, or stands on.")
    waits: Waits | None = Field(None, description="Why it waits; null when it does not.")


class Run(Shown):
    number: int
    slug: str
    state: str
    reason: str
    event: str
    ref: str
    sha: str
    subject: str
    author: str
    pusher: str
    trusted: bool
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


class RunDetail(Run):
    message: str
    notes: tuple[str, ...]
    image: str | None
    tree: str | None
    fresh: bool
    canceled_by: str | None
    retry_of: int | None
    steps: tuple[Step, ...]
    release: int | None


class NewRun(Taken):
    ref: str = Field("main", description="Branch, tag or full ref.")


class Retry(Taken):
    fresh: bool = Field(False, description="Build and test everything again, whatever is known.")
    failed: bool = Field(False, description="Refuse when nothing failed.")


class FlakeQuery(BaseModel):
    limit: int = Field(50, ge=1, le=200)


class Flake(Shown):
    stage: str = Field(validation_alias="name")
    image: str
    key: str
    passed: int = Field(description="Times that it passed with this image and key.")
    failed: int
    last_at: datetime
    passed_run: int = Field(description="The last run in which it passed.")
    failed_run: int


class Flakes(BaseModel):
    items: list[Flake]


class FalseHit(Shown):
    stage: str
    run_number: int
    image: str
    key: str
    at: datetime


class Reuse(Shown):
    reused: int = Field(description="Stages that stood on an earlier result.")
    saved: float = Field(description="Seconds of stages that did not run.")
    audited: int = Field(description="How many of them were run again to see whether that was right.")
    false_hits: int = Field(description="How many of those then failed.")
    newest: tuple[FalseHit, ...]


class Release(Shown):
    number: int
    run_number: int
    image: str
    sha: str
    ref: str
    subject: str
    author: str
    pusher: str
    created_at: datetime
    retired_at: datetime | None = Field(None, description="When its image was let go; it can't be promoted any more.")


class Deployment(Shown):
    release: Release
    state: str
    reason: str
    started_at: datetime
    finished_at: datetime | None


class Promotion(Shown):
    id: int
    release: Release
    kind: str
    state: str
    reason: str
    fingerprint: str
    requested_by: str
    created_at: datetime
    finished_at: datetime | None


class Environment(Shown):
    name: str
    position: int
    version: int
    hold: str | None
    held_by: str | None
    after: tuple[str, ...]
    manual: bool
    required: int
    target: str
    url: str
    live: Deployment | None
    open: Promotion | None


class BoardProject(BaseModel):
    slug: str
    runs: list[Run]
    environments: list[Environment]


class Gate(Shown):
    name: str
    state: Literal["passed", "waiting", "blocked"]
    evidence: str
    who: str


class Vote(Shown):
    username: str
    vote: str
    comment: str
    at: datetime
    stands: bool


class Moment(Shown):
    at: str
    what: str
    ok: bool


class PromotionDetail(Promotion):
    project: str
    environment: str
    gates: list[Gate] = Field(description="Empty once it has ended.")
    why_not: str = Field(description="Why you may not approve it; empty: you may.")
    votes: list[Vote]
    timeline: list[Moment]
    evidence: dict[str, str]


class PlacedPromotion(Promotion):
    project: str
    environment: str


class NewPromotion(Taken):
    release: int = Field(ge=1, description="Number of the release.")
    environment: str


class Rollback(Taken):
    release: int | None = Field(None, ge=1, description="Default: the one that was live before.")
    reason: str = Field("", max_length=2000)


class VoteBody(Taken):
    fingerprint: str = Field(description="Of the promotion as it was seen; a change since then voids the vote.")
    comment: str = Field("", max_length=2000)


class Hold(Taken):
    reason: str = Field(max_length=2000)


class Delivery(Shown):
    id: int
    delivery_id: str
    event: str
    received_at: datetime
    outcome: str
    reason: str
    run: int | None = Field(None, description="Number of the run.")


class DeliveryDetail(Delivery):
    headers: dict[str, str]
    body: str


class AuditEntry(Shown):
    id: int
    at: datetime
    actor: str
    action: str
    subject: str
    detail: dict[str, Any]
    hash: str


class AuditVerdict(BaseModel):
    intact: bool
    broken: str | None


class User(Shown):
    username: str
    role: str
    created_at: datetime
    disabled_at: datetime | None


class NewUser(Taken):
    username: str
    password: str
    role: str = "developer"


class UserChange(Taken):
    role: str | None = None
    password: str | None = None
    disabled: bool | None = None


class Token(Shown):
    id: int
    name: str
    created_at: datetime
    last_used_at: datetime | None


class NewToken(Taken):
    name: str
    username: str | None = Field(None, description="With the password, where there is no token yet.")
    password: str | None = None


class CreatedToken(BaseModel):
    token: str = Field(description="Shown only now.")
    username: str
    role: str


class Me(Shown):
    username: str
    role: str


class Projects(BaseModel):
    items: list[Project]


class Runs(BaseModel):
    items: list[Run]
    next: int | None


class Releases(BaseModel):
    items: list[Release]
    next: int | None


class Environments(BaseModel):
    items: list[Environment]


class Promotions(BaseModel):
    items: list[PlacedPromotion]
    next: int | None = None


class Deliveries(BaseModel):
    items: list[Delivery]
    next: int | None


class AuditEntries(BaseModel):
    items: list[AuditEntry]
    next: int | None


class Users(BaseModel):
    items: list[User]


class Tokens(BaseModel):
    items: list[Token]


class Board(BaseModel):
    items: list[BoardProject]
