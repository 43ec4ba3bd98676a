"""The way of a release through its environments, with a target in memory and real databases."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest
from promote_scene import ADMIN, ALICE, BOB, CAROL, CHAIN, Scene
from sqlalchemy import select

from cd.errors import Conflict, Forbidden, UserError
from cd.identity import audit
from cd.identity.people import Person
from cd.pipeline.records import Project
from cd.promote import environments, promotions, releases
from cd.promote.policy import parse
from cd.promote.records import Promotion, Release
from cd.store.base import now
from cd.store.records import Task


def approve(scene: Scene, person: Person, name: str = "prod") -> Promotion:
    promotion = scene.promotion(name)
    with scene.database.write() as session:
        return promotions.approve(session, promotion.id, person, promotion.fingerprint, "fine")


def test_a_release_goes_by_itself_to_the_environment_that_asks_a_person(scene: Scene) -> None:
    scene.passed()
    scene.work()
    assert scene.promotions("dev") == [(1, "succeeded")]
    assert scene.promotions("staging") == [(1, "succeeded")]
    assert scene.promotions("prod") == [(1, "awaiting_approval")]
    approve(scene, BOB)
    scene.work()
    assert scene.promotions("prod") == [(1, "succeeded")]
    assert [one.state for one in scene.deployments("prod")] == ["live"]
    assert scene.read(audit.verify) is None
    acted = [(entry.actor, entry.action) for entry in scene.read(audit.entries)]
    assert ("bob", "promotion.approve") in acted
    assert ("towpath", "promotion.succeed") in acted


@pytest.mark.parametrize(
    "values",
    [
        {"state": "failed"},
        {"trusted": False},
        {"event": "pull_request"},
        {"deploy": None},
        {"image": None},
    ],
)
def test_only_a_passed_trusted_run_that_says_how_to_run_makes_a_release(
    scene: Scene, values: dict[str, object]
) -> None:
    with scene.database.write() as session:
        run = scene.run_row(session, **({"image": "sha256:a"} | values))
        releases.run_ended(session, run)
        assert session.scalars(select(Release)).all() == []


def test_a_branch_that_no_environment_takes_goes_nowhere(scene: Scene) -> None:
    scene.passed(ref="refs/heads/feature")
    scene.passed(ref="refs/tags/v1")
    assert scene.promotions("dev") == []


def test_who_may_approve(scene: Scene) -> None:
    scene.passed(pusher="CAROL")
    scene.work()
    promotion = scene.promotion("prod")
    with scene.database.read() as session:
        assert "approver" in promotions.may_approve(session, promotion, ALICE)
        assert "pushed" in promotions.may_approve(session, promotion, CAROL)
        assert promotions.may_approve(session, promotion, ADMIN) == ""
    with pytest.raises(Forbidden):
        approve(scene, CAROL)
    approve(scene, BOB)
    with pytest.raises(Conflict):
        approve(scene, ADMIN)


def test_two_approvals_at_once_give_one_winner(scene: Scene) -> None:
    scene.passed()
    scene.work()
    outcomes: list[str] = []
    start = threading.Barrier(2)

    def vote(person: Person) -> None:
        start.wait()
        try:
            approve(scene, person)
            outcomes.append("approved")
        except Conflict:
            outcomes.append("conflict")

    threads = [threading.Thread(target=vote, args=(person,)) for person in (BOB, CAROL)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["approved", "conflict"]
    scene.work()
    assert len(scene.deployments("prod")) == 1


def test_a_change_of_the_environment_voids_approvals(scene: Scene) -> None:
    two = CHAIN.replace(b"promote: manual", b"promote: manual\n    approvals: {required: 2}")
    scene.apply(two)
    scene.passed()
    scene.work()
    seen = approve(scene, BOB).fingerprint
    scene.apply(two.replace(b"18103", b"18104"))
    with scene.database.read() as session:
        gates = {gate.name: gate for gate in promotions.gates(session, scene.promotion("prod"))}
    assert gates["approvals"].evidence == "0 of 2 approvals"
    with pytest.raises(Conflict, match="changed"), scene.database.write() as session:
        promotions.approve(session, scene.promotion("prod").id, CAROL, seen)
    approve(scene, BOB)  # again, for what it is now
    approve(scene, CAROL)
    scene.work()
    assert scene.promotions("prod") == [(1, "succeeded")]


def test_reject_and_cancel_end_a_pending_promotion_for_good(scene: Scene) -> None:
    scene.passed()
    scene.work()
    promotion = scene.promotion("prod")
    with scene.database.write() as session:
        promotions.reject(session, promotion.id, BOB, promotion.fingerprint, "not today")
    assert scene.promotion("prod").reason == "rejected by bob: not today"
    with pytest.raises(Conflict), scene.database.write() as session:
        promotions.cancel(session, promotion.id, ALICE)
    with scene.database.write() as session:
        project = session.get_one(Project, scene.project_id)
        release = releases.find(session, project.id, 1)
        promotions.request(session, project, environments.find(session, project.id, "prod"), release, ALICE)
    with scene.database.read() as session:
        assert "pushed" in promotions.may_approve(session, scene.promotion("prod"), Person(9, "alice", BOB.role))
    with scene.database.write() as session:
        promotions.cancel(session, scene.promotion("prod").id, ALICE)
    scene.work()
    assert scene.promotions("prod") == [(1, "rejected"), (1, "canceled")]


def test_a_newer_release_takes_the_place_of_one_that_waits_and_an_older_one_never_does(scene: Scene) -> None:
    with scene.database.write() as session:
        late = scene.run_row(session, "sha256:late")
    scene.passed("sha256:b")
    scene.work()
    scene.passed("sha256:c")
    scene.work()
    with scene.database.write() as session:
        releases.run_ended(session, session.merge(late))
    scene.work()
    assert scene.promotions("dev") == [(1, "succeeded"), (2, "succeeded")]
    assert scene.promotions("prod") == [(1, "superseded"), (2, "awaiting_approval")]


def test_hold_pins_all_but_a_rollback(scene: Scene) -> None:
    first = scene.passed("sha256:a")
    scene.work()
    scene.passed("sha256:b")
    scene.work()
    with scene.database.write() as session:
        release = session.get_one(Release, first)
        environment = environments.find(session, scene.project_id, "dev")
        promotions.rollback(session, environment, release, ALICE, "b is broken")
    scene.work()
    scene.passed("sha256:c")
    scene.work()
    assert scene.promotions("dev") == [(1, "succeeded"), (2, "succeeded"), (1, "succeeded"), (3, "waiting")]
    held = scene.environment("dev")
    assert (held.hold, held.held_by) == ("rolled back to release #1: b is broken", "alice")
    assert scene.promotions("staging") == [(1, "succeeded"), (2, "succeeded")]
    with scene.database.write() as session:
        environments.unhold(session, environments.find(session, scene.project_id, "dev"), "alice")
    scene.work()
    assert scene.promotions("dev")[-1] == (3, "succeeded")
    assert scene.promotions("staging")[-1] == (3, "succeeded")


def test_rollback_needs_a_release_that_was_live_there_and_the_right_role(scene: Scene) -> None:
    release_id = scene.passed()
    scene.work()

    def rollback(name: str, person: Person) -> None:
        with scene.database.write() as session:
            environment = environments.find(session, scene.project_id, name)
            promotions.rollback(session, environment, session.get_one(Release, release_id), person)

    with pytest.raises(Forbidden):
        rollback("prod", ALICE)
    with pytest.raises(Conflict, match="never live"):
        rollback("prod", BOB)
    with pytest.raises(Conflict, match="live in dev now"):
        rollback("dev", ALICE)


def test_soak_and_expiry_come_with_time(scene: Scene) -> None:
    scene.apply(
        CHAIN.replace(b"after: [dev]", b"after: [dev]\n    soak: 10m").replace(
            b"promote: manual", b"promote: manual\n    approvals: {expire: 1d}"
        )
    )
    scene.passed()
    scene.work()
    assert scene.promotions("staging") == [(1, "waiting")]

    def sweep(minutes: float) -> None:
        with scene.database.write() as session:
            promotions.sweep(session, now() + timedelta(minutes=minutes))

    sweep(9)
    assert scene.promotions("staging") == [(1, "waiting")]
    due = scene.promotion("staging").due_at
    assert due is not None
    # Time is what deployments say of it: move the stay back rather than the clock.
    with scene.database.write() as session:
        session.merge(scene.deployments("dev")[0]).finished_at = now() - timedelta(minutes=10)
    sweep(10.1)
    scene.work()
    assert scene.promotions("staging") == [(1, "succeeded")]
    assert scene.promotions("prod") == [(1, "awaiting_approval")]
    sweep(23 * 60)
    assert scene.promotions("prod") == [(1, "awaiting_approval")]
    sweep(25 * 60)
    assert scene.promotions("prod") == [(1, "expired")]


def test_sweep_calls_for_a_queued_promotion_whose_task_was_lost(scene: Scene) -> None:
    scene.passed()
    with scene.database.write() as session:
        session.scalars(select(Task)).one().state = "done"
    with scene.database.write() as session:
        promotions.sweep(session, now())
    scene.work()
    assert scene.promotions("dev") == [(1, "succeeded")]


def test_an_environment_that_is_left_out_is_removed_and_may_come_back(scene: Scene) -> None:
    scene.passed()
    scene.work()
    scene.apply(CHAIN[: CHAIN.index(b"  - name: prod")])
    assert scene.promotions("prod") == [(1, "canceled")]
    with scene.database.read() as session:
        assert [one.name for one in environments.listing(session, scene.project_id)] == ["dev", "staging"]
    scene.apply()
    assert scene.environment("prod").version == 2


def test_approvers_have_to_exist(scene: Scene) -> None:
    text = CHAIN.replace(b"promote: manual", b"promote: manual\n    approvals: {from: [releasers]}")
    with pytest.raises(UserError, match="neither a role nor a user"), scene.database.write() as session:
        environments.apply(session, session.get_one(Project, scene.project_id), parse(text), "admin")
