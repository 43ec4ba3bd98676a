"""Received webhooks, and the stream of events."""

from __future__ import annotations

from typing import Any

from flask import Response
from sqlalchemy import Select, select

from cd.errors import NotFound
from cd.identity.people import Role
from cd.pipeline import queries
from cd.pipeline.records import Run
from cd.store.records import Event
from cd.web import live
from cd.web.api import models
from cd.web.api.common import part, shown
from cd.web.context import access, services, who
from cd.webhooks import deliveries
from cd.webhooks.records import Delivery

api = part("deliveries")


@api.get("/projects/<slug>/deliveries", responses={200: models.Deliveries})
@access(Role.viewer)
def list_deliveries(path: models.ProjectPath, query: models.Page) -> Response:
    """Webhooks that a project received, newest first."""
    with services().database.read() as session:
        project = queries.project(session, path.slug)
        wanted = _with_run().where(Delivery.project_id == project.id).order_by(Delivery.id.desc()).limit(query.limit)
        rows = session.execute(wanted if query.before is None else wanted.where(Delivery.id < query.before)).all()
    items = [models.Delivery.model_validate(row).model_copy(update={"run": number}) for row, number in rows]
    return shown(models.Deliveries(items=items, next=items[-1].id if len(items) == query.limit else None))


def _with_run() -> Select[Any, Any]:
    return select(Delivery, Run.number).outerjoin(Run, Run.id == Delivery.run_id)


@api.get("/deliveries/<int:delivery>", responses={200: models.DeliveryDetail})
@access(Role.viewer)
def show_delivery(path: models.DeliveryPath) -> Response:
    """One webhook with its headers and body as they came."""
    with services().database.read() as session:
        found = session.execute(_with_run().where(Delivery.id == path.delivery)).one_or_none()
    if found is None:
        raise NotFound("there is no such delivery")
    row, number = found
    told = models.Delivery.model_validate(row).model_dump() | {"run": number}
    return shown(models.DeliveryDetail(**told, headers=row.headers, body=row.body.decode(errors="replace")))


@api.post("/deliveries/<int:delivery>/replay", responses={200: models.Delivery})
@access(Role.admin)
def replay(path: models.DeliveryPath) -> Response:
    """Do again what a delivery calls for."""
    with services().database.write() as session:
        row = session.get(Delivery, path.delivery)
        if row is None:
            raise NotFound("there is no such delivery")
        received = deliveries.replay(session, row, who().username)
    told = models.Delivery.model_validate(row).model_dump() | {"run": received.run}
    return shown(models.Delivery(**told))


@api.get("/events", responses={200: {"content": {"text/event-stream": {}}}})
@access(Role.viewer)
def stream(query: models.EventsQuery) -> Response:
    """State changes as server-sent events; ends after about a minute, resume with Last-Event-ID."""
    project_id = None
    if query.project is not None:
        with services().database.read() as session:
            project_id = queries.project(session, query.project).id

    def wanted(event: Event) -> bool:
        return project_id is None or event.project_id == project_id

    return live.response(wanted)
