"""Local accounts: passwords as argon2id."""

from __future__ import annotations

import re
import secrets
import threading
from collections.abc import Sequence
from functools import cache

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from cd.errors import Conflict, NotFound, UserError
from cd.identity import audit
from cd.identity.people import Person, Role
from cd.identity.records import LoginSession, Token, User
from cd.store.base import now

NAME = re.compile(r"[a-z0-9][a-z0-9._@-]{0,63}")
SHORTEST, LONGEST = 10, 1024
_hasher = PasswordHasher()
#: A hash takes 64 MiB and a whole core: many logins at once wait here instead of using up the machine.
_few = threading.BoundedSemaphore(2)


def create(session: Session, actor: str, username: str, password: str, role: Role | str) -> User:
    """Add an account. Raises UserError for a name, password or role that can't be, Conflict when it is taken."""
    if not NAME.fullmatch(username) or username == "towpath":
        raise UserError(
            f"{username!r} can't be a user's name", remedy="use a-z, 0-9 and . _ @ -, at most 64, and not `towpath`"
        )
    if session.scalar(select(User.id).where(User.username == username)) is not None:
        raise Conflict(f"there is a user {username!r} already", remedy="choose another name")
    user = User(username=username, password_hash=_hash(password), role=_role(role).value, created_at=now())
    session.add(user)
    session.flush()
    audit.append(session, actor, "user.create", username, role=user.role)
    return user


def _role(role: Role | str) -> Role:
    try:
        return Role(role)
    except ValueError as error:
        raise UserError(f"{role!r} is not a role", remedy=f"use one of {', '.join(Role)}") from error


def _hash(password: str) -> str:
    if len(password) < SHORTEST:
        raise UserError(f"the password has fewer than {SHORTEST} characters", remedy="choose a longer one")
    if len(password) > LONGEST:
        raise UserError(f"the password has more than {LONGEST} characters", remedy="choose a shorter one")
    with _few:
        return _hasher.hash(password)


@cache
def _nobody() -> str:
    """A hash to compare with when there is no such user, so that the answer takes as long."""
    return _hasher.hash(secrets.token_hex())


def verify(session: Session, username: str, password: str) -> Person | None:
    """The person, if name and password fit and the account is not disabled. Takes about 0.1 s either way."""
    user = session.scalar(select(User).where(User.username == username.lower()))
    known = user is not None and user.disabled_at is None and len(password) <= LONGEST
    try:
        with _few:
            _hasher.verify(user.password_hash if user is not None and known else _nobody(), password[:LONGEST])
    except (VerificationError, InvalidHashError):
        return None
    return person_of(user) if user is not None and known else None


def person_of(user: User) -> Person:
    """The account as a person."""
    return Person(user.id, user.username, Role(user.role))


def first_admin(session: Session) -> str | None:
    """Make the user `admin` where there is no user at all; its password, or None."""
    if session.scalar(select(func.count(User.id))):
        return None
    password = secrets.token_urlsafe(12)
    create(session, "towpath", "admin", password, Role.admin)
    return password


def find(session: Session, user_id: int) -> User:
    """The account. Raises NotFound."""
    user = session.get(User, user_id)
    if user is None:
        raise NotFound("there is no such user")
    return user


def named(session: Session, username: str) -> User:
    """The account of that name. Raises NotFound."""
    user = session.scalar(select(User).where(User.username == username))
    if user is None:
        raise NotFound(f"there is no user {username!r}", remedy="`towpath user list` shows them")
    return user


def listing(session: Session) -> Sequence[User]:
    """All accounts by name, disabled ones too."""
    return session.scalars(select(User).order_by(User.username)).all()


def set_role(session: Session, actor: str, user_id: int, role: Role | str) -> None:
    """Give an account another role. Raises Conflict for the last admin."""
    user = find(session, user_id)
    fresh = _role(role)
    if fresh is not Role.admin:
        _not_the_last_admin(session, user)
    user.role = fresh.value
    audit.append(session, actor, "user.role", user.username, role=user.role)


def set_password(session: Session, actor: str, user_id: int, password: str) -> None:
    """Set a new password and end the account's sessions. Raises UserError."""
    user = find(session, user_id)
    user.password_hash = _hash(password)
    session.execute(delete(LoginSession).where(LoginSession.user_id == user_id))
    audit.append(session, actor, "user.password", user.username)


def disable(session: Session, actor: str, user_id: int) -> None:
    """Lock an account out: sessions end, tokens stop working. Raises Conflict for the last admin."""
    user = find(session, user_id)
    _not_the_last_admin(session, user)
    user.disabled_at = user.disabled_at or now()
    session.execute(delete(LoginSession).where(LoginSession.user_id == user_id))
    for token in session.scalars(select(Token).where(Token.user_id == user_id, Token.revoked_at.is_(None))):
        token.revoked_at = now()
    audit.append(session, actor, "user.disable", user.username)


def enable(session: Session, actor: str, user_id: int) -> None:
    """Let a disabled account in again."""
    user = find(session, user_id)
    user.disabled_at = None
    audit.append(session, actor, "user.enable", user.username)


def _not_the_last_admin(session: Session, user: User) -> None:
    others = session.scalar(
        select(func.count(User.id)).where(User.role == Role.admin.value, User.disabled_at.is_(None), User.id != user.id)
    )
    if user.role == Role.admin.value and user.disabled_at is None and not others:
        raise Conflict(f"{user.username} is the last admin", remedy="make somebody else an admin first")
