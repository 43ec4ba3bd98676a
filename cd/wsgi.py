"""The web process: API, webhooks and pages in one application, served by waitress."""

from __future__ import annotations

import signal
import socket

from flask import Flask
from waitress.server import create_server

import ui
from cd import wiring
from cd.config import Settings
from cd.web.app import create_app
from cd.webhooks.views import MAX_BODY
from cd.wiring import Services

#: Seconds after which a connection that says nothing is closed.
IDLE = 30


def application(services: Services) -> Flask:
    """Everything that answers HTTP."""
    app = create_app(services)
    app.register_blueprint(ui.create_blueprint())
    return app


def create() -> Flask:
    """For any WSGI server: the application `cd.wsgi:create()`, with settings from the environment."""
    from cd.store import migrations  # Alembic weighs several megabytes, and `towpath up` has no use for it here

    services = wiring.build(Settings())
    migrations.check(services.database)
    return application(services)


def serve(services: Services, listener: socket.socket) -> None:
    """Serve on a bound socket until SIGTERM. Each open event stream holds one of the threads."""
    server = create_server(
        application(services),
        sockets=[listener],
        threads=services.settings.web_threads,
        # A little more than a webhook may be, so that its view can refuse it with a reason.
        max_request_body_size=MAX_BODY + (1 << 20),
        connection_limit=2000,
        channel_timeout=IDLE,
        backlog=2048,
        ident=None,
        expose_tracebacks=False,
        clear_untrusted_proxy_headers=False,  # `trusted_proxies` decides; see cd.web.app
    )
    signal.signal(signal.SIGTERM, lambda *_: _leave())
    server.run()


def _leave() -> None:
    raise SystemExit(0)
