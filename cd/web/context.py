"""Who is asking, and whether they may: every view says for whom it is, or it is refused to all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar, cast
from urllib.parse import urlsplit

import structlog
from flask import Flask, Response, after_this_request, current_app, g, request
from flask import session as form_session
from flask_wtf.csrf import CSRFError, CSRFProtect
from werkzeug.exceptions import RequestEntityTooLarge

from cd.errors import Forbidden, NotFound, Unauthorized, UserError
from cd.identity import audit, sessions, tokens
from cd.identity.people import Person, Role
from cd.web import login

if TYPE_CHECKING:
    from cd.wiring import Services

log = structlog.get_logger()

COOKIE = "towpath_session"
SAFE = frozenset({"GET", "HEAD", "OPTIONS"})

#: Ids and numbers in addresses go up to this.
MOST = (1 << 31) - 1

View = TypeVar("View", bound=Callable[..., Any])
csrf = CSRFProtect()


class BadForm(UserError):
    """A form without the token that its page gave it."""


@dataclass(frozen=True)
class Access:
    """Who may call a view: `role` and above, or anybody when it is None. `csrf`: whether forms need their token."""

    role: Role | None
    csrf: bool = True


def services() -> Services:
    """The parts of this process."""
    return cast("Services", current_app.extensions["towpath"])


def access(role: Role | None) -> Callable[[View], View]:
    """Say who may call the decorated view; None is for views that anybody may."""

    def note(view: View) -> View:
        cast("Any", view).towpath_access = Access(role)
        return view

    return note


def allow(app: Flask, endpoint: str, rule: Access) -> None:
    """The same for a view of a part that does not know of this module."""
    cast("Any", app.view_functions[endpoint]).towpath_access = rule


def access_of(app: Flask, endpoint: str) -> Access | None:
    """What was said for a view; None when nothing was, so that nobody may call it."""
    found: Access | None = getattr(app.view_functions.get(endpoint), "towpath_access", None)
    return found


def person() -> Person | None:
    """Who is asking, by token or by cookie; looked up once a request."""
    if "towpath_person" not in g:
        g.towpath_person = _find()
    found: Person | None = g.towpath_person
    return found


def who() -> Person:
    """The same where the view has an access rule with a role. Raises Unauthorized."""
    found = person()
    if found is None:
        raise Unauthorized("nobody is signed in", remedy="sign in, or send Authorization: Bearer with a token")
    return found


def _find() -> Person | None:
    secret = bearer()
    if secret is not None:
        return _by_token(secret)
    cookie = request.cookies.get(COOKIE)
    if not cookie:
        return None
    with services().database.read() as session:
        return sessions.find(session, cookie)


def _by_token(secret: str) -> Person | None:
    with services().database.read() as session:
        found = tokens.find(session, secret)
        unseen = found is not None and tokens.is_used_unseen(session, secret)
    if unseen:
        with services().database.write() as session:
            tokens.used(session, secret)
    return found


def bearer() -> str | None:
    """The token that came with the request, right or wrong; it counts before any cookie."""
    scheme, _, secret = request.headers.get("Authorization", "").partition(" ")
    return secret.strip() if scheme.lower() == "bearer" else None


def guard() -> None:
    """Before each request: is there a rule, does the person fit it, does the form come from our own page."""
    if request.endpoint is None:
        return
    if any(_cannot_be(value) for value in (request.view_args or {}).values()):
        raise NotFound("there is nothing at this address")
    rule = access_of(current_app, request.endpoint)
    if rule is None:
        log.error("access.no_rule", endpoint=request.endpoint)
        raise Forbidden("this address is open to nobody")
    if rule.role is not None:
        _check_role(rule.role)
    if rule.csrf:
        _check_size()
    if rule.csrf and request.method not in SAFE:
        _check_form()


def _check_size() -> None:
    """Flask looks at the length only where a body is read, and cuts one of unknown length off without a word."""
    most = request.max_content_length or 0
    length = request.content_length
    if length is None and request.method not in SAFE:
        length = len(request.get_data()) + 1
    if (length or 0) > most:
        raise RequestEntityTooLarge


def _cannot_be(value: Any) -> bool:
    """Names and numbers that no row can have, and that some databases take badly."""
    return value > MOST if isinstance(value, int) else "\0" in str(value)


def _check_role(role: Role) -> None:
    found = who()
    if not found.role.allows(role):
        raise Forbidden(f"this takes the role {role.value}; yours is {found.role.value}", remedy="ask an admin")


def _check_form() -> None:
    """Whatever a browser adds by itself must not be enough to change something."""
    if bearer() is not None or (request.path.startswith("/api/") and COOKIE not in request.cookies):
        return
    try:
        csrf.protect()
    except CSRFError as error:
        raise BadForm(
            f"the form was not taken: {str(error.description).rstrip('.').lower()}",
            remedy="go back, reload the page and send it again; cookies must be allowed",
        ) from error


def sign_in(username: str, password: str) -> Person:
    """Begin a session and give the browser its cookie. Raises Unauthorized, TooMany."""
    parts = services()
    found = login.check(parts, username, password, request.remote_addr or "")
    with parts.database.write() as session:
        old = request.cookies.get(COOKIE)
        if old:
            sessions.close(session, old)
        secret = sessions.open(session, found.id)
        audit.append(session, found.username, "user.sign_in", found.username, address=request.remote_addr or "")
    form_session.clear()
    g.towpath_person = found
    _set_cookie(secret, int(sessions.LIFE.total_seconds()))
    return found


def sign_out() -> None:
    """End this browser's session."""
    secret = request.cookies.get(COOKIE)
    if secret:
        with services().database.write() as session:
            sessions.close(session, secret)
    form_session.clear()
    g.towpath_person = None
    _set_cookie("", 0)


def _set_cookie(secret: str, seconds: int) -> None:
    secure = services().settings.cookies_are_secure

    @after_this_request
    def _(response: Response) -> Response:
        response.set_cookie(COOKIE, secret, max_age=seconds, httponly=True, samesite="Lax", secure=secure, path="/")
        return response


def local(target: str | None, default: str = "/") -> str:
    """`target` if it is a path on this server, else `default`: for redirects to what an address says."""
    if not target or not target.startswith("/") or target.startswith(("//", "/\\")) or not target.isprintable():
        return default
    parts = urlsplit(target)
    return default if parts.scheme or parts.netloc or "\\" in target else target
