"""What went wrong, said to a person: the message, what to do, and a way back."""

from __future__ import annotations

from flask import render_template, request
from flask.typing import ResponseReturnValue

from cd.web.context import local

_TITLES = {
    400: "That can’t be done",
    401: "Please sign in",
    403: "You may not do this",
    404: "Not found",
    405: "Not that way",
    409: "It has moved on",
    413: "Too large",
    429: "Too many tries",
    500: "Something broke",
    503: "Not available now",
}


def page(status: int, message: str, remedy: str = "") -> ResponseReturnValue:
    """Any error as a page; `cd.web.problems` calls it."""
    title = _TITLES.get(status, "Error")
    back = local(_before()) if request.method != "GET" else ""
    return render_template(
        "ui/error.html", status=status, title=title, message=message, remedy=remedy, back=back
    ), status


def _before() -> str:
    """The page that the form was on, if it was one of ours."""
    referrer, here = request.referrer or "", request.host_url.rstrip("/")
    return referrer.removeprefix(here) if referrer.startswith(f"{here}/") else ""
