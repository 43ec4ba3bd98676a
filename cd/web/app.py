"""The web application without its pages: API, webhooks, health, metrics, and what holds for every request."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flask import Flask, Response, request
from flask_openapi3.models.info import Info
from flask_openapi3.openapi import OpenAPI
from werkzeug.middleware.proxy_fix import ProxyFix

from cd.web import api, context, health, live, problems, schema
from cd.web.context import Access
from cd.webhooks import views as webhooks

if TYPE_CHECKING:
    from cd.wiring import Services

#: Largest body in bytes; the webhooks' view has a limit of its own.
MAX_BODY = 1 << 20

CSP = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "font-src 'self'",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
HEADERS = {
    "Content-Security-Policy": CSP,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}


def create_app(services: Services) -> Flask:
    """An application for these services. The caller adds the blueprint of the pages."""
    app = OpenAPI(
        "cd.web",
        info=Info(title="Towpath", version="1", description="Continuous delivery on containers."),
        security_schemes={"bearer": {"type": "http", "scheme": "bearer"}},
        validation_error_model=problems.Problem,
        validation_error_callback=problems.invalid,
        doc_ui=False,
        static_folder=None,
    )
    _configure(app, services)
    app.json.sort_keys = False  # type: ignore[attr-defined]  # of the default provider
    app.extensions["towpath"] = services
    app.extensions[live.HUB] = live.Hub(services.database, services.redis)
    context.csrf.init_app(app)
    problems.register(app)
    app.before_request(context.guard)
    app.after_request(_harden)
    app.register_blueprint(health.blueprint)
    app.register_blueprint(schema.blueprint)
    app.register_blueprint(webhooks.blueprint)
    for endpoint in app.view_functions:
        if endpoint.startswith(f"{webhooks.blueprint.name}."):
            context.allow(app, endpoint, Access(None, csrf=False))  # they are signed
    api.register(app)
    return app


def _configure(app: Flask, services: Services) -> None:
    settings = services.settings
    app.config.update(
        SECRET_KEY=services.vault.signing_key,
        MAX_CONTENT_LENGTH=MAX_BODY,
        MAX_FORM_MEMORY_SIZE=MAX_BODY,
        SESSION_COOKIE_NAME="towpath_form",
        SESSION_COOKIE_HTTPONLY=True,
        SESSION_COOKIE_SAMESITE="Lax",
        SESSION_COOKIE_SECURE=settings.cookies_are_secure,
        # Checked by our own guard; a form is good as long as its browser session.
        WTF_CSRF_CHECK_DEFAULT=False,
        WTF_CSRF_TIME_LIMIT=None,
    )
    if settings.trusted_proxies:
        count = settings.trusted_proxies
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=count, x_proto=count, x_host=count)  # type: ignore[method-assign]


def _harden(response: Response) -> Response:
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    if request.is_secure:
        response.headers.setdefault("Strict-Transport-Security", "max-age=31536000")
    # What one person sees must not be kept for the next one.
    response.headers.setdefault("Cache-Control", "no-store")
    return response
