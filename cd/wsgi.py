"""The web process: API, webhooks and pages in one application, served by gunicorn."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from flask import Flask
from gunicorn.app.base import BaseApplication

import ui
from cd import wiring
from cd.config import Settings
from cd.queue.worker import die_with_parent
from cd.store import migrations
from cd.web.app import create_app
from cd.wiring import Services


def application(services: Services) -> Flask:
    """Everything that answers HTTP."""
    app = create_app(services)
    app.register_blueprint(ui.create_blueprint())
    return app


def create() -> Flask:
    """For any WSGI server: `gunicorn "cd.wsgi:create()"`, settings from the environment."""
    services = wiring.build(Settings())
    migrations.check(services.database)
    return application(services)


class WebServer(BaseApplication):  # type: ignore[misc]  # gunicorn has no types
    """gunicorn with threads: an open page holds one for its events. `listen` is gunicorn's bind."""

    def __init__(self, settings: Settings, load: Callable[[], Flask], listen: str) -> None:
        self._settings, self._load, self._listen = settings, load, listen
        super().__init__()

    def load_config(self) -> None:
        """Called by gunicorn."""
        options: dict[str, Any] = {
            "bind": self._listen,
            "workers": 1,
            "worker_class": "gthread",
            "threads": self._settings.web_threads,
            "worker_connections": 2000,
            "keepalive": 15,
            # With open event streams the default grace would be 30 s for every stop.
            "graceful_timeout": 3,
            "control_socket_disable": True,
            "worker_tmp_dir": "/dev/shm" if os.path.isdir("/dev/shm") else None,  # noqa: S108 - gunicorn's heartbeat
            "loglevel": "warning",
            "limit_request_line": 8190,
            "post_fork": _post_fork,
        }
        for name, value in options.items():
            self.cfg.set(name, value)

    def load(self) -> Flask:
        """Called by gunicorn in its worker."""
        return self._load()


def _post_fork(server: Any, worker: Any) -> None:
    die_with_parent(server.pid)


def serve(settings: Settings, load: Callable[[], Flask], listen: str = "") -> None:
    """Serve until told to stop. `listen`: host:port, or fd://N for a socket that is bound already."""
    WebServer(settings, load, listen or settings.bind).run()
