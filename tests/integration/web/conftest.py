"""The whole application on a database of its own and a real Redis, with a client for each role."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis
from flask import Blueprint, Flask, redirect, render_template_string, request
from flask.testing import FlaskClient
from flask.typing import ResponseReturnValue

from cd import wiring
from cd.config import Settings
from cd.identity import tokens, users
from cd.identity.people import Role
from cd.pipeline import projects
from cd.pipeline.records import Project
from cd.store.database import Database
from cd.web import context, live
from cd.web.app import create_app
from cd.web.context import access
from cd.wiring import Services

PASSWORD = "correct horse battery"
Clients = dict[str, FlaskClient]


@pytest.fixture
def database_url(sqlite_database: Database) -> str:
    return sqlite_database.url


@pytest.fixture
def services(tmp_path: Path, database_url: str, redis_server: str, redis_client: redis.Redis) -> Iterator[Services]:
    settings = Settings(
        home=tmp_path, database_url=database_url, redis_url=redis_server, public_url="http://towpath.test"
    )
    made = wiring.build(settings)
    yield made
    made.database.close()
    made.redis.close()


def small_pages() -> Blueprint:
    """Just enough of pages to sign in and out with a browser: what is tested here must not hang on their looks."""
    pages = Blueprint("ui", __name__)
    form = '<form method="post"><input name="csrf_token" value="{{ csrf_token() }}">{{ request.args.next }}</form>'

    @pages.route("/login", methods=["GET", "POST"])
    @access(None)
    def login() -> ResponseReturnValue:
        if request.method == "GET":
            return render_template_string(form)
        context.sign_in(request.form["username"], request.form["password"])
        return redirect(context.local(request.form.get("next")), 303)

    @pages.post("/logout")
    @access(Role.viewer)
    def logout() -> ResponseReturnValue:
        context.sign_out()
        return redirect("/login", 303)

    @pages.get("/")
    @pages.get("/account")
    @pages.get("/projects/<slug>")
    @access(Role.viewer)
    def page(slug: str = "") -> ResponseReturnValue:
        return render_template_string(form)

    return pages


def with_pages(services: Services) -> Flask:
    app = create_app(services)
    app.register_blueprint(small_pages())
    return app


@pytest.fixture
def app(services: Services) -> Iterator[Flask]:
    made = with_pages(services)
    yield made
    made.extensions[live.HUB].close()


@pytest.fixture
def anonymous(app: Flask) -> FlaskClient:
    return app.test_client()


@pytest.fixture
def clients(app: Flask, services: Services) -> Clients:
    """A client by role, each with a token of somebody of that role."""
    found: Clients = {}
    for role in Role:
        with services.database.write() as session:
            person = users.person_of(users.create(session, "towpath", f"the-{role}", PASSWORD, role))
            secret = tokens.create(session, person, "test")
        found[role] = app.test_client()
        found[role].environ_base["HTTP_AUTHORIZATION"] = f"Bearer {secret}"
    return found


@pytest.fixture
def project(services: Services) -> Project:
    with services.database.write() as session:
        made, _ = projects.create(
            session,
            services.vault,
            slug="demo",
            forge="github",
            clone_url="https://git.example.org/demo.git",
            actor="towpath",
        )
    return made


@pytest.fixture
def app_of() -> Callable[[Services], Flask]:
    """Makes the application of other services."""
    return with_pages


@pytest.fixture
def settings_of(services: Services) -> Callable[..., Services]:
    """The same services under other settings."""
    from dataclasses import replace

    def change(**values: object) -> Services:
        return replace(services, settings=services.settings.model_copy(update=values))

    return change
