"""What several pages share: where to go afterwards, fields of forms and of addresses."""

from __future__ import annotations

from flask import flash, redirect, request
from flask.typing import ResponseReturnValue

from cd.errors import UserError
from cd.web.context import local


def done(message: str, address: str) -> ResponseReturnValue:
    """After a form was taken: say so on the page that follows."""
    if message:
        flash(message)
    return redirect(local(address), 303)


def field(name: str, limit: int = 2000) -> str:
    """A field of the form, trimmed. Raises UserError when it is longer than `limit` characters."""
    text = request.form.get(name, "").strip()
    if len(text) > limit:
        raise UserError(f"{name} is over {limit} characters", remedy="make it shorter")
    return text


def number(name: str) -> int:
    """A field of the form that is a number. Raises UserError."""
    text = field(name, 18)
    if not (text.isascii() and text.isdigit()):
        raise UserError(f"{name} must be a number", remedy="go back and choose again")
    return int(text)


def argument(name: str) -> int | None:
    """A number in the query of the address; None when it isn't there or no number."""
    text = request.args.get(name, "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 18 else None
