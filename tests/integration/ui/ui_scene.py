"""A few weeks of work in a database: projects, runs, releases, promotions and their logs, as pages show them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from datetime import timedelta

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from cd.identity import audit, users
from cd.identity.people import Person, Role
from cd.pipeline import projects, runs
from cd.pipeline.parse import parse as parse_pipeline
from cd.pipeline.plan import Occasion, plan
from cd.pipeline.records import Project, Run, Step, Verdict
from cd.promote import environments, opening, policy
from cd.promote.records import Deployment, Environment, Promotion, Release
from cd.store.base import now
from cd.wiring import Services

PASSWORD = "correct horse battery"
HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>"

ENVIRONMENTS = b"""
environments:
  - name: dev
    from: {branches: [main]}
    target: {kind: docker, url: "http://127.0.0.1:18101"}
  - name: staging
    after: [dev]
    target: {kind: docker, url: "http://127.0.0.1:18102"}
  - name: prod
    after: [staging]
    promote: manual
    approvals: {required: 2, from: [approver], self_approval: false, expire: 3d}
    target: {kind: docker, url: "http://127.0.0.1:18103"}
"""

PIPELINE = b"""
stages:
  lint: {run: ruff check .}
  types: {run: mypy app}
  unit: {run: pytest -q --junitxml=/work/junit.xml}
  integration: {run: "pytest -q tests/integration", needs: [unit]}
  browser: {run: "playwright test", needs: [unit], allow_failure: true}
  package: {run: "python -m build", needs: [integration, types]}
deploy:
  command: [python, app.py]
  port: 8000
"""

SUBJECTS = (
    "Cache the price list",
    "Round VAT per line, not per order",
    "Orders: one query instead of eleven",
    "Ship to islands",
    "Currency of the invoice follows the customer",
    "Pay by invoice for companies",
    "Retry soft bounces",
    "Typo tolerance for short words",
)
PEOPLE = ("ana", "leo", "tom", "ivy")
TOOK = {"build": 6.2, "lint": 1.8, "types": 9.4, "unit": 29.1, "integration": 41.7, "browser": 63.0, "package": 4.4}

LOG = (
    b"\x1b[1m$ pytest -q --junitxml=/work/junit.xml\x1b[0m\n"
    b"\x1b[36mcollected 274 items\x1b[0m\n"
    b"\x1b[32m" + b"." * 60 + b" [ 21%]\x1b[0m\n"
    b"\x1b[32m" + b"." * 42 + b"\x1b[31mF\x1b[32m" + b"." * 17 + b" [ 43%]\x1b[0m\n"
    b"downloading   0%\rdownloading  57%\rdownloading 100%\n"
    b"\x1b[33mtests/test_invoice.py::test_due_date_skips_weekend  slow: 6.1 s\x1b[0m\n"
    + HOSTILE.encode()
    + b"\n\x1b[31m\x1b[1mE   AssertionError: due on \x1b[0m\x1b[38;5;208mSaturday\x1b[0m"
    b", wanted \x1b[38;2;120;200;255mMonday\x1b[0m\n"
)


@dataclass
class Scene:
    """What was made, by name."""

    services: Services
    people: dict[str, Person] = field(default_factory=dict)
    projects: dict[str, int] = field(default_factory=dict)
    #: The promotion of shop that waits for the second of two approvals.
    waiting: int = 0
    #: The deployment of mailer that failed.
    failed: int = 0


def fill(services: Services) -> Scene:
    """Everything. The last run of shop is running, its step `integration` with a log."""
    scene = Scene(services)
    with services.database.write() as session:
        for name, role in (("maya", Role.admin), ("leo", Role.approver), ("ana", Role.developer), ("vic", Role.viewer)):
            scene.people[name] = users.person_of(users.create(session, "towpath", name, PASSWORD, role))
    for slug in ("shop", "search-api", "mailer", "handbook"):
        with services.database.write() as session:
            made, _ = projects.create(
                session, services.vault, slug=slug, forge="generic",
                clone_url=f"https://git.example.com/acme/{slug}.git", actor="maya",
            )  # fmt: skip
            scene.projects[slug] = made.id
            if slug != "handbook":
                environments.apply(session, made, policy.parse(ENVIRONMENTS), "maya")
    with services.database.write() as session:
        _shop(session, scene)
        _quiet(session, scene)
        _mailer(session, scene)
    _logs(scene)
    return scene


def _run(session: Session, scene: Scene, slug: str, state: str, minutes: float, **more: object) -> Run:
    project = session.get_one(Project, scene.projects[slug])
    number = project.next_run
    message = SUBJECTS[number % len(SUBJECTS)]
    values = {
        "event": "push", "ref": "refs/heads/main", "sha": hashlib.sha1(f"{slug}{number}".encode()).hexdigest(),
        "message": f"{message}\n\nThe rest of the story.", "author": PEOPLE[number % 4], "pusher": PEOPLE[number % 4],
    } | more  # fmt: skip
    run = runs.create(session, project, **values)  # type: ignore[arg-type]
    begun = now() - timedelta(minutes=minutes)
    pipeline = parse_pipeline(PIPELINE)
    runs.add_stages(session, run, plan(pipeline, Occasion(run.event, run.ref)))
    run.created_at, run.started_at, run.state = begun, begun + timedelta(seconds=0.3), state
    run.deploy = pipeline.deploy.model_dump(mode="json") if pipeline.deploy else None
    run.image = "sha256:" + hashlib.sha256(f"{slug}{number}".encode()).hexdigest()
    if state in ("passed", "failed", "errored", "canceled"):
        run.finished_at = begun + timedelta(seconds=98)
    session.flush()
    return run


def _steps(session: Session, run: Run, states: dict[str, str]) -> dict[str, Step]:
    """Give the run's steps these states (the rest passed), with times that follow from their needs."""
    found = {step.name: step for step in runs.steps_of(session, run.id)}
    end: dict[str, float] = {}
    for step in found.values():
        state = states.get(step.name, "passed")
        begin = max([end.get(need, 0.0) for need in step.needs], default=0.4)
        end[step.name] = begin + (TOOK[step.name] if state not in ("reused", "skipped") else 0.0)
        step.state = state
        if state in ("waiting", "skipped", "reused", "canceled"):
            continue
        step.attempt = 1
        step.queued_at = run.created_at + timedelta(seconds=begin)
        step.started_at = step.queued_at + timedelta(seconds=0.3)
        if state != "running":
            step.finished_at = run.created_at + timedelta(seconds=end[step.name])
            step.exit_code = 1 if state == "failed" else 0
    session.flush()
    return found


def _release(session: Session, run: Run) -> Release:
    newest = session.scalar(select(func.max(Release.number)).where(Release.project_id == run.project_id))
    number = (newest or 0) + 1
    release = Release(
        project_id=run.project_id, number=number, run_id=run.id, run_number=run.number,
        image=run.image, sha=run.sha, ref=run.ref, subject=run.subject, author=run.author, pusher=run.pusher,
        deploy=run.deploy, created_at=run.finished_at or now(),
    )  # fmt: skip
    session.add(release)
    session.flush()
    return release


def _environment(session: Session, project_id: int, name: str) -> Environment:
    return environments.find(session, project_id, name)


def _deploy(
    session: Session,
    release: Release,
    name: str,
    state: str,
    hours: float,
    promotion: str = "succeeded",
    **more: object,
) -> Deployment:
    environment = _environment(session, release.project_id, name)
    begun = now() - timedelta(hours=hours)
    made = Promotion(
        project_id=release.project_id, environment_id=environment.id, release_id=release.id,
        kind=str(more.pop("kind", "promote")), state=promotion, fingerprint="f" * 64,
        requested_by=str(more.pop("by", "")), reason=str(more.get("reason", "")), created_at=begun, finished_at=begun,
    )  # fmt: skip
    session.add(made)
    session.flush()
    before = session.query(Deployment).filter_by(environment_id=environment.id, state="live").one_or_none()
    if before is not None and state == "live":
        before.state = "retired"
        session.flush()
    lines = (
        "image is here",
        "container started",
        "1 of 2 probes passed",
        "2 of 2 probes passed",
        "proxy switched",
        "old one drained",
    )
    row = Deployment(
        project_id=release.project_id, environment_id=environment.id, promotion_id=made.id, release_id=release.id,
        state=state, previous_id=before.id if before else None, image=release.image, environment_version=1,
        spec=environment.spec, started_at=begun, finished_at=begun + timedelta(seconds=7),
        timeline=more.pop("timeline", [
            {"at": (begun + timedelta(seconds=i)).isoformat(), "what": what, "ok": True} for i, what in enumerate(lines)
        ]),
        **more,
    )  # fmt: skip
    session.add(row)
    session.flush()
    return row


def _shop(session: Session, scene: Scene) -> None:
    made = []
    for index in range(30):
        state = "failed" if index in (12, 26) else "passed"
        run = _run(session, scene, "shop", state, (30 - index) * 190)
        steps = _steps(
            session,
            run,
            {"unit": "failed", "integration": "skipped", "browser": "skipped", "package": "skipped"}
            if state == "failed"
            else {},
        )
        if state == "failed":
            steps["unit"].reason = "1 of 274 tests failed"
            run.reason = "unit: 1 of 274 tests failed"
            for name in ("integration", "browser", "package"):
                steps[name].reason = (
                    "needs unit, which failed" if name != "package" else "needs integration, which was skipped"
                )
        else:
            made.append(_release(session, run))
    for index, release in enumerate(made[-12:]):
        _deploy(session, release, "dev", "live", (12 - index) * 3.2)
        if index < 11:
            _deploy(session, release, "staging", "live", (12 - index) * 3.1)
        if index in (1, 4):
            _deploy(session, release, "prod", "live", (12 - index) * 3, by="leo")
    deploying = _deploy(session, made[-1], "staging", "deploying", 0.002, "verifying")
    deploying.finished_at = None
    session.get_one(Promotion, deploying.promotion_id).finished_at = None
    prod = _environment(session, scene.projects["shop"], "prod")
    opened = opening.open_promotion(session, prod, made[-2])
    scene.waiting = opened.id
    audit.append(session, "leo", "promotion.request", "shop/prod", release=made[-2].number)
    run = _run(session, scene, "shop", "running", 0.7, message=f"{HOSTILE} Pay by invoice\n\nFor companies.")
    steps = _steps(
        session,
        run,
        {"lint": "reused", "types": "reused", "integration": "running", "browser": "running", "package": "waiting"},
    )
    earlier = session.query(Run).filter_by(project_id=run.project_id, number=run.number - 1).one()
    for name in ("lint", "types"):
        earner = session.query(Step).filter_by(run_id=earlier.id, name=name).one()
        verdict = Verdict(
            project_id=run.project_id, image="x", key=name, step_id=earner.id, run_id=earlier.id,
            seconds=TOOK[name], created_at=earlier.created_at,
        )  # fmt: skip
        session.add(verdict)
        session.flush()
        steps[name].verdict_id, steps[name].reason = verdict.id, f"passed in #{earlier.number}"


def _quiet(session: Session, scene: Scene) -> None:
    for index in range(8):
        run = _run(session, scene, "search-api", "passed", (9 - index) * 700)
        _steps(session, run, {"browser": "failed"})
        release = _release(session, run)
        for name in ("dev", "staging", "prod"):
            _deploy(session, release, name, "live", (9 - index) * 11, by="maya" if name == "prod" else "")
    environments.hold(
        session, _environment(session, scene.projects["search-api"], "prod"), "load test until 18:00", "ivy"
    )


def _mailer(session: Session, scene: Scene) -> None:
    made = []
    for index in range(4):
        run = _run(session, scene, "mailer", "passed", (5 - index) * 900)
        _steps(session, run, {})
        made.append(_release(session, run))
    for index, release in enumerate(made):
        _deploy(session, release, "dev", "live", (5 - index) * 12)
        if index < 3:
            _deploy(session, release, "staging", "live", (5 - index) * 12)
    begun = now() - timedelta(minutes=51)
    lines = (
        ("image is here", True),
        ("container started", True),
        ("probe failed: connection refused", False),
        ("probe failed: HTTP 500", False),
        ("gave up after 60 s, the old one serves on", False),
    )
    bad = _deploy(
        session, made[-1], "staging", "failed", 0.85, "failed", reason="no 2 probes in a row passed within 60 s",
        timeline=[
            {"at": (begun + timedelta(seconds=12 * i)).isoformat(), "what": what, "ok": ok}
            for i, (what, ok) in enumerate(lines)
        ],
        evidence={
            "state": "exited", "exit_code": 137, "oom": True, "probe": "connection refused",
            "log": ["Traceback (most recent call last):", '  File "app.py", line 7', "KeyError: 'SMTP_URL'", HOSTILE],
        },
    )  # fmt: skip
    scene.failed = bad.promotion_id
    _run(
        session,
        scene,
        "mailer",
        "queued",
        0.1,
        ref="refs/heads/feature/bounce-handling",
        event="pull_request",
        trusted=False,
    )


def _logs(scene: Scene) -> None:
    with scene.services.database.read() as session:
        shown = session.query(Run.id).filter(Run.project_id == scene.projects["shop"], Run.number > 26)
        steps = session.query(Step).filter(Step.attempt > 0, Step.run_id.in_(shown)).all()
    for step in steps:
        with scene.services.logs.writer(step.id, 1, step.fence) as writer:
            writer.write(LOG if step.name != "build" else b"#1 [internal] load build definition\n#2 DONE 0.1s\n")
