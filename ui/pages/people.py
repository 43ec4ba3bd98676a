"""For admins: who may sign in, and as what."""

from __future__ import annotations

from flask import Blueprint, render_template, request, url_for
from flask.typing import ResponseReturnValue

from cd.errors import UserError
from cd.identity import users
from cd.identity.people import Role
from cd.web.context import access, services, who
from ui.pages.common import done, field, number


def register(pages: Blueprint) -> None:
    """List of users and the forms to change them."""
    pages.add_url_rule("/users", "users", access(Role.admin)(show))
    pages.add_url_rule("/users", "create_user", access(Role.admin)(create), methods=["POST"])
    pages.add_url_rule("/users/change", "change_user", access(Role.admin)(change), methods=["POST"])


def show() -> ResponseReturnValue:
    """All accounts."""
    return _page()


def _page(fault: str = "") -> str:
    with services().database.read() as session:
        accounts = users.listing(session)
    return render_template("ui/users.html", accounts=accounts, roles=list(Role), fault=fault, form=request.form)


def create() -> ResponseReturnValue:
    """Add an account."""
    try:
        with services().database.write() as session:
            password = request.form.get("password", "")
            made = users.create(session, who().username, field("username", 64), password, field("role", 16))
    except UserError as error:
        return _page(str(error)), error.status
    return done(f"{made.username} can sign in now.", url_for("ui.users"))


def change() -> ResponseReturnValue:
    """Another role or password, or lock an account out, or let it in again."""
    actor, account = who().username, number("user")
    with services().database.write() as session:
        match field("action", 16):
            case "role":
                users.set_role(session, actor, account, field("role", 16))
            case "password":
                users.set_password(session, actor, account, request.form.get("password", ""))
            case "disable":
                users.disable(session, actor, account)
            case "enable":
                users.enable(session, actor, account)
            case other:
                raise UserError(f"{other!r} is nothing to do with a user", remedy="go back and choose again")
    return done("The account is changed.", url_for("ui.users"))
