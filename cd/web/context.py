"""Who is asking, and whether they may. A view that does not say who may call it can be called by nobody."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, cast

import redis
import structlog
from flask import Response, abort, after_this_request, current_app, g, request
from flask_wtf.csrf import CSRFProtect

from cd.errors import Forbidden, Unauthorized, UserError
from cd.identity import sessions, tokens, users
from cd.identity.people import Person, Role
from cd.wiring import Services

log = structlog.get_logger()

COOKIE = "towpath_session"
#: Failed tries to sign in per minute, for one name from one address.
TRIES = 10
#: Views without a decorator of ours, that anybody may call.
PUBLIC = frozenset({"hooks.receive"})
_ACCESS = "towpath_access"

csrf = CSRFProtect()
V = TypeVar("V", bound=Callable[..., object])


class TooManyTries(UserError):
    """Somebody guesses passwords."""

    status = 429


def access(role: Role | None) -> Callable[[V], V]:
    """Decorator: who may call a view. None: anybody."""

    def mark(view: V) -> V:
        setattr(view, _ACCESS, role)
        return view

    return mark


def services() -> Services:
    """The parts of this process."""
    return cast(Services, current_app.extensions["towpath"])


def person() -> Person | None:
    """Who is asking: by bearer token where there is one, else by the session's cookie."""
    if "person" not in g:
        g.person = _by_token() if request.headers.get("Authorization") else _by_cookie()
    return cast("Person | None", g.person)


def _by_token() -> Person | None:
    kind, _, secret = request.headers["Authorization"].partition(" ")
    if kind.lower() != "bearer":
        return None
    secret = secret.strip()
    with services().database.read() as session:
        found = tokens.find(session, secret)
        unseen = found is not None and tokens.is_used_unseen(session, secret)
    if unseen:
        with services().database.write() as session:
            tokens.used(session, secret)
    return found


def _by_cookie() -> Person | None:
    secret = request.cookies.get(COOKIE)
    if not secret:
        return None
    with services().database.read() as session:
        return sessions.find(session, secret)


def guard() -> None:
    """Before each request: forms must be ours, and the view must be for this person."""
    if request.endpoint is None:
        return  # no such address: nothing to guard, the answer is 404
    if request.endpoint in PUBLIC:
        return
    if _needs_form_token():
        csrf.protect()
    view = current_app.view_functions[request.endpoint]
    if not hasattr(view, _ACCESS):
        log.error("web.unguarded", endpoint=request.endpoint)
        abort(403)
    require(getattr(view, _ACCESS))


def _needs_form_token() -> bool:
    """Whatever a browser could be made to send with its cookie must prove that it came from our page."""
    if request.method in ("GET", "HEAD", "OPTIONS", "TRACE") or request.headers.get("Authorization"):
        return False
    return not request.path.startswith("/api/") or COOKIE in request.cookies


def require(role: Role | None) -> None:
    """Raises Unauthorized or Forbidden unless the person has this role."""
    if role is None:
        return
    found = person()
    if found is None:
        raise Unauthorized("nobody is signed in", remedy="sign in, or send a token (Authorization: Bearer …)")
    if not found.role.allows(role):
        raise Forbidden(
            f"this takes the role {role}; {found.username} is {found.role}", remedy="ask an admin for the role"
        )


def check_password(username: str, password: str) -> Person:
    """The person of these credentials. Raises Unauthorized, TooManyTries."""
    key = f"towpath:tries:{username[:64]}:{request.remote_addr}"
    _count(key)
    with services().database.read() as session:
        found = users.verify(session, username, password)
    if found is None:
        log.warning("web.sign_in_failed", username=username[:64], address=request.remote_addr)
        raise Unauthorized("name or password is wrong", remedy="try again, or ask an admin to set a new password")
    return found


def _count(key: str) -> None:
    connection = services().redis
    try:
        tries = connection.incr(key)
        if tries == 1:
            connection.expire(key, 60)
    except redis.RedisError as error:
        # Signing in must work while Redis is away; the slow hash still holds guessing back.
        log.warning("web.tries_not_counted", error=str(error))
        return
    if int(tries) > TRIES:
        raise TooManyTries("too many tries to sign in", remedy="wait a minute")


def sign_in(username: str, password: str) -> Person:
    """Check the credentials and give this browser a session. Raises Unauthorized, TooManyTries."""
    found = check_password(username, password)
    with services().database.write() as session:
        secret = sessions.open(session, found.id)
    _set_cookie(secret, int(sessions.LIFE.total_seconds()))
    g.person = found
    return found


def sign_out() -> None:
    """End this browser's session."""
    with services().database.write() as session:
        sessions.close(session, request.cookies.get(COOKIE, ""))
    _set_cookie("", 0)
    g.person = None


def _set_cookie(value: str, age: int) -> None:
    secure = services().settings.cookies_are_secure

    @after_this_request
    def put(response: Response) -> Response:
        response.set_cookie(COOKIE, value, max_age=age, httponly=True, samesite="Lax", secure=secure)
        return response
