"""For machines that watch: is it alive, is it ready, what are its numbers."""

from __future__ import annotations

from collections.abc import Iterator

import redis
from flask import Blueprint, Response, jsonify
from flask.typing import ResponseReturnValue
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import InstrumentedAttribute, Session

from cd.errors import ServiceError
from cd.identity.people import Role
from cd.pipeline import reuse
from cd.pipeline.records import Run
from cd.promote.records import Deployment, Promotion
from cd.store.base import now
from cd.store.records import Task
from cd.web.context import access, services

blueprint = Blueprint("health", __name__)


@blueprint.get("/healthz")
@access(None)
def alive() -> ResponseReturnValue:
    """200 as long as the process answers."""
    return jsonify({"status": "ok"})


@blueprint.get("/readyz")
@access(None)
def ready() -> ResponseReturnValue:
    """200 when the database answers; Redis is told, but its absence only slows things down."""
    told = {"database": "ok", "redis": "ok"}
    try:
        with services().database.read() as session:
            session.execute(select(1))
    except ServiceError as error:
        told["database"] = error.message
    try:
        services().redis.ping()
    except redis.RedisError:
        told["redis"] = "does not answer"
    return jsonify(told), 200 if told["database"] == "ok" else 503


@blueprint.get("/metrics")
@access(Role.viewer)
def metrics() -> ResponseReturnValue:
    """Prometheus' text format; a scraper sends a viewer's token."""
    registry = CollectorRegistry(auto_describe=False)
    with services().database.read() as session:
        registry.register(_Numbers(session))
        text = generate_latest(registry)
    return Response(text, content_type=CONTENT_TYPE_LATEST)


class _Numbers(Collector):
    """What is open, by state, read from the database: it is the same for all processes."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def collect(self) -> Iterator[Metric]:
        yield self._by_state(
            "towpath_runs_open", "Runs that have not ended.", Run.state, Run.state, ("queued", "running")
        )
        waiting = ("waiting", "awaiting_approval", "queued", "deploying", "verifying", "rolling_back")
        yield self._by_state("towpath_promotions_open", "Open promotions.", Promotion.state, Promotion.state, waiting)
        yield self._by_state("towpath_tasks_open", "Tasks.", Task.kind, Task.state, ("ready", "claimed"))
        yield self._by_state(
            "towpath_deployments", "Deployments.", Deployment.state, Deployment.state, ("deploying", "live")
        )
        audits = GaugeMetricFamily(
            "towpath_reuse_audits",
            "Reused stages that were run again, by result: failed is a false hit.",
            labels=["state"],
        )
        counted = {"passed": 0, "failed": 0} | reuse.audits(self._session)
        for state, number in counted.items():
            audits.add_metric([state], number)
        yield audits
        oldest = self._session.scalar(
            select(func.min(Task.created_at)).where(Task.state == "ready", Task.not_before <= now())
        )
        age = (now() - oldest).total_seconds() if oldest is not None else 0.0
        yield GaugeMetricFamily("towpath_task_oldest_seconds", "Age of the oldest task that nobody took.", value=age)

    def _by_state(
        self,
        name: str,
        text: str,
        label: InstrumentedAttribute[str],
        state: InstrumentedAttribute[str],
        states: tuple[str, ...],
    ) -> Metric:
        family = GaugeMetricFamily(name, text, labels=[label.key])
        count: ColumnElement[int] = func.count()
        for value, number in self._session.execute(select(label, count).where(state.in_(states)).group_by(label)):
            family.add_metric([value], number)
        return family
