"""The deploy task: its outcomes, two at once, and an end of its worker at every point."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from promote_scene import ALICE, CHAIN, Scene
from sqlalchemy.orm import Session

from cd.errors import ServiceError, StaleWrite
from cd.pipeline.records import Project
from cd.promote import deployments, environments, promotions
from cd.promote.deployments import Deployer
from cd.promote.records import Release
from cd.promote.targets.base import App
from cd.store import tasks
from cd.store.base import now
from cd.store.database import Database

#: One environment is enough to break things in.
DEV = CHAIN[: CHAIN.index(b"  - name: staging")]


class Killed(BaseException):
    """Stands for SIGKILL: nothing of the product may catch it."""


class Mortal(Database):
    """A database whose user dies at write number `at`: before it, or right after its commit."""

    def __init__(self, real: Database, at: int, after: bool) -> None:
        self.__dict__.update(real.__dict__)
        self._left, self._after = at, after

    @contextmanager
    def write(self) -> Iterator[Session]:
        self._left -= 1
        if self._left == 0 and not self._after:
            raise Killed
        with super().write() as session:
            yield session
        if self._left == 0:
            raise Killed


def live(scene: Scene) -> list[tuple[int, str]]:
    return [(one.id, one.state) for one in scene.deployments("dev")]


@pytest.mark.parametrize("broken", [False, True], ids=["healthy", "sick"])
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("at", [1, 2, 3])
def test_a_worker_that_ends_at_a_write_is_followed_by_one_that_goes_on(
    sqlite_database: Database, at: int, after: bool, broken: bool
) -> None:
    scene = Scene(sqlite_database)
    scene.apply(DEV)
    scene.passed("sha256:a")
    scene.work()
    if broken:
        scene.fake.sick.add("sha256:b")
    scene.passed("sha256:b")
    claim = scene.claim()
    assert claim is not None
    died = False
    try:
        Deployer(Mortal(scene.database, at, after), lambda spec: scene.fake, scene.instance).execute(claim)
    except Killed:
        died = True
    assert died or (broken and at == 3)
    scene.work()
    ends = ["live", "failed"] if broken else ["retired", "live"]
    assert [state for _, state in live(scene)] == ends
    served = 1 if broken else 2
    assert list(scene.fake.apps) == [(scene.environment("dev").id, served)]
    assert scene.fake.starts == {1: 1, 2: 1}
    assert scene.fake.served == ([1] if broken else [1, 2])


@pytest.mark.parametrize("operation", ["prepare", "switch", "retire", "discard", "switch_back"])
def test_a_worker_that_ends_at_the_target_is_followed_by_one_that_goes_on(scene: Scene, operation: str) -> None:
    scene.apply(DEV)
    scene.passed("sha256:a")
    scene.work()
    scene.fake.sick |= {"sha256:b"} if operation == "discard" else set()
    scene.fake.mute |= {"sha256:b"} if operation == "switch_back" else set()
    scene.passed("sha256:b")

    def die(reached: str) -> None:
        if reached == operation:
            scene.fake.before = lambda operation: None
            raise Killed

    scene.fake.before = die
    with pytest.raises(Killed):
        scene.work()
    scene.work()
    state = {"discard": "failed", "switch_back": "rolled_back"}.get(operation, "succeeded")
    assert scene.promotions("dev")[-1] == (2, state)
    assert len(scene.fake.apps) == 1
    assert scene.fake.starts == {1: 1, 2: 1}
    assert scene.fake.traffic[scene.environment("dev").id] == (2 if state == "succeeded" else 1)


def test_a_version_that_fails_leaves_the_old_one_and_its_evidence(scene: Scene) -> None:
    scene.passed("sha256:a")
    scene.work()
    scene.fake.sick.add("sha256:b")
    scene.passed("sha256:b")
    scene.work()
    failed = scene.deployments("dev")[-1]
    assert (failed.state, failed.evidence["exit_code"], failed.evidence["log"]) == ("failed", 3, ["it broke"])
    assert "exit code 3" in scene.promotion("dev").reason
    assert [line["ok"] for line in failed.timeline] == [False]
    assert scene.promotions("staging") == [(1, "succeeded")]
    assert scene.fake.traffic[scene.environment("dev").id] == scene.deployments("dev")[0].id


def test_a_version_that_is_mute_behind_the_proxy_is_rolled_back(scene: Scene) -> None:
    scene.passed("sha256:a")
    scene.work()
    scene.fake.mute.add("sha256:b")
    scene.passed("sha256:b")
    scene.work()
    assert [one.state for one in scene.deployments("dev")] == ["live", "rolled_back"]
    assert scene.promotion("dev").state == "rolled_back"
    assert "does not answer" in scene.promotion("dev").reason


def test_the_first_version_that_is_mute_gives_no_traffic_to_anyone(scene: Scene) -> None:
    scene.fake.mute.add("sha256:a")
    scene.passed("sha256:a")
    scene.work()
    assert scene.promotions("dev") == [(1, "failed")]
    assert (scene.fake.apps, scene.fake.traffic) == ({}, {})


def test_the_same_image_and_settings_are_not_started_again(scene: Scene) -> None:
    for _ in range(3):
        scene.passed("sha256:a")
        scene.work()
    assert [one.state for one in scene.deployments("dev")] == ["retired", "retired", "live"]
    first = scene.deployments("dev")[0].id
    assert {one.serving_id for one in scene.deployments("dev")} == {first}
    assert scene.fake.starts[first] == 1
    scene.apply(CHAIN.replace(b"target:", b"env: {A: b}\n    target:"))
    scene.passed("sha256:a")
    scene.work()
    last = scene.deployments("dev")[-1]
    assert last.serving_id == last.id


def test_what_should_have_been_reused_but_is_gone_is_deployed(scene: Scene) -> None:
    scene.passed("sha256:a")
    scene.work()
    scene.fake.apps.clear()
    scene.passed("sha256:a")
    scene.work()
    last = scene.deployments("dev")[-1]
    assert (last.state, last.serving_id, scene.fake.starts[last.id]) == ("live", last.id, 1)


def test_two_deployments_never_run_in_one_environment(scene: Scene) -> None:
    scene.apply(DEV)
    scene.passed("sha256:a")
    inside, go_on = threading.Event(), threading.Event()
    seen: list[int] = []

    def wait(operation: str) -> None:
        if operation == "prepare":
            seen.append(1)
            inside.set()
            assert go_on.wait(30)

    scene.fake.before = wait
    first = threading.Thread(target=scene.step)
    first.start()
    assert inside.wait(30)
    scene.passed("sha256:b")
    with scene.database.read() as session:
        assert tasks.due(session, now()) == []  # it is not called for while the first one is under way
    go_on.set()
    first.join()
    scene.work()
    assert scene.promotions("dev") == [(1, "succeeded"), (2, "succeeded")]
    assert scene.fake.served == [one.id for one in scene.deployments("dev")]


def test_a_task_that_comes_too_early_waits_for_its_turn(scene: Scene) -> None:
    scene.apply(DEV)
    scene.passed("sha256:a")
    claim = scene.claim()
    assert claim is not None
    held = scene.deployer

    def two(operation: str) -> None:
        scene.fake.before = lambda operation: None
        scene.passed("sha256:b")
        with scene.database.write() as session:
            task = tasks.add(session, "deploy", scene.promotion("dev").id)
            assert task is not None
            other = tasks.claim(session, task, "other", 30)
            assert other is not None
        held.execute(other)
        assert scene.promotion("dev").state == "queued"
        with scene.database.write() as session:
            tasks.finish(session, other)

    scene.fake.before = two
    held.execute(claim)
    scene.work()
    assert scene.promotions("dev") == [(1, "succeeded"), (2, "succeeded")]


def test_an_engine_that_is_away_leaves_the_deployment_to_be_tried_again(scene: Scene) -> None:
    scene.apply(DEV)
    scene.passed("sha256:a")

    def away(operation: str) -> None:
        raise ServiceError("the Docker engine does not answer")

    scene.fake.before = away
    claim = scene.claim()
    assert claim is not None
    with pytest.raises(ServiceError):
        scene.deployer.execute(claim)
    assert scene.promotions("dev") == [(1, "deploying")]
    with scene.database.write() as session:
        deployments.give_up(session, claim, "the engine is away")
        tasks.finish(session, claim, "given up")
    assert scene.promotions("dev") == [(1, "errored")]
    assert scene.deployments("dev")[0].reason == "the engine is away"


def test_who_lost_the_claim_writes_nothing_and_moves_no_traffic(scene: Scene) -> None:
    scene.apply(DEV)
    scene.passed("sha256:a")
    old = scene.claim()
    assert old is not None

    def overtaken(operation: str) -> None:
        scene.fake.before = lambda operation: None
        scene.work()

    scene.fake.before = overtaken
    with pytest.raises(StaleWrite):
        scene.deployer.execute(old)
    assert scene.promotions("dev") == [(1, "succeeded")]
    assert len(scene.fake.served) == 1


def test_clean_removes_what_no_deployment_needs(scene: Scene) -> None:
    scene.passed("sha256:a")
    scene.work()
    environment = scene.environment("dev")
    stray = next(app for app in scene.fake.apps.values() if app.place.environment == "dev")
    gone = App(stray.place, 99, stray.image, stray.deploy, stray.target)
    scene.fake.apps[environment.id, 99] = gone
    scene.fake.traffic[environment.id] = 99
    find = scene.deployer.targets
    assert deployments.clean(scene.database, find, scene.instance) == 1
    assert scene.fake.serves(stray)
    assert deployments.clean(scene.database, find, scene.instance) == 0
    with scene.database.write() as session:
        environments.remove_all(session, session.get_one(Project, scene.project_id), "admin")
    deployments.clean(scene.database, find, scene.instance)
    assert (scene.fake.apps, scene.fake.traffic) == ({}, {})


def test_a_rollback_brings_the_old_release_back(scene: Scene) -> None:
    first = scene.passed("sha256:a")
    scene.work()
    scene.passed("sha256:b")
    scene.work()
    with scene.database.write() as session:
        environment = environments.find(session, scene.project_id, "dev")
        promotions.rollback(session, environment, session.get_one(Release, first), ALICE)
    scene.work()
    assert [one.state for one in scene.deployments("dev")] == ["retired", "retired", "live"]
    assert scene.deployments("dev")[-1].image == "sha256:a"
