"""A worker's rehearsal: each job runs in a fresh fork, which is quick only if its statements are prepared already."""

from __future__ import annotations

import secrets

from sqlalchemy.orm import Session

from cd.pipeline import attempts as history
from cd.pipeline import projects, runs, verdicts
from cd.pipeline.definition import DeploySpec, Pipeline, StageSpec
from cd.pipeline.plan import Occasion, plan
from cd.pipeline.records import Step
from cd.promote import attempts, environments, policy, releases
from cd.sandbox.base import StageResult
from cd.store import tasks
from cd.store.base import now
from cd.store.tasks import Claim, Ring
from cd.wiring import Services

IMAGE = "sha256:" + "0" * 64
ENVIRONMENT = (
    b'environments: [{name: dev, from: {branches: [main]}, target: {kind: docker, url: "http://127.0.0.1:1"}}]'
)


def rehearse(services: Services) -> None:
    """Play one push from its webhook to its deployment in the database, and take all of it back.

    SQLAlchemy keeps what it made of each statement; a fork inherits it, and needs a tenth of a second less.
    """
    with services.database.rehearsal() as session:
        _play(session, services)
    services.sandbox.after_fork()
    services.builder.prepare()  # probing for a build tool takes 60 ms: once here, not in each fork


def _play(session: Session, services: Services) -> None:
    slug = f"rehearsal-{secrets.token_hex(6)}"
    project, _ = projects.create(session, services.vault, slug=slug, forge="generic", clone_url=None, actor="towpath")
    environments.apply(session, project, policy.parse(ENVIRONMENT), "towpath")
    run = runs.create(session, project, event="push", ref="refs/heads/main", sha="0" * 40)
    pipeline = Pipeline(stages={"unit": StageSpec(run=("true",))}, deploy=DeploySpec())
    build = _begun(session, services)
    run.image, run.deploy = IMAGE, DeploySpec().model_dump(mode="json", by_alias=True)
    runs.add_stages(session, run, plan(pipeline, Occasion(run.event, run.ref)), {"unit": IMAGE})
    session.flush()
    runs.end_step(session, session.get_one(Step, build.subject), "passed", releases.run_ended)
    tasks.finish(session, build)
    stage = _begun(session, services)
    tasks.renew(session, stage, 1)
    step = session.get_one(Step, stage.subject)
    history.record(session, run, step, "passed", StageResult(0, False, False, False, now(), now()))
    verdicts.keep(session, run, step)
    runs.end_step(session, step, "passed", releases.run_ended, exit_code=0)
    tasks.finish(session, stage)
    deploy = _claimed(session)
    attempts.begin(session, deploy, "rehearsal")


def _begun(session: Session, services: Services) -> Claim:
    claim = _claimed(session)
    runs.start_step(session, claim.subject, claim.fence)
    return claim


def _claimed(session: Session) -> Claim:
    """The task that was called for last."""
    rings: list[Ring] = session.info["rings"]
    claim = tasks.claim(session, rings[-1].task_id, "rehearsal", 60)
    assert claim is not None
    return claim
