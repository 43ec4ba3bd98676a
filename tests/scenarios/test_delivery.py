"""From a real push to production: what passes, what is refused, what is not done twice."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path
from typing import Any

from sqlalchemy import select

from bench.idle import family
from bench.paths import serves
from bench.service import until
from cd.identity import users
from cd.identity.people import Person, Role
from cd.promote import environments, promotions, releases
from cd.promote.records import Deployment, Promotion

VERSION = 'VERSION="{}"'


def app(world: Any, version: str) -> dict[str, str]:
    """The application's source at that version."""
    text = (world.work / "app.py").read_text()
    lines = [VERSION.format(version) if line.startswith("VERSION=") else line for line in text.splitlines()]
    return {"app.py": "\n".join(lines) + "\n"}


def promotion(world: Any, environment: str) -> Promotion | None:
    """The newest promotion into an environment."""
    with world.service.services.database.read() as session:
        place = environments.find(session, world.project_id, environment)
        query = select(Promotion).where(Promotion.environment_id == place.id).order_by(Promotion.id.desc()).limit(1)
        return session.scalars(query).one_or_none()


def waits(world: Any, sha: str) -> Promotion | None:
    """The promotion of that commit into prod, once it waits for a person."""
    found = promotion(world, "prod")
    run = world.service.run_of(sha)
    if found is None or found.state != "awaiting_approval":
        return None
    with world.service.services.database.read() as session:
        return found if session.get_one(releases.Release, found.release_id).run_id == run.id else None


def approver(world: Any) -> Person:
    """Somebody who did not push."""
    with world.service.services.database.write() as session:
        known = {user.username: user for user in users.listing(session)}
        user = known.get("vera") or users.create(session, "test", "vera", "a long enough password", Role.approver)
        return users.person_of(user)


def test_a_push_goes_to_production_and_back(world: Any) -> None:
    vera = approver(world)
    first = world.push(app(world, "one"))
    run = world.ended(first)
    assert (run.state, run.reason) == ("passed", "")
    assert {step.state for step in world.steps(run).values()} == {"passed"}
    assert "Ran 1 test" in world.log(world.steps(run)["unit"])
    until(lambda: serves(world.ports["dev"], "one"), 60, "dev")

    pending = until(lambda: waits(world, first), 60, "the promotion to prod")
    assert not serves(world.ports["prod"], "one")
    with world.service.services.database.write() as session:
        promotions.approve(session, pending.id, vera, pending.fingerprint)
    until(lambda: serves(world.ports["prod"], "one"), 60, "prod")

    second = world.push(app(world, "two"))
    pending = until(lambda: waits(world, second), 90, "the second promotion to prod")
    with world.service.services.database.write() as session:
        promotions.approve(session, pending.id, vera, pending.fingerprint)
    until(lambda: serves(world.ports["prod"], "two"), 60, "the second version in prod")
    until(lambda: promotion(world, "prod").state == "succeeded", 30, "the end of the promotion")

    with world.service.services.database.write() as session:
        place = environments.find(session, world.project_id, "prod")
        promotions.rollback(session, place, releases.find(session, world.project_id, 1), vera, "a test")
    until(lambda: serves(world.ports["prod"], "one"), 60, "the rollback")
    with world.service.services.database.write() as session:
        environments.unhold(session, environments.find(session, world.project_id, "prod"), "vera")


def test_a_known_tree_is_neither_built_nor_tested_again(world: Any) -> None:
    files = app(world, "known")
    assert world.ended(world.push(files)).state == "passed"
    assert world.ended(world.push(app(world, "between"))).state == "passed"
    run = world.ended(world.push(files))
    assert run.state == "passed"
    assert {name: step.state for name, step in world.steps(run).items()} == {
        "build": "reused", "compile": "reused", "unit": "reused",
    }  # fmt: skip


def test_a_failing_stage_fails_the_run_and_makes_no_release(world: Any) -> None:
    pipeline = (world.work / ".towpath.yml").read_text()
    broken = pipeline.replace("unittest -q", "unittest -q nosuch")
    run = world.ended(world.push({".towpath.yml": broken}, branch="broken"))
    steps = world.steps(run)
    assert run.state == "failed"
    assert steps["unit"].exit_code == 1
    assert steps["compile"].state in ("passed", "reused")
    world.push({".towpath.yml": pipeline}, branch="mended")


def test_a_broken_pipeline_file_is_told_with_its_place(world: Any) -> None:
    pipeline = (world.work / ".towpath.yml").read_text()
    run = world.ended(world.push({".towpath.yml": "stages:\n  unit:\n    rum: true\n"}, branch="typo"))
    assert run.state == "failed"
    assert "3:5" in run.reason
    assert "did you mean 'run'" in run.reason
    world.push({".towpath.yml": pipeline}, branch="typo")


def test_strange_names_are_inert(world: Any) -> None:
    message = "<script>alert(1)</script> \"quoted\" 'x' \N{PILE OF POO}\n\n" + "long " * 200_000
    sha = world.push(message=message, branch="emoji-\N{ROCKET}-it's")
    run = world.ended(sha)
    assert run.state == "passed"
    assert run.subject.startswith("<script>")


def test_a_version_that_is_not_healthy_never_takes_traffic(world: Any) -> None:
    good = world.push(app(world, "good"))
    until(lambda: serves(world.ports["dev"], "good"), 90, "the good version")
    source = (world.work / "app.py").read_text()
    pipeline = (world.work / ".towpath.yml").read_text()
    bad = source.replace("send_response(200)", 'send_response(500 if __name__ == "__main__" else 200)')
    bad = bad.replace("good", "bad")
    sha = world.push({"app.py": bad, ".towpath.yml": pipeline.replace("deadline: 30s", "deadline: 3s")})
    assert world.ended(sha).state == "passed"

    def failed() -> Promotion | None:
        found = promotion(world, "dev")
        return found if found is not None and found.state == "failed" else None

    ended = until(failed, 60, "the failed promotion")
    assert serves(world.ports["dev"], "good")
    with world.service.services.database.read() as session:
        deployment = session.scalars(select(Deployment).where(Deployment.promotion_id == ended.id)).one()
    assert deployment.state == "failed"
    assert deployment.evidence
    world.push({"app.py": source, ".towpath.yml": pipeline})
    assert good


def test_a_killed_work_horse_is_followed_by_another_and_the_stage_runs_once(world: Any) -> None:
    pipeline = (world.work / ".towpath.yml").read_text()
    slow = "stages:\n  slow:\n    run: |\n      for i in $(seq 1 40); do echo line $i; sleep 0.1; done\n"
    sha = world.push({".towpath.yml": slow}, branch="slow")

    def running() -> Any:
        run = world.service.run_of(sha)
        step = world.steps(run).get("slow") if run is not None else None
        return step if step is not None and step.state == "running" and "line 3" in world.log(step) else None

    until(running, 60, "the stage's third line")
    for pid in grandchildren(world.service.process.pid):
        # Some, as git's, end by themselves meanwhile.
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    run = world.ended(sha)
    step = world.steps(run)["slow"]
    assert run.state == "passed"
    assert step.attempt == 1
    assert step.fence > 1
    assert world.log(step) == "".join(f"line {i}\n" for i in range(1, 41))
    world.push({".towpath.yml": pipeline}, branch="slow")


def grandchildren(root: int) -> list[int]:
    """The work-horses, and the web server's worker: whatever the processes of `up` have forked."""
    children = [pid for pid in family(root) if parent(pid) == root]
    return [pid for child in children for pid in family(child)[1:]]


def parent(pid: int) -> int:
    """Parent of a process, 0 when it is gone."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
    except FileNotFoundError:
        return 0
