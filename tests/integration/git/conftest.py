"""A git server on loopback, repositories to clone, and pushes as people make them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest
from gitforge import Smart, Work, project

from cd.pipeline.records import Project
from cd.pipeline.repositories import Repositories


@pytest.fixture
def work(tmp_path: Path) -> Work:
    path = tmp_path / "work"
    path.mkdir()
    made = Work(path)
    made.git("init", "--quiet", "--initial-branch=main")
    return made


@pytest.fixture
def upstream(tmp_path: Path, work: Work) -> Path:
    """What a forge holds; `work` pushes to it."""
    path = tmp_path / "forge" / "shop.git"
    path.mkdir(parents=True)
    work.git("init", "--quiet", "--bare", "--initial-branch=main", str(path))
    work.git("remote", "add", "origin", str(path))
    return path


@pytest.fixture
def forge(upstream: Path) -> Iterator[str]:
    """Base URL of a forge on loopback that serves `upstream` as /shop.git."""
    handler = type("Handler", (Smart,), {"root": str(upstream.parent)})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://localhost:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    path = tmp_path / "home"
    path.mkdir()
    return path


@pytest.fixture
def repositories(home: Path) -> Repositories:
    return Repositories(home, internal_hosts={"localhost"}, hooks_url="http://127.0.0.1:9/hooks")


@pytest.fixture
def connected(forge: str) -> Project:
    return project(f"{forge}/shop.git")


@pytest.fixture
def hosted() -> Project:
    return project(None)
