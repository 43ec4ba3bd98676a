"""The Flask application without pages: API, webhooks, health; who adds pages registers a blueprint."""

from __future__ import annotations

from flask import Flask, Response
from flask_openapi3 import Info, OpenAPI
from werkzeug.middleware.proxy_fix import ProxyFix

from cd.web import api, health, problems
from cd.web.context import access, csrf, guard
from cd.web.live import Hub
from cd.webhooks import views as hooks
from cd.wiring import Services

#: Largest body of a form or an API call, in bytes; webhooks have a limit of their own.
MAX_BODY = 1 << 20
CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "font-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
#: How the API is described; read by `/api/v1/openapi.json`.
INFO = Info(title="Towpath", version="1", description="One image, tested once, promoted by digest.")
SECURITY = {"bearer": {"type": "http", "scheme": "bearer"}}


def create_app(services: Services) -> Flask:
    """Everything that answers HTTP but the pages."""
    app = OpenAPI(
        "towpath",
        info=INFO,
        static_folder=None,
        security_schemes=SECURITY,
        doc_prefix="/api/v1",
        doc_url="/openapi.json",
        validation_error_callback=problems.invalid,
    )
    app.extensions["towpath"] = services
    app.extensions["towpath.live"] = Hub(services)
    app.config.update(
        SECRET_KEY=services.vault.signing_key,
        MAX_CONTENT_LENGTH=MAX_BODY,
        WTF_CSRF_CHECK_DEFAULT=False,  # asked for in `guard`, which knows what comes without a cookie
        WTF_CSRF_TIME_LIMIT=None,
        WTF_CSRF_SSL_STRICT=False,  # a proxy may end TLS; the token itself is what is checked
        SESSION_COOKIE_NAME="towpath_form",
        SESSION_COOKIE_SAMESITE="Lax",
        SESSION_COOKIE_SECURE=services.settings.cookies_are_secure,
    )
    csrf.init_app(app)
    problems.register(app)
    app.before_request(guard)
    app.register_blueprint(health.blueprint)
    app.register_blueprint(hooks.blueprint)
    for part in api.PARTS:
        app.register_api(part)
    for endpoint, view in app.view_functions.items():
        if endpoint.startswith("openapi"):
            access(None)(view)
    app.after_request(_headers)
    proxies = services.settings.trusted_proxies
    if proxies:
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=proxies, x_proto=proxies, x_host=proxies)  # type: ignore[method-assign]
    return app


def _headers(response: Response) -> Response:
    response.headers.setdefault("Content-Security-Policy", CSP)
    response.headers.setdefault("X-Content-Type-Options", "nosniff")
    response.headers.setdefault("Referrer-Policy", "same-origin")
    response.headers.setdefault("Cross-Origin-Opener-Policy", "same-origin")
    response.headers.setdefault("Cache-Control", "no-store")
    return response
