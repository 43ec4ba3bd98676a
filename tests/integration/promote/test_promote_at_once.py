"""Pushes, workers, votes and holds at the same time, on real databases."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from promote_scene import BOB, Scene
from sqlalchemy import select

from cd.errors import Conflict, StaleWrite
from cd.identity import audit
from cd.promote import environments, promotions
from cd.promote.records import Promotion
from cd.store import tasks
from cd.store.base import now
from cd.store.records import Task

RELEASES = 12


@dataclass
class Crowd:
    """Everybody who does something at the same time."""

    scene: Scene
    pushed: threading.Event = field(default_factory=threading.Event)
    errors: list[BaseException] = field(default_factory=list)

    def push(self) -> None:
        for number in range(RELEASES):
            self.scene.passed(f"sha256:{number}")

    def hold(self) -> None:
        project = self.scene.project_id
        for _ in range(RELEASES):
            with self.scene.database.write() as session:
                environments.hold(session, environments.find(session, project, "staging"), "look", "jane")
            with self.scene.database.write() as session:
                environments.unhold(session, environments.find(session, project, "staging"), "jane")

    def work(self) -> None:
        while not (self.pushed.is_set() and idle(self.scene)):
            do_one(self.scene)

    def vote(self) -> None:
        while not self.pushed.is_set():
            with suppress(Conflict, StaleWrite):
                approve_all(self.scene)

    def start(self, what: Callable[[], None]) -> threading.Thread:
        def run() -> None:
            try:
                what()
            except BaseException as error:
                self.errors.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        return thread


def test_nothing_is_lost_doubled_or_locked_up(scene: Scene) -> None:
    crowd = Crowd(scene)
    others = [crowd.start(what) for what in (crowd.work, crowd.work, crowd.vote)]
    for maker in [crowd.start(what) for what in (crowd.push, crowd.hold)]:
        maker.join()
    crowd.pushed.set()
    for thread in others:
        thread.join()
    assert crowd.errors == []
    assert scene.promotions("prod")[-1][0] == RELEASES
    for name in ("dev", "staging"):
        assert scene.promotions(name)[-1] == (RELEASES, "succeeded")
        assert [one.state for one in scene.deployments(name)].count("live") == 1
        done = [number for number, state in scene.promotions(name) if state == "succeeded"]
        assert done == sorted(done)
    assert scene.read(audit.verify) is None


def idle(scene: Scene) -> bool:
    with scene.database.write() as session:
        promotions.sweep(session, now())
    open_tasks = select(Task.id).where(Task.state.in_(("ready", "claimed"))).limit(1)
    return scene.read(lambda session: session.scalar(open_tasks)) is None


def do_one(scene: Scene) -> None:
    with scene.database.write() as session:
        ready = session.scalars(select(Task.id).where(Task.state == "ready").order_by(Task.id)).first()
        claim = tasks.claim(session, ready, "worker", 30) if ready is not None else None
    if claim is None:
        return
    scene.deployer.execute(claim)
    with scene.database.write() as session:
        tasks.finish(session, claim)


def approve_all(scene: Scene) -> None:
    waiting = select(Promotion).where(Promotion.state == "awaiting_approval")
    for promotion in scene.read(lambda session: session.scalars(waiting).all()):
        with scene.database.write() as session:
            promotions.approve(session, promotion.id, BOB, promotion.fingerprint)
