"""The pages: a Flask blueprint of thin views over the read models and use cases of `cd`."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path
from typing import Any

from flask import Blueprint, Response, request, url_for

from cd.web import problems
from cd.web.context import access
from ui import ansi, filters
from ui.pages import account, audit, board, environments, errors, logs, people, project, promotion, run, settings, tests

STATIC = Path(__file__).parent / "static"
#: A static address carries a hash, so what is behind it never changes.
FOREVER = "public, max-age=31536000, immutable"


def create_blueprint() -> Blueprint:
    """A new blueprint with every page. It needs an application made by `cd.web.app.create_app`."""
    pages = Blueprint("ui", __name__, template_folder="templates")
    filters.register(pages)
    for part in (board, project, environments, settings, run, logs, promotion, account, people, audit, tests):
        part.register(pages)
    pages.add_url_rule("/static/<version>/<name>", "asset", access(None)(_asset))
    pages.add_url_rule("/favicon.ico", "favicon", access(None)(lambda: _asset("", "favicon.svg")))
    pages.record_once(lambda state: state.app.extensions.update({problems.PAGE: errors.page}))
    pages.app_context_processor(_shared)
    return pages


def _shared() -> dict[str, Any]:
    return {
        "asset": asset_url,
        "account": account.person_now,
        "waiting_count": board.waiting_count,
        "path": request.path,
    }


def asset_url(name: str) -> str:
    """The address of a static file; it changes with any of them, as modules import each other by name."""
    return url_for("ui.asset", version=_version(), name=name)


def _asset(version: str, name: str) -> Response:
    if name not in _files():
        return Response("no such file\n", 404, mimetype="text/plain")
    kinds = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
    answer = Response(_files()[name], mimetype=kinds.get(Path(name).suffix, "application/octet-stream"))
    answer.headers["Cache-Control"] = FOREVER if version == _version() else "public, max-age=3600"
    return answer


@cache
def _files() -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in STATIC.iterdir()} | {"ansi.css": ansi.stylesheet().encode()}


@cache
def _version() -> str:
    whole = hashlib.sha256()
    for name, content in sorted(_files().items()):
        whole.update(name.encode() + b"\0" + content)
    return whole.hexdigest()[:12]
