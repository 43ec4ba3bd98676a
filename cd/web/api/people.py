"""Users, tokens and the audit log."""

from __future__ import annotations

from flask import Response, request

from cd.errors import Unauthorized
from cd.identity import audit, tokens, users
from cd.identity.people import Role
from cd.web import login
from cd.web.api import models
from cd.web.api.common import part, shown
from cd.web.context import access, person, services, who

api = part("people")


@api.get("/me", responses={200: models.Me})
@access(Role.viewer)
def me() -> Response:
    """Who the token belongs to."""
    return shown(models.Me.model_validate(who()))


@api.get("/users", responses={200: models.Users})
@access(Role.admin)
def list_users() -> Response:
    """All accounts by name."""
    with services().database.read() as session:
        rows = users.listing(session)
    return shown(models.Users(items=[models.User.model_validate(row) for row in rows]))


@api.post("/users", responses={201: models.User})
@access(Role.admin)
def create_user(body: models.NewUser) -> Response:
    """Add an account."""
    with services().database.write() as session:
        user = users.create(session, who().username, body.username, body.password, body.role)
    return shown(models.User.model_validate(user), 201)


@api.patch("/users/<username>", responses={200: models.User})
@access(Role.admin)
def change_user(path: models.UserPath, body: models.UserChange) -> Response:
    """Another role or password, or lock the account out."""
    actor = who().username
    with services().database.write() as session:
        user = users.named(session, path.username)
        if body.role is not None:
            users.set_role(session, actor, user.id, body.role)
        if body.password is not None:
            users.set_password(session, actor, user.id, body.password)
        if body.disabled is not None:
            (users.disable if body.disabled else users.enable)(session, actor, user.id)
    return shown(models.User.model_validate(user))


@api.get("/tokens", responses={200: models.Tokens})
@access(Role.viewer)
def list_tokens() -> Response:
    """One's own tokens."""
    with services().database.read() as session:
        rows = tokens.listing(session, who().id)
    return shown(models.Tokens(items=[models.Token.model_validate(row) for row in rows]))


@api.post("/tokens", responses={201: models.CreatedToken})
@access(None)
def create_token(body: models.NewToken) -> Response:
    """A new token, for who is signed in or gives name and password."""
    if body.username is not None:
        owner = login.check(services(), body.username, body.password or "", request.remote_addr or "")
    else:
        found = person()
        if found is None:
            raise Unauthorized("a token is for somebody", remedy="give username and password")
        owner = found
    with services().database.write() as session:
        secret = tokens.create(session, owner, body.name)
    return shown(models.CreatedToken(token=secret, username=owner.username, role=owner.role), 201)


@api.delete("/tokens/<int:token>", responses={204: None})
@access(Role.viewer)
def revoke_token(path: models.TokenPath) -> Response:
    """Make a token worthless."""
    with services().database.write() as session:
        tokens.revoke(session, who(), path.token)
    return Response(status=204)


@api.get("/audit", responses={200: models.AuditEntries})
@access(Role.viewer)
def list_audit(query: models.Page) -> Response:
    """Decisions, newest first."""
    with services().database.read() as session:
        rows = audit.entries(session, query.before, query.limit)
    older = rows[-1].id if len(rows) == query.limit else None
    return shown(models.AuditEntries(items=[models.AuditEntry.model_validate(row) for row in rows], next=older))


@api.get("/audit/verify", responses={200: models.AuditVerdict})
@access(Role.viewer)
def verify_audit() -> Response:
    """Whether the chain of entries is whole."""
    with services().database.read() as session:
        broken = audit.verify(session)
    return shown(models.AuditVerdict(intact=broken is None, broken=broken))
