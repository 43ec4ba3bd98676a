"""What a promotion has to pass, and what state it is in: pure functions of a snapshot."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal

from cd.promote.policy import POLICY_VERSION, EnvironmentSpec
from cd.units import format_seconds

TOWPATH = "towpath"
APPROVALS, TURN = "approvals", "turn"


@dataclass(frozen=True)
class Gate:
    """One condition. `evidence` says what was found, `who` can unblock it."""

    name: str
    state: Literal["passed", "waiting", "blocked"]
    evidence: str
    who: str = TOWPATH


@dataclass(frozen=True)
class Stay:
    """Time that the release was, or is (`until` None), live in another environment."""

    environment: str
    since: datetime
    until: datetime | None = None


@dataclass(frozen=True)
class Vote:
    """One person's word; it counts while its fingerprint is the promotion's."""

    username: str
    vote: str
    fingerprint: str


@dataclass(frozen=True)
class Facts:
    """All that the gates of one promotion depend on. `busy` names the release that is being deployed there."""

    spec: EnvironmentSpec
    rollback: bool
    branch: str | None
    fingerprint: str
    at: datetime
    stays: Sequence[Stay] = ()
    votes: Sequence[Vote] = field(default_factory=tuple)
    hold: str | None = None
    held_by: str | None = None
    busy: str = ""


def fingerprint(
    image: str, deploy: Mapping[str, Any] | None, environment_id: int, version: int, spec: EnvironmentSpec
) -> str:
    """What an approval is for, as a hash: the image, how it runs, and the environment as it is configured now."""
    parts = [image, deploy, environment_id, version, spec.target.model_dump(mode="json"), POLICY_VERSION]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def evaluate(facts: Facts) -> tuple[Gate, ...]:
    """All gates, in the order in which they are shown."""
    gates: list[Gate] = []
    if not facts.rollback:
        gates += [*_source(facts), *(_after(facts, name) for name in facts.spec.after), *_hold(facts)]
        gates += _approvals(facts)
    return (*gates, _turn(facts))


def decide(gates: Sequence[Gate]) -> str:
    """The state that a pending promotion should be in. Waiting for its turn does not keep it from `queued`."""
    closed = {gate.name for gate in gates if gate.state != "passed"} - {TURN}
    if not closed:
        return "queued"
    return "awaiting_approval" if closed == {APPROVALS} else "waiting"


def soaked_at(facts: Facts) -> datetime | None:
    """When the last soak that still runs will be over; None when none runs."""
    ends = [_soaked(facts, stay) for stay in facts.stays if stay.until is None and stay.environment in facts.spec.after]
    return max((end for end in ends if end > facts.at), default=None)


def _soaked(facts: Facts, stay: Stay) -> datetime:
    return stay.since + timedelta(seconds=facts.spec.soak)


def _source(facts: Facts) -> list[Gate]:
    source = facts.spec.source
    if source is None:
        return []
    came = f"the release is from {facts.branch or 'a tag'}"
    if source.takes(facts.branch):
        return [Gate("branch", "passed", came)]
    return [Gate("branch", "blocked", f"{came}; only {', '.join(source.branches)} may come here", "admin")]


def _after(facts: Facts, name: str) -> Gate:
    stays = [stay for stay in facts.stays if stay.environment == name]
    if not stays:
        return Gate(f"live in {name}", "waiting", f"the release was not live in {name} yet")
    if any((stay.until or facts.at) >= _soaked(facts, stay) for stay in stays):
        text = f"live in {name} since {stays[-1].since:%Y-%m-%d %H:%M:%S} UTC"
        return Gate(f"live in {name}", "passed", text if stays[-1].until is None else f"the release was live in {name}")
    last = stays[-1]
    if last.until is None:
        left = format_seconds((_soaked(facts, last) - facts.at).total_seconds())
        return Gate(f"live in {name}", "waiting", f"live in {name}, soaks for another {left}")
    short = f"was live in {name}, but for less than {format_seconds(facts.spec.soak)}"
    return Gate(f"live in {name}", "blocked", f"the release {short}")


def _hold(facts: Facts) -> list[Gate]:
    if facts.hold is None:
        return [Gate("hold", "passed", "the environment is not held")]
    return [Gate("hold", "blocked", f"held by {facts.held_by or TOWPATH}: {facts.hold}", "approver, admin")]


def _approvals(facts: Facts) -> list[Gate]:
    required = facts.spec.approvals_required
    if not required:
        return []
    names = [vote.username for vote in valid_votes(facts)]
    by = f" ({', '.join(names)})" if names else ""
    text = f"{len(names)} of {required} {'approval' if required == 1 else 'approvals'}{by}"
    state: Literal["passed", "waiting"] = "passed" if len(names) >= required else "waiting"
    return [Gate(APPROVALS, state, text, ", ".join(facts.spec.approvals.allowed))]


def valid_votes(facts: Facts) -> list[Vote]:
    """Approvals of what would be deployed now."""
    return [vote for vote in facts.votes if vote.vote == "approve" and vote.fingerprint == facts.fingerprint]


def _turn(facts: Facts) -> Gate:
    if facts.busy:
        return Gate(TURN, "waiting", f"{facts.busy} is being deployed there")
    return Gate(TURN, "passed", "no other deployment runs there")
