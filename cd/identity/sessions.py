"""Signed-in browsers: the cookie holds a random secret, the database its hash, so that a session can be ended."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from cd.identity import secrets
from cd.identity.people import Person
from cd.identity.records import LoginSession, User
from cd.identity.users import person_of
from cd.store.base import now

#: How long a session lasts.
LIFE = timedelta(days=7)


def open(session: Session, user_id: int) -> str:
    """Begin a session; the secret for the cookie. Those that are over are removed on the way."""
    at = now()
    session.execute(delete(LoginSession).where(LoginSession.expires_at < at))
    secret = secrets.make()
    session.add(LoginSession(user_id=user_id, secret_hash=secrets.digest(secret), created_at=at, expires_at=at + LIFE))
    return secret


def find(session: Session, secret: str) -> Person | None:
    """Who signed in with this secret, unless the session is over or the account disabled."""
    user = session.scalar(
        select(User)
        .join(LoginSession, LoginSession.user_id == User.id)
        .where(
            LoginSession.secret_hash == secrets.digest(secret),
            LoginSession.expires_at > now(),
            User.disabled_at.is_(None),
        )
    )
    return person_of(user) if user is not None else None


def close(session: Session, secret: str) -> None:
    """End the session."""
    session.execute(delete(LoginSession).where(LoginSession.secret_hash == secrets.digest(secret)))
