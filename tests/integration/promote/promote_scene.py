"""A project with environments whose tasks are done in this process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from cd.identity.people import Person, Role
from cd.pipeline.records import Project, Run
from cd.promote import environments, releases
from cd.promote.deployments import Deployer
from cd.promote.policy import EnvironmentSpec, parse
from cd.promote.records import Deployment, Environment, Promotion, Release
from cd.promote.targets import FindTarget
from cd.promote.targets.fake import FakeTarget
from cd.store import facts, tasks
from cd.store.base import now
from cd.store.database import Database
from cd.store.records import Task

CHAIN = b"""
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
    target: {kind: docker, url: "http://127.0.0.1:18103"}
"""

ALICE = Person(1, "alice", Role.developer)
BOB = Person(2, "bob", Role.approver)
CAROL = Person(3, "carol", Role.approver)
ADMIN = Person(4, "admin", Role.admin)


@dataclass
class Scene:
    """What a test acts in. `find` gives targets; by default one fake for all environments."""

    database: Database
    fake: FakeTarget = field(default_factory=FakeTarget)
    find: FindTarget | None = None
    slug: str = "demo"
    lease: float = 30.0

    def __post_init__(self) -> None:
        with self.database.write() as session:
            project = Project(slug=self.slug, forge="generic", webhook_secret=b"", created_at=now())
            session.add(project)
            session.flush()
            self.project_id, self.instance = project.id, facts.instance(session)

    def apply(self, text: bytes = CHAIN) -> None:
        with self.database.write() as session:
            environments.apply(session, session.get_one(Project, self.project_id), parse(text), "admin")

    def passed(self, image: str = "sha256:a", **values: Any) -> int:
        """A run has passed; the id of its release."""
        with self.database.write() as session:
            run = self.run_row(session, image, **values)
            releases.run_ended(session, run)
            return session.scalars(select(Release.id).where(Release.run_id == run.id)).one()

    def run_row(self, session: Session, image: str, **values: Any) -> Run:
        project = session.get_one(Project, self.project_id)
        number, project.next_run = project.next_run, project.next_run + 1
        given = {
            "state": "passed",
            "event": "push",
            "ref": "refs/heads/main",
            "sha": f"{number:040x}",
            "author": "Alice <alice@example.org>",
            "pusher": "alice",
            "deploy": {"port": 8000},
            "image": image,
        }
        run = Run(project_id=project.id, number=number, created_at=now(), **(given | values))
        session.add(run)
        session.flush()
        return run

    @property
    def deployer(self) -> Deployer:
        return Deployer(self.database, self.find or (lambda spec: self.fake), self.instance)

    def claim(self) -> tasks.Claim | None:
        """Take the oldest open task, also one whose worker was lost."""
        with self.database.write() as session:
            task = session.scalars(
                select(Task)
                .where(Task.kind.in_(("deploy", "retire")), Task.state.in_(("ready", "claimed")))
                .order_by(Task.id)
            ).first()
            if task is None:
                return None
            if task.state == "claimed":
                tasks.release_of(session, "test")
            return tasks.claim(session, task.id, "test", self.lease)

    def step(self) -> bool:
        """Do one task to its end; False when there is none."""
        claim = self.claim()
        if claim is None:
            return False
        self.deployer.execute(claim)
        with self.database.write() as session:
            tasks.finish(session, claim)
        return True

    def work(self) -> None:
        """Do tasks until none is left."""
        while self.step():
            continue

    def read(self, question: Callable[[Session], Any]) -> Any:
        with self.database.read() as session:
            return question(session)

    def environment(self, name: str) -> Environment:
        found: Environment = self.read(lambda session: environments.find(session, self.project_id, name))
        return found

    def spec(self, name: str) -> EnvironmentSpec:
        return EnvironmentSpec.model_validate(self.environment(name).spec)

    def promotions(self, name: str) -> list[tuple[int, str]]:
        """Release numbers and states of all promotions into the environment, in their order."""
        query = (
            select(Release.number, Promotion.state)
            .join(Promotion, Promotion.release_id == Release.id)
            .join(Environment, Environment.id == Promotion.environment_id)
            .where(Environment.name == name)
            .order_by(Promotion.id)
        )
        return [(number, state) for number, state in self.read(lambda session: session.execute(query).all())]

    def promotion(self, name: str) -> Promotion:
        """The newest promotion into the environment."""
        query = (
            select(Promotion)
            .join(Environment, Environment.id == Promotion.environment_id)
            .where(Environment.name == name)
            .order_by(Promotion.id.desc())
            .limit(1)
        )
        found: Promotion = self.read(lambda session: session.scalars(query).one())
        return found

    def deployments(self, name: str) -> list[Deployment]:
        query = (
            select(Deployment)
            .join(Environment, Environment.id == Deployment.environment_id)
            .where(Environment.name == name)
            .order_by(Deployment.id)
        )
        return list(self.read(lambda session: session.scalars(query).all()))
