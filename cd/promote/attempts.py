"""The rows of one deployment, from its begin to its end: each function is a part of one short transaction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from cd.errors import StaleWrite
from cd.pipeline.definition import DeploySpec
from cd.pipeline.records import Project
from cd.promote.gates import TOWPATH
from cd.promote.opening import follow, record
from cd.promote.policy import EnvironmentSpec, stored
from cd.promote.progress import RETIRE, lock, refresh, refresh_all
from cd.promote.records import Deployment, Environment, Promotion, Release
from cd.promote.states import DEPLOYMENT, PROMOTION
from cd.promote.targets.base import App, Place
from cd.store import tasks
from cd.store.base import now
from cd.store.states import move
from cd.store.tasks import Claim

#: States of a promotion in which its deployment goes on.
OPEN = ("deploying", "verifying", "rolling_back")


@dataclass(frozen=True)
class Line:
    """One line of a deployment's timeline."""

    at: datetime
    what: str
    ok: bool

    def as_json(self) -> dict[str, Any]:
        """Plain values, to be stored."""
        return {"at": self.at.isoformat(), "what": self.what, "ok": self.ok}


@dataclass(frozen=True)
class Attempt:
    """A deployment as its worker needs it. `reuse`: containers of an earlier one serve the same already."""

    id: int
    #: Fence of the claim; each write carries it.
    fence: int
    #: The promotion's.
    state: str
    #: Whether it is the one that serves.
    live: bool
    spec: EnvironmentSpec
    app: App
    previous: App | None
    previous_spec: EnvironmentSpec | None
    reuse: App | None

    @property
    def served(self) -> App:
        """The version whose containers serve this deployment."""
        return self.reuse or self.app


def begin(session: Session, claim: Claim, instance: str) -> Attempt | None:
    """Start the promotion's deployment for the holder of the claim, or go on with it; None when there is none to do.

    All gates are looked at once more. A promotion that has to wait for its turn is called for when that comes.
    """
    promotion = session.get_one(Promotion, claim.subject)
    environment = lock(session, promotion.environment_id)
    session.refresh(promotion)
    refresh(session, promotion, environment)
    if promotion.state == "queued" and not _busy(session, environment.id):
        deployment = _start(session, promotion, environment, claim.fence)
    else:
        found = of_promotion(session, promotion.id)
        if found is None:
            return None
        deployment = found
        if promotion.state in OPEN:
            _take_over(session, promotion, deployment, claim.fence)
    place = place_of(session, environment, instance)
    return _attempt(session, promotion, deployment, place, claim.fence)


def _busy(session: Session, environment_id: int) -> bool:
    query = select(Deployment.id).where(Deployment.environment_id == environment_id, Deployment.state == "deploying")
    return session.scalar(query) is not None


def of_promotion(session: Session, promotion_id: int) -> Deployment | None:
    """The promotion's deployment, if it has one yet."""
    return session.scalars(select(Deployment).where(Deployment.promotion_id == promotion_id)).one_or_none()


def _start(session: Session, promotion: Promotion, environment: Environment, fence: int) -> Deployment:
    release = session.get_one(Release, promotion.release_id)
    live = _live(session, environment.id)
    deployment = Deployment(
        project_id=promotion.project_id,
        environment_id=environment.id,
        promotion_id=promotion.id,
        release_id=release.id,
        state="deploying",
        previous_id=live.id if live else None,
        image=release.image,
        environment_version=environment.version,
        spec=environment.spec,
        fence=fence,
        started_at=now(),
    )
    session.add(deployment)
    session.flush()
    same = live is not None and _same(session, live, deployment, release)
    deployment.serving_id = live.serving_id if live and same else deployment.id
    move(session, PROMOTION, promotion, "deploying", fence=fence, due_at=None)
    return deployment


def _live(session: Session, environment_id: int) -> Deployment | None:
    query = select(Deployment).where(Deployment.environment_id == environment_id, Deployment.state == "live")
    return session.scalars(query).one_or_none()


def _same(session: Session, live: Deployment, wanted: Deployment, release: Release) -> bool:
    """Whether what runs is, to the last setting, what would be started.

    The release's number is told to the container, but is no reason to start it anew.
    """
    ours = (wanted.image, wanted.spec, release.deploy)
    return ours == (live.image, live.spec, session.get_one(Release, live.release_id).deploy)


def _take_over(session: Session, promotion: Promotion, deployment: Deployment, fence: int) -> None:
    """Both rows get the fence of their new holder, so that the old one can't write any more."""
    for row in (promotion, deployment):
        table = type(row)
        taken = session.execute(
            update(table)
            .where(table.id == row.id, table.state == row.state, table.fence < fence)
            .values(fence=fence)
            .returning(table.id)
        ).one_or_none()
        if taken is None:
            raise StaleWrite(f"{table.__tablename__} {row.id} is held by a newer fence than {fence}")
        session.refresh(row)


def _attempt(session: Session, promotion: Promotion, deployment: Deployment, place: Place, fence: int) -> Attempt:
    previous = session.get_one(Deployment, deployment.previous_id) if deployment.previous_id else None
    app = _app(session, deployment, place, deployment.id)
    before = _app(session, previous, place, previous.serving_id or previous.id) if previous else None
    reused = deployment.serving_id not in (None, deployment.id)
    return Attempt(
        id=deployment.id,
        fence=fence,
        state=promotion.state,
        live=deployment.state == "live",
        spec=stored(deployment.spec),
        app=app,
        previous=before,
        previous_spec=stored(previous.spec) if previous else None,
        reuse=before if reused else None,
    )


def place_of(session: Session, environment: Environment, instance: str) -> Place:
    """The environment as targets know it."""
    slug = session.get_one(Project, environment.project_id).slug
    return Place(instance, environment.id, slug, environment.name)


def live_app(session: Session, environment: Environment, place: Place) -> App | None:
    """The version that should have the environment's traffic."""
    live = _live(session, environment.id)
    return _app(session, live, place, live.serving_id or live.id) if live else None


def _app(session: Session, deployment: Deployment, place: Place, serving_id: int) -> App:
    release, spec = session.get_one(Release, deployment.release_id), stored(deployment.spec)
    told = {
        "TOWPATH_RELEASE": str(release.number),
        "TOWPATH_COMMIT": release.sha,
        "TOWPATH_ENVIRONMENT": place.environment,
    }
    deploy = DeploySpec.model_validate(release.deploy or {})
    return App(place, serving_id, deployment.image, deploy, spec.target, {**spec.env, **told})


def _held(session: Session, attempt: Attempt, lines: Sequence[Line]) -> tuple[Promotion, Deployment]:
    """Both rows, if they are still the holder's; the timeline grows by `lines`. The environment is locked."""
    deployment = session.get_one(Deployment, attempt.id)
    lock(session, deployment.environment_id)
    session.refresh(deployment)
    promotion = session.get_one(Promotion, deployment.promotion_id, populate_existing=True)
    if (deployment.fence, promotion.fence) != (attempt.fence, attempt.fence):
        raise StaleWrite(f"deployment {deployment.id} is no longer ours at fence {attempt.fence}")
    deployment.timeline = [*deployment.timeline, *(line.as_json() for line in lines)]
    session.flush()
    return promotion, deployment


def not_reused(session: Session, attempt: Attempt, lines: Sequence[Line]) -> None:
    """What should have served it already is gone: it is deployed like any other."""
    _, deployment = _held(session, attempt, lines)
    deployment.serving_id = deployment.id


def enter(session: Session, attempt: Attempt, lines: Sequence[Line], state: str) -> None:
    """The next state on the way: `verifying` as traffic moves, `rolling_back` when it has to move back."""
    promotion, _ = _held(session, attempt, lines)
    if promotion.state != state:
        move(session, PROMOTION, promotion, state, held=attempt.fence)


def turn_back(session: Session, attempt: Attempt, lines: Sequence[Line], reason: str, evidence: dict[str, Any]) -> None:
    """It had the traffic and failed: what was seen is kept, the version before gets the traffic again."""
    enter(session, attempt, lines, "rolling_back")
    deployment = session.get_one(Deployment, attempt.id)
    deployment.reason, deployment.evidence = reason, evidence


def succeed(session: Session, attempt: Attempt, lines: Sequence[Line]) -> None:
    """It is live: the one before is retired, and the promotions that follow by policy are opened."""
    promotion, deployment = _held(session, attempt, lines)
    at, live = now(), _live(session, deployment.environment_id)
    if live is not None:
        move(session, DEPLOYMENT, live, "retired", retired_at=at)
    move(session, DEPLOYMENT, deployment, "live", held=attempt.fence, finished_at=at)
    move(session, PROMOTION, promotion, "succeeded", held=attempt.fence, finished_at=at)
    tasks.add(session, RETIRE, promotion.id)
    release = session.get_one(Release, promotion.release_id)
    _told(session, promotion, deployment, release, "succeed")
    if promotion.kind == "promote":
        follow(session, release)
    _after(session, promotion.environment_id)


def fail(
    session: Session,
    attempt: Attempt,
    lines: Sequence[Line],
    *,
    state: str,
    reason: str = "",
    evidence: dict[str, Any] | None = None,
) -> None:
    """It ended without going live: the promotion is `failed`, `rolled_back` or `rollback_failed`.

    Without a reason the one that `turn_back` gave stands.
    """
    promotion, deployment = _held(session, attempt, lines)
    if evidence is not None:
        deployment.evidence = evidence
    reason, at = reason or deployment.reason, now()
    ended = state if state in DEPLOYMENT.transitions else "rolled_back"
    move(session, DEPLOYMENT, deployment, ended, held=attempt.fence, reason=reason, finished_at=at)
    move(session, PROMOTION, promotion, state, held=attempt.fence, reason=reason, finished_at=at)
    _told(session, promotion, deployment, session.get_one(Release, promotion.release_id), state)
    _after(session, promotion.environment_id)


def _told(session: Session, promotion: Promotion, deployment: Deployment, release: Release, verb: str) -> None:
    environment = session.get_one(Environment, promotion.environment_id)
    record(
        session,
        TOWPATH,
        f"promotion.{verb}",
        environment,
        promotion,
        release=release.number,
        image=deployment.image,
        deployment=deployment.id,
    )


def _after(session: Session, environment_id: int) -> None:
    """The environment is free: what waits for its turn is called for."""
    refresh_all(session, session.get_one(Environment, environment_id))


def give_up(session: Session, promotion_id: int, error: str) -> None:
    """The promotion's task is given up: a deployment that was under way is `errored`. `clean` removes what is left."""
    promotion = session.get_one(Promotion, promotion_id)
    lock(session, promotion.environment_id)
    session.refresh(promotion)
    deployment = of_promotion(session, promotion_id)
    if deployment is None or promotion.state not in OPEN:
        return
    at, back = now(), promotion.state == "rolling_back"
    move(session, DEPLOYMENT, deployment, "rolled_back" if back else "errored", reason=error, finished_at=at)
    move(session, PROMOTION, promotion, "rollback_failed" if back else "errored", reason=error, finished_at=at)
    _told(session, promotion, deployment, session.get_one(Release, promotion.release_id), promotion.state)
    _after(session, promotion.environment_id)
