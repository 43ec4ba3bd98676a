"""Gates and what follows from them."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from cd.promote.gates import Facts, Stay, Vote, decide, evaluate, fingerprint, soaked_at
from cd.promote.policy import EnvironmentSpec
from cd.promote.states import DEPLOYMENT, PENDING, PROMOTION

AT = datetime(2026, 1, 1, 12, tzinfo=UTC)


def facts(spec: dict[str, Any] | None = None, **values: Any) -> Facts:
    target = {"kind": "docker", "url": "http://127.0.0.1:1"}
    given = {"name": "prod", "from": {"branches": ["main"]}, "target": target}
    made = EnvironmentSpec.model_validate(given | (spec or {}))
    return Facts(**({"spec": made, "rollback": False, "branch": "main", "fingerprint": "f", "at": AT} | values))


def state(seen: Facts) -> str:
    return decide(evaluate(seen))


def closed(seen: Facts) -> dict[str, str]:
    return {gate.name: gate.state for gate in evaluate(seen) if gate.state != "passed"}


def test_nothing_against_it() -> None:
    assert state(facts()) == "queued"


def test_another_branch() -> None:
    assert closed(facts(branch="feature")) == {"branch": "blocked"}
    assert closed(facts(branch=None)) == {"branch": "blocked"}
    assert state(facts(branch="feature")) == "waiting"


def test_the_environment_before() -> None:
    spec = {"after": ["dev", "qa"], "from": None}
    dev = Stay("dev", AT)
    assert closed(facts(spec, stays=[dev])) == {"live in qa": "waiting"}
    assert state(facts(spec, stays=[dev, Stay("qa", AT)])) == "queued"
    assert state(facts(spec, stays=[dev, Stay("qa", AT, AT)])) == "queued"


@pytest.mark.parametrize(
    ("stay", "gate"),
    [
        (Stay("dev", AT - timedelta(minutes=10)), "queued"),
        (Stay("dev", AT - timedelta(minutes=9)), "waiting"),
        (Stay("dev", AT - timedelta(minutes=60), AT - timedelta(minutes=50)), "queued"),
        (Stay("dev", AT - timedelta(minutes=60), AT - timedelta(minutes=51)), "waiting"),
    ],
)
def test_soak(stay: Stay, gate: str) -> None:
    seen = facts({"after": ["dev"], "soak": "10m"}, stays=[stay])
    assert state(seen) == gate
    running = gate == "waiting" and stay.until is None
    assert soaked_at(seen) == (stay.since + timedelta(minutes=10) if running else None)


def test_hold_blocks_all_but_a_rollback() -> None:
    held = facts(hold="broken", held_by="jane")
    assert closed(held) == {"hold": "blocked"}
    assert state(replace(held, rollback=True)) == "queued"


def test_approvals_count_only_for_what_was_seen() -> None:
    spec = {"approvals": {"required": 2}}
    votes = [Vote("a", "approve", "f"), Vote("b", "approve", "old"), Vote("c", "reject", "f")]
    assert state(facts(spec, votes=votes)) == "awaiting_approval"
    gate = next(gate for gate in evaluate(facts(spec, votes=votes)) if gate.name == "approvals")
    assert (gate.evidence, gate.who) == ("1 of 2 approvals (a)", "approver")
    assert state(facts(spec, votes=[*votes, Vote("d", "approve", "f")])) == "queued"


def test_another_gate_is_before_approvals() -> None:
    assert state(facts({"promote": "manual"}, hold="x")) == "waiting"


def test_waiting_for_its_turn_is_shown_but_keeps_nothing_from_being_queued() -> None:
    seen = facts(busy="release #3")
    assert closed(seen) == {"turn": "waiting"}
    assert state(seen) == "queued"


def test_a_fingerprint_changes_with_all_that_is_approved() -> None:
    spec = facts().spec
    other = EnvironmentSpec.model_validate(
        {"name": "prod", "from": {"branches": "main"}, "target": {"kind": "docker", "url": "http://127.0.0.1:2"}}
    )
    same = fingerprint("sha256:a", {"port": 1, "x": 2}, 1, 1, spec)
    assert same == fingerprint("sha256:a", {"x": 2, "port": 1}, 1, 1, spec)
    different = {
        same,
        fingerprint("sha256:b", {"port": 1, "x": 2}, 1, 1, spec),
        fingerprint("sha256:a", {"port": 2, "x": 2}, 1, 1, spec),
        fingerprint("sha256:a", {"port": 1, "x": 2}, 2, 1, spec),
        fingerprint("sha256:a", {"port": 1, "x": 2}, 1, 2, spec),
        fingerprint("sha256:a", {"port": 1, "x": 2}, 1, 1, other),
    }
    assert len(different) == 6


def test_every_state_that_gates_give_can_be_reached_from_every_pending_one() -> None:
    wanted = {"waiting", "awaiting_approval", "queued"}
    assert wanted == PENDING
    for old in PENDING:
        assert wanted - {old} <= PROMOTION.transitions[old]
        assert {"rejected", "expired", "superseded", "canceled"} <= PROMOTION.transitions[old]


@pytest.mark.parametrize("machine", [PROMOTION, DEPLOYMENT], ids=lambda machine: machine.name)
def test_every_state_is_reached_and_every_step_leads_to_one_that_exists(machine: Any) -> None:
    first = next(iter(machine.transitions))
    reached = {first}.union(*machine.transitions.values())
    assert reached == set(machine.transitions)
