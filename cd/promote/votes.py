"""Who may vote on a promotion, and the writing of a vote."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import select
from sqlalchemy.orm import Session

from cd.errors import Conflict, Forbidden, UserError
from cd.identity.people import Person, Role
from cd.promote.gates import Facts, valid_votes
from cd.promote.policy import Approvals
from cd.promote.records import Approval, Promotion, Release
from cd.promote.states import PENDING
from cd.store.base import now

ROLES = frozenset(role.value for role in Role)


def is_approver(approvals: Approvals, person: Person) -> bool:
    """Whether the policy names the person, or a role that the person has."""
    return any(
        person.role.allows(Role(name)) if name in ROLES else name == person.username for name in approvals.allowed
    )


def objection(facts: Facts, promotion: Promotion, release: Release, person: Person) -> UserError | None:
    """Why the person may not approve now; None when nothing stands against it."""
    if promotion.kind == "rollback":
        return Conflict("a rollback needs no approvals")
    if promotion.state not in PENDING:
        return Conflict(f"it is {promotion.state.replace('_', ' ')}: votes do not count any more")
    approvals, given = facts.spec.approvals, [vote.username for vote in valid_votes(facts)]
    if person.username in given:
        return Conflict("you have approved it already")
    if len(given) >= facts.spec.approvals_required:
        return Conflict("it has all the approvals that it needs")
    if not is_approver(approvals, person):
        return Forbidden(f"only {', '.join(approvals.allowed)} may approve here")
    if not approvals.self_approval and _is_own(promotion, release, person):
        return Forbidden("who pushed, wrote or asked for it can't approve it", remedy="ask somebody else")
    return None


def _is_own(promotion: Promotion, release: Release, person: Person) -> bool:
    own = {name for text in (release.pusher, release.author, promotion.requested_by) for name in _names(text)}
    return person.username.casefold() in own


def _names(text: str) -> Iterable[str]:
    """The names that "Jane <jane@example.org>" may be known by here."""
    name, _, mail = text.partition("<")
    return {part.strip().casefold() for part in (text, name, mail.partition("@")[0], mail.rstrip("> "))} - {""}


def write(session: Session, promotion: Promotion, person: Person, vote: str, comment: str) -> None:
    """Put the person's vote down, in place of one that the person gave before."""
    row = session.scalars(
        select(Approval).where(Approval.promotion_id == promotion.id, Approval.username == person.username)
    ).one_or_none()
    if row is None:
        row = Approval(promotion_id=promotion.id, username=person.username)
        session.add(row)
    row.vote, row.comment, row.fingerprint, row.at = vote, comment.strip(), promotion.fingerprint, now()
    session.flush()
