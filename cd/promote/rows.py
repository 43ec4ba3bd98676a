"""The frozen rows that pages and the API show of environments, releases and promotions, and how records become them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from cd.pipeline.queries import ProjectRow, RunRow
from cd.promote.records import Deployment, Environment, Promotion, Release
from cd.promote.states import PENDING, PROMOTION

#: States in which a promotion still has something before it.
OPEN = frozenset(PROMOTION.transitions) - PROMOTION.terminal


@dataclass(frozen=True)
class ReleaseRow:
    """A release: an image that passed, and where it comes from."""

    id: int
    number: int
    run_number: int
    image: str
    sha: str
    ref: str
    subject: str
    author: str
    pusher: str
    created_at: datetime
    #: When its image was let go; it can't be promoted any more.
    retired_at: datetime | None = None

    @property
    def branch(self) -> str:
        """The branch's or the tag's name."""
        return self.ref.removeprefix("refs/heads/").removeprefix("refs/tags/")


@dataclass(frozen=True)
class Moment:
    """One line of a deployment's timeline."""

    at: str
    what: str
    ok: bool


@dataclass(frozen=True)
class DeploymentRow:
    """One attempt to run a release in an environment."""

    release: ReleaseRow
    id: int
    promotion_id: int
    environment_id: int
    state: str
    reason: str
    kind: str
    by: str
    started_at: datetime
    finished_at: datetime | None
    timeline: tuple[Moment, ...] = ()
    #: Name and text of each piece of evidence that a failure left.
    evidence: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class PromotionRow:
    """A request to bring a release into an environment."""

    release: ReleaseRow
    id: int
    environment_id: int
    kind: str
    state: str
    reason: str
    fingerprint: str
    requested_by: str
    created_at: datetime
    finished_at: datetime | None
    approvals: int = 0

    @property
    def open(self) -> bool:
        """Whether something still follows."""
        return self.state in OPEN

    @property
    def pending(self) -> bool:
        """Whether votes count and it can still be canceled."""
        return self.state in PENDING


@dataclass(frozen=True)
class Slot:
    """An environment on the board: what runs there, what wants to, and what came of the last try."""

    id: int
    project_id: int
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
    live: DeploymentRow | None = None
    open: PromotionRow | None = None
    #: The newest promotion, when it ended badly and nothing came after it.
    trouble: PromotionRow | None = None
    #: The newest release that could come here and isn't: live in all of `after`, or the project's newest.
    next: ReleaseRow | None = None

    @property
    def behind(self) -> int:
        """How many release numbers lie between what runs here and what could."""
        return self.next.number - (self.live.release.number if self.live else 0) if self.next else 0


@dataclass(frozen=True)
class BoardRow:
    """One project on the board."""

    project: ProjectRow
    runs: tuple[RunRow, ...]
    slots: tuple[Slot, ...]


@dataclass(frozen=True)
class Vote:
    """One person's vote. `stands` is False when what it was for has changed since."""

    username: str
    vote: str
    comment: str
    at: datetime
    stands: bool


@dataclass(frozen=True)
class PromotionDetail:
    """All that the page of a promotion shows, but its gates, which `promotions.gates` tells."""

    promotion: PromotionRow
    project: ProjectRow
    environment: Slot
    #: What ran there when its deployment began; what runs there now when it has none.
    current: ReleaseRow | None
    #: The releases that come with it, newest first; what is taken away for a step back.
    changes: tuple[ReleaseRow, ...]
    votes: tuple[Vote, ...]
    deployment: DeploymentRow | None

    @property
    def back(self) -> bool:
        """Whether it goes to an older release than the one there."""
        return self.current is not None and self.promotion.release.number < self.current.number


def slot(row: Environment) -> Slot:
    spec = row.spec
    target, approvals = spec.get("target") or {}, spec.get("approvals") or {}
    manual = spec.get("promote") == "manual"
    required = approvals.get("required")
    return Slot(
        id=row.id,
        project_id=row.project_id,
        name=row.name,
        position=row.position,
        version=row.version,
        hold=row.hold,
        held_by=row.held_by,
        after=tuple(spec.get("after") or ()),
        manual=manual,
        required=int(manual) if required is None else int(required),
        target=str(target.get("kind", "")),
        url=str(target.get("url") or ""),
    )


#: Columns of a ReleaseRow, a PromotionRow and a DeploymentRow, in their order: rows of columns cost a third of objects.
RELEASE = (
    Release.id,
    Release.number,
    Release.run_number,
    Release.image,
    Release.sha,
    Release.ref,
    Release.subject,
    Release.author,
    Release.pusher,
    Release.created_at,
    Release.retired_at,
)
_OF_PROMOTION = (
    Promotion.id,
    Promotion.environment_id,
    Promotion.kind,
    Promotion.state,
    Promotion.reason,
    Promotion.fingerprint,
    Promotion.requested_by,
    Promotion.created_at,
    Promotion.finished_at,
)
PROMOTION_COLUMNS = (*RELEASE, *_OF_PROMOTION)
_OF_DEPLOYMENT = (
    Deployment.id,
    Deployment.promotion_id,
    Deployment.environment_id,
    Deployment.state,
    Deployment.reason,
    Promotion.kind,
    Promotion.requested_by,
    Deployment.started_at,
    Deployment.finished_at,
)
DEPLOYMENT_COLUMNS = (*RELEASE, *_OF_DEPLOYMENT)
#: What happened and what a failure left: for the pages of single deployments.
STORY_COLUMNS = (*DEPLOYMENT_COLUMNS, Deployment.timeline, Deployment.evidence)


def promotion(found: Sequence[Any]) -> PromotionRow:
    """From PROMOTION_COLUMNS."""
    width = len(RELEASE)
    return PromotionRow(ReleaseRow(*found[:width]), *found[width : width + len(_OF_PROMOTION)])


def deployment(found: Sequence[Any]) -> DeploymentRow:
    """From DEPLOYMENT_COLUMNS or STORY_COLUMNS."""
    width = len(RELEASE)
    row = DeploymentRow(ReleaseRow(*found[:width]), *found[width : len(DEPLOYMENT_COLUMNS)])
    if len(found) < len(STORY_COLUMNS):
        return row
    timeline, evidence = found[len(DEPLOYMENT_COLUMNS) : len(STORY_COLUMNS)]
    return replace(
        row,
        timeline=tuple(
            Moment(str(one.get("at", "")), str(one.get("what", "")), bool(one.get("ok", True))) for one in timeline
        ),
        evidence=tuple((str(name), text) for name, value in evidence.items() if (text := _text(value))),
    )


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else ""
    if value is None:
        return ""
    return "\n".join(map(str, value)) if isinstance(value, list) else str(value)
