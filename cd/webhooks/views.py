"""POST /hooks/<project>: where forges and hosted repositories tell of pushes.

The project's secret is kept in memory after its first use, so that a delivery is verified before the database is
asked anything. That it is still the project's secret is checked in the transaction that stores the delivery, and
once more before a delivery is refused: a new secret, and a deletion, count from the next request on.
"""

from __future__ import annotations

from dataclasses import dataclass
from time import time
from typing import TYPE_CHECKING, cast

from flask import Blueprint, Response, current_app, jsonify, request

from cd.errors import Conflict, TooLarge, Unauthorized
from cd.pipeline import projects
from cd.webhooks import deliveries, statements
from cd.webhooks.deliveries import Incoming, Received
from cd.webhooks.signature import Headers

if TYPE_CHECKING:
    from cd.wiring import Services

blueprint = Blueprint("hooks", __name__)

#: GitHub's own limit.
MAX_BODY = 25 << 20
_KEPT = "towpath-webhook-secrets"


@dataclass(frozen=True)
class _Known:
    """How a project's deliveries are checked. `stored` is the secret as the database has it."""

    project_id: int
    forge: str
    stored: bytes
    secret: str


class _Stale(Conflict):
    """The project has changed since its secret was kept."""


@blueprint.post("/hooks/<project>")
def receive(project: str) -> tuple[Response, int]:
    """Take one delivery; answered only once it is committed."""
    services = cast("Services", current_app.extensions["towpath"])
    known = _known(services, project)
    body = _body()
    headers = {name.lower(): value for name, value in request.headers}
    try:
        received = _take(services, project, known, headers, body)
    except (_Stale, Unauthorized):
        received = _take_anew(services, project, headers, body)
    return jsonify(_answer(services, project, received)), 202 if received.outcome == "run" else 200


def _take(services: Services, slug: str, known: _Known, headers: Headers, body: bytes) -> Received:
    incoming = deliveries.read(known.forge, known.secret, headers, body, time())
    return _store(services, slug, known, incoming)


def _take_anew(services: Services, slug: str, headers: Headers, body: bytes) -> Received:
    """The same with the secret as it is now; what still does not fit is refused and counted."""
    known = _look_up(services, slug)
    try:
        return _take(services, slug, known, headers, body)
    except Unauthorized:
        with services.database.write() as session:
            deliveries.count_rejected(session, known.project_id)
        raise


def _store(services: Services, slug: str, known: _Known, incoming: Incoming) -> Received:
    with services.database.write() as session:
        row = statements.lock(session, slug)
        if (row.id, row.forge, row.secret) != (known.project_id, known.forge, known.stored):
            raise _Stale("the project is being changed", remedy="send it again")
        return deliveries.receive(session, row.id, incoming)


def _known(services: Services, slug: str) -> _Known:
    kept: dict[str, _Known] = current_app.extensions.setdefault(_KEPT, {})
    return kept.get(slug) or _look_up(services, slug)


def _look_up(services: Services, slug: str) -> _Known:
    """The project as it is now, kept for the next delivery. Raises NotFound."""
    kept: dict[str, _Known] = current_app.extensions.setdefault(_KEPT, {})
    kept.pop(slug, None)
    with services.database.read() as session:
        project = projects.find(session, slug)
    known = _Known(project.id, project.forge, project.webhook_secret, projects.secret(services.vault, project))
    kept[slug] = known
    return known


def _body() -> bytes:
    """The raw bytes. What says that it is too large is refused unread, what turns out to be, once it is."""
    if (request.content_length or 0) > MAX_BODY:
        raise _too_large()
    request.max_content_length = MAX_BODY + 1  # the limit of the pages does not hold here
    body = request.stream.read(MAX_BODY + 1)
    if len(body) > MAX_BODY:
        raise _too_large()
    return body


def _too_large() -> TooLarge:
    return TooLarge(f"the body is over {MAX_BODY >> 20} MiB", remedy="send the push without its list of commits")


def _answer(services: Services, slug: str, received: Received) -> dict[str, object]:
    answer: dict[str, object] = {"delivery": received.delivery, "run": received.run}
    if received.run is not None:
        answer["url"] = f"{services.settings.url}/projects/{slug}/runs/{received.run}"
    if received.outcome != "run":
        answer |= {"outcome": received.outcome, "reason": received.reason}
    return answer
