"""API tokens: as mighty as the account they belong to."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from sqlalchemy import or_, select, update
from sqlalchemy.orm import Session

from cd.errors import NotFound, UserError
from cd.identity import audit, secrets
from cd.identity.people import Person, Role
from cd.identity.records import Token, User
from cd.identity.users import person_of
from cd.store.base import now

PREFIX = "tp_"
#: `last_used_at` is this exact; writing it at every request would cost more than the request.
USED_EVERY = timedelta(minutes=5)


def create(session: Session, person: Person, name: str) -> str:
    """A new token of this person; its secret, which is not stored. Raises UserError."""
    if not 0 < len(name) <= 64:
        raise UserError("a token needs a name of at most 64 characters", remedy="say where it is used, such as laptop")
    secret = secrets.make(PREFIX)
    session.add(Token(user_id=person.id, name=name, secret_hash=secrets.digest(secret), created_at=now()))
    session.flush()
    audit.append(session, person.username, "token.create", f"{person.username}/{name}")
    return secret


def find(session: Session, secret: str) -> Person | None:
    """Whose token this is, unless it is revoked or the account disabled."""
    user = session.scalar(
        select(User)
        .join(Token, Token.user_id == User.id)
        .where(Token.secret_hash == secrets.digest(secret), Token.revoked_at.is_(None), User.disabled_at.is_(None))
    )
    return person_of(user) if user is not None else None


def is_used_unseen(session: Session, secret: str) -> bool:
    """Whether `used` should be called: nothing was noted for a while."""
    last = session.scalar(
        select(Token.id).where(
            Token.secret_hash == secrets.digest(secret),
            or_(Token.last_used_at.is_(None), Token.last_used_at < now() - USED_EVERY),
        )
    )
    return last is not None


def used(session: Session, secret: str) -> None:
    """Note that the token was used now."""
    session.execute(update(Token).where(Token.secret_hash == secrets.digest(secret)).values(last_used_at=now()))


def listing(session: Session, user_id: int) -> Sequence[Token]:
    """The account's tokens that work, newest first."""
    return session.scalars(
        select(Token).where(Token.user_id == user_id, Token.revoked_at.is_(None)).order_by(Token.id.desc())
    ).all()


def revoke(session: Session, person: Person, token_id: int) -> None:
    """Make a token worthless: one's own, or as admin anybody's. Raises NotFound."""
    token = session.get(Token, token_id)
    if token is None or (token.user_id != person.id and person.role is not Role.admin):
        raise NotFound("there is no such token")
    token.revoked_at = token.revoked_at or now()
    audit.append(session, person.username, "token.revoke", f"{token.id}/{token.name}")
