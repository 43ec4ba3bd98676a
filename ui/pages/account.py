"""Signing in and out, and what a person may change of their own: password and API tokens."""

from __future__ import annotations

from flask import Blueprint, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue

from cd.errors import UserError
from cd.identity import tokens, users
from cd.identity.people import Person, Role
from cd.web import context
from cd.web.context import access, local, services, who
from ui.pages.common import done, field, number


def register(pages: Blueprint) -> None:
    """Login, logout, the person's own page."""
    pages.add_url_rule("/login", "login", access(None)(login), methods=["GET", "POST"])
    pages.add_url_rule("/logout", "logout", access(Role.viewer)(logout), methods=["POST"])
    pages.add_url_rule("/account", "account", access(Role.viewer)(show))
    pages.add_url_rule("/account/password", "password", access(Role.viewer)(password), methods=["POST"])
    pages.add_url_rule("/account/tokens", "create_token", access(Role.viewer)(create_token), methods=["POST"])
    pages.add_url_rule("/account/tokens/revoke", "revoke_token", access(Role.viewer)(revoke_token), methods=["POST"])


def person_now() -> Person | None:
    """Who is signed in, for the menu."""
    return context.person()


def login() -> ResponseReturnValue:
    """The form, and what it sends."""
    target = local(request.values.get("next"))
    if request.method == "GET":
        return redirect(target) if context.person() else render_template("ui/login.html", next=target, fault="")
    try:
        context.sign_in(field("username", 64), request.form.get("password", ""))
    except UserError as error:
        page = render_template(
            "ui/login.html", next=target, fault=str(error), username=request.form.get("username", "")
        )
        return page, error.status
    return redirect(target, 303)


def logout() -> ResponseReturnValue:
    """End this browser's session."""
    context.sign_out()
    return redirect(url_for("ui.login"), 303)


def show() -> ResponseReturnValue:
    """Own tokens and password."""
    return _page()


def _page(secret: str = "", name: str = "") -> str:
    with services().database.read() as session:
        mine = tokens.listing(session, who().id)
    return render_template("ui/account.html", tokens=mine, secret=secret, name=name, url=services().settings.url)


def password() -> ResponseReturnValue:
    """A new password, for who knows the old one."""
    me = who()
    fresh = request.form.get("new", "")
    if fresh != request.form.get("again", ""):
        raise UserError("the two new passwords differ", remedy="type the same one twice")
    with services().database.write() as session:
        if users.verify(session, me.username, request.form.get("old", "")) is None:
            raise UserError("the present password is another one", remedy="try again, or ask an admin to set it")
        users.set_password(session, me.username, me.id, fresh)
    context.sign_in(me.username, fresh)  # the change ended all sessions, this one too
    return done("Your password is changed.", url_for("ui.account"))


def create_token() -> ResponseReturnValue:
    """A token for the command line and the API; its secret is shown this once."""
    name = field("name", 64)
    with services().database.write() as session:
        secret = tokens.create(session, who(), name)
    return _page(secret, name)


def revoke_token() -> ResponseReturnValue:
    """Make a token worthless."""
    with services().database.write() as session:
        tokens.revoke(session, who(), number("token"))
    return done("The token is revoked.", url_for("ui.account"))
