"""The audit log: who decided what and when, and whether the chain is whole."""

from __future__ import annotations

import json

from flask import Blueprint, render_template, request
from flask.typing import ResponseReturnValue

from cd.identity import audit
from cd.identity.people import Role
from cd.web.context import access, services
from ui.pages.common import argument

A_PAGE = 50


def register(pages: Blueprint) -> None:
    """One page; `?verify=1` follows the whole chain."""
    pages.add_url_rule("/audit", "audit", access(Role.viewer)(show))


def show() -> ResponseReturnValue:
    """The newest entries, or those before the one in `?before=`."""
    verify = "verify" in request.args
    with services().database.read() as session:
        found = audit.entries(session, argument("before"), A_PAGE + 1)
        broken = audit.verify(session) if verify else None
    rows = [(entry, _told(entry.detail)) for entry in found[:A_PAGE]]
    older = found[A_PAGE - 1].id if len(found) > A_PAGE else None
    return render_template("ui/audit.html", rows=rows, older=older, verified=verify, broken=broken)


def _told(detail: dict[str, object]) -> str:
    parts = (
        f"{name}: {value if isinstance(value, str | int | float) else json.dumps(value)}"
        for name, value in detail.items()
        if value not in (None, "")
    )
    return ", ".join(parts)[:400]
