"""Real servers for tests: Redis, PostgreSQL and a Docker engine, each worker process of pytest with its own."""

from __future__ import annotations

import io
import itertools
import json
import os
import pwd
import shutil
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import docker
import psycopg
import pytest
import redis

from cd.store import migrations
from cd.store.database import Database

#: The newest one that Debian's packages have installed.
POSTGRES = max(Path("/usr/lib/postgresql").glob("*/bin"), default=Path("/usr/lib/postgresql"))
BUSYBOX = Path("/bin/busybox")
#: Longest start of a server, in seconds.
PATIENCE = 60.0


@contextmanager
def _short_folder(prefix: str) -> Iterator[Path]:
    """A folder whose path leaves room for a Unix socket (107 bytes), which pytest's own folders may not."""
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir="/tmp"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _until(process: subprocess.Popen[bytes], answers: Callable[[], bool], log: Path) -> None:
    """Wait until the server answers; fail with its log when it ends first or takes too long."""
    deadline = time.monotonic() + PATIENCE
    while not answers():
        if process.poll() is not None or time.monotonic() > deadline:
            pytest.fail(f"{process.args!r} did not come up:\n{log.read_text(errors='replace')}")
        time.sleep(0.01)


# Redis


@pytest.fixture(scope="session")
def redis_server() -> Iterator[str]:
    """URL of a redis-server of our own, on a Unix socket, without a file on disk."""
    binary = shutil.which("redis-server")
    if binary is None:
        pytest.skip("redis-server is not installed")
    with _short_folder("towpath-redis-") as folder:
        sock, log = folder / "redis.sock", folder / "log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                [binary, "--port", "0", "--unixsocket", str(sock), "--save", "", "--dir", str(folder)],
                stdout=out,
                stderr=subprocess.STDOUT,
            )
        try:
            _until(process, lambda: _redis_answers(sock), log)
            yield f"unix://{sock}"
        finally:
            process.kill()
            process.wait()


def _redis_answers(sock: Path) -> bool:
    with redis.Redis(unix_socket_path=str(sock)) as client:
        try:
            return bool(client.ping())
        except redis.ConnectionError:
            return False


@pytest.fixture
def redis_client(redis_server: str) -> Iterator[redis.Redis]:
    """A connection to `redis_server`, which is empty at the test's start."""
    with redis.Redis.from_url(redis_server) as client:
        client.flushall()
        yield client


# PostgreSQL


@dataclass
class Postgres:
    """A running server: makes databases, empty or as copies of a template."""

    folder: Path
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    _template: str | None = None

    def url(self, name: str) -> str:
        """SQLAlchemy's URL of a database."""
        return f"postgresql+psycopg://postgres@/{name}?host={self.folder}"

    def _run(self, statement: str) -> None:
        with psycopg.connect(f"host={self.folder} user=postgres dbname=postgres", autocommit=True) as connection:
            connection.execute(statement.encode())

    def answers(self) -> bool:
        """Whether it takes connections."""
        try:
            self._run("SELECT 1")
        except psycopg.OperationalError:
            return False
        return True

    def create(self, template: str = "template1") -> str:
        """Name of a fresh database."""
        name = f"t{next(self._numbers)}"
        self._run(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY FILE_COPY")
        return name

    def drop(self, name: str) -> None:
        """Remove a database, whoever is still connected."""
        self._run(f"DROP DATABASE {name} WITH (FORCE)")

    def with_tables(self) -> str:
        """Name of a fresh database with all tables, copied from one that was migrated once."""
        if self._template is None:
            name = self.create()
            _migrate(self.url(name))
            self._template = name
        return self.create(self._template)


def _migrate(url: str) -> None:
    database = Database(url)
    migrations.upgrade(database)
    database.close()


def _as_postgres() -> dict[str, str | int]:
    """PostgreSQL refuses to run as root: arguments of subprocess that make it run as its own user."""
    if os.geteuid() != 0:
        return {}
    try:
        user = pwd.getpwnam("postgres")
    except KeyError:
        pytest.skip("there is no user `postgres` to run PostgreSQL as")
    return {"user": user.pw_uid, "group": user.pw_gid}


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL server of our own on a Unix socket, in a folder that goes away with it."""
    if not (POSTGRES / "postgres").exists():
        pytest.skip(f"PostgreSQL is not installed: {POSTGRES}/postgres is missing")
    owner = _as_postgres()
    with _short_folder("towpath-pg-") as folder:
        if owner:
            os.chown(folder, int(owner["user"]), int(owner["group"]))
        data, log = folder / "data", folder / "log"
        with log.open("wb") as out:
            subprocess.run(
                [POSTGRES / "initdb", "-D", data, "-U", "postgres", "-A", "trust", "-N", "--locale=C", "-E", "UTF8"],
                check=True,
                stdout=out,
                cwd=folder,
                **owner,
            )
            settings = {
                "listen_addresses": "",
                "unix_socket_directories": folder,
                "fsync": "off",
                "synchronous_commit": "off",
                "full_page_writes": "off",
                "shared_buffers": "32MB",
                "max_connections": 200,
                "autovacuum": "off",
            }
            options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
            process = subprocess.Popen(
                [POSTGRES / "postgres", "-D", data, *options],
                stdout=out,
                stderr=subprocess.STDOUT,
                cwd=folder,
                **owner,
            )
        server = Postgres(folder)
        try:
            _until(process, server.answers, log)
            yield server
        finally:
            process.terminate()
            process.wait(PATIENCE)


@pytest.fixture
def postgres_url(postgres: Postgres) -> Iterator[str]:
    """URL of an empty database on PostgreSQL, for this test alone."""
    name = postgres.create()
    yield postgres.url(name)
    postgres.drop(name)


# The database, on both


@pytest.fixture(scope="session")
def _sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sqlite") / "template.db"
    _migrate(f"sqlite:///{path}")
    return path


@pytest.fixture
def sqlite_database(_sqlite_template: Path, tmp_path: Path) -> Iterator[Database]:
    """A database with all tables and nothing in them, on SQLite."""
    path = tmp_path / "towpath.db"
    shutil.copy(_sqlite_template, path)
    database = Database(f"sqlite:///{path}")
    yield database
    database.close()


@pytest.fixture
def postgres_database(postgres: Postgres) -> Iterator[Database]:
    """A database with all tables and nothing in them, on PostgreSQL."""
    name = postgres.with_tables()
    database = Database(postgres.url(name))
    yield database
    database.close()
    postgres.drop(name)


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def database(request: pytest.FixtureRequest) -> Database:
    """A database with all tables and nothing in them, once on SQLite and once on PostgreSQL."""
    made: Database = request.getfixturevalue(f"{request.param}_database")
    return made


# Docker


@pytest.fixture(scope="session")
def docker_client() -> Iterator[docker.DockerClient]:
    """A connection to the engine that is there."""
    try:
        client = docker.from_env(timeout=120)
    except docker.errors.DockerException as error:
        pytest.skip(f"no Docker engine answers: {error}")
    yield client
    client.close()


@pytest.fixture(scope="session")
def busybox_image(docker_client: docker.DockerClient) -> Iterator[str]:
    """Id of an image with nothing but a static busybox, its applets in /bin, and a few folders."""
    if not BUSYBOX.exists():
        pytest.skip(f"{BUSYBOX} is missing: install busybox-static")
    image = make_image(docker_client, _busybox_files())
    yield image
    docker_client.api.remove_image(image, force=True)


@pytest.fixture(scope="session")
def python_image(docker_client: docker.DockerClient) -> str:
    """Id of the image python:3.11-slim, which script/bootstrap pulls or makes."""
    try:
        return str(docker_client.images.get("python:3.11-slim").id)
    except docker.errors.ImageNotFound:
        pytest.skip("the image python:3.11-slim is not on the engine: script/bootstrap makes it")


def make_image(client: docker.DockerClient, files: bytes, changes: list[str] | None = None) -> str:
    """Id of a new image from scratch with the files of a tar archive; `changes` as Dockerfile lines."""
    with tempfile.NamedTemporaryFile() as archive:
        archive.write(files)
        archive.flush()
        answer = client.api.import_image_from_file(archive.name, changes=changes)
    return str(json.loads(answer.splitlines()[-1])["status"])


def _busybox_files() -> bytes:
    applets = subprocess.run([BUSYBOX, "--list"], check=True, capture_output=True, text=True).stdout.split()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name in ("bin", "etc", "tmp", "work"):
            folder = tarfile.TarInfo(name)
            folder.type, folder.mode = tarfile.DIRTYPE, 0o1777 if name in ("tmp", "work") else 0o755
            archive.addfile(folder)
        archive.add(BUSYBOX, "bin/busybox")
        for applet in applets:
            if applet != "busybox":
                link = tarfile.TarInfo(f"bin/{applet}")
                link.type, link.linkname = tarfile.SYMTYPE, "busybox"
                archive.addfile(link)
    return buffer.getvalue()
