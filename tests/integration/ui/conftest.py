"""The whole application with its pages, filled with a few weeks of work, for a test client and for a browser."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import redis
from flask import Flask
from playwright.sync_api import Browser, sync_playwright
from ui_scene import PASSWORD, Scene, fill
from ui_visitor import Visitor
from werkzeug.serving import make_server

from cd import wiring
from cd.config import Settings
from cd.store import migrations
from cd.web import live
from cd.wiring import Services
from cd.wsgi import application

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@pytest.fixture(scope="session")
def filled(tmp_path_factory: pytest.TempPathFactory, redis_server: str) -> tuple[Path, Scene]:
    """A home with a scene in it, made once; each test gets a copy."""
    home = tmp_path_factory.mktemp("filled")
    made = _services(home, redis_server)
    migrations.upgrade(made.database)
    scene = fill(made)
    made.database.close()
    made.redis.close()
    return home, scene


def _services(home: Path, redis_url: str) -> Services:
    return wiring.build(Settings(home=home, redis_url=redis_url, public_url="http://towpath.test"))


@pytest.fixture
def services(
    tmp_path: Path, filled: tuple[Path, Scene], redis_server: str, redis_client: redis.Redis
) -> Iterator[Services]:
    shutil.copytree(filled[0], tmp_path / "home")
    made = _services(tmp_path / "home", redis_server)
    yield made
    made.database.close()
    made.redis.close()


@pytest.fixture
def scene(services: Services, filled: tuple[Path, Scene]) -> Scene:
    return replace(filled[1], services=services)


@pytest.fixture
def app(services: Services) -> Iterator[Flask]:
    made = application(services)
    yield made
    made.extensions[live.HUB].close()


@pytest.fixture
def visit(app: Flask, scene: Scene) -> Callable[[str], Visitor]:
    """Signs somebody in by name."""

    def sign_in(name: str) -> Visitor:
        visitor = Visitor(app.test_client())
        answer = visitor.send("/login", "/login", username=name, password=PASSWORD)
        assert answer.status_code == 303
        return visitor

    return sign_in


@pytest.fixture
def address(app: Flask) -> Iterator[str]:
    """The application on a port of its own."""
    server = make_server("127.0.0.1", 0, app, threaded=True)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    if not CHROMIUM.exists():
        pytest.skip(f"{CHROMIUM} is not installed")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield browser
        browser.close()
