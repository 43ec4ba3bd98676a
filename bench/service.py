"""A whole service of its own for a measurement: `towpath up` on a home and a port of its own."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from sqlalchemy import select

from cd import wiring
from cd.cli import redis_server
from cd.config import Settings
from cd.pipeline import projects
from cd.pipeline.records import Project, Run
from cd.promote import environments, policy
from cd.store import migrations
from cd.wiring import Services

T = TypeVar("T")
TOWPATH = [str(Path(sys.executable).with_name("towpath"))]


def free_port() -> int:
    """A port that nothing listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def until(look: Callable[[], T | None], seconds: float, what: str, pause: float = 0.02) -> T:
    """What `look` returns once that is true. Raises TimeoutError with `what` when it is not in time."""
    end = time.monotonic() + seconds
    while True:
        seen = look()
        if seen:
            return seen
        if time.monotonic() > end:
            raise TimeoutError(f"{what}: not within {seconds:g} s")
        time.sleep(pause)


@dataclass
class Service:
    """A running service and the parts to look into it."""

    home: Path
    port: int
    process: subprocess.Popen[bytes]
    services: Services
    log: Path

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    def forge_project(self, slug: str, forge: str, clone_url: str) -> str:
        """Make a project of a forge: its webhook secret."""
        with self.services.database.write() as session:
            _, secret = projects.create(
                session, self.services.vault, slug=slug, forge=forge, clone_url=clone_url, actor="bench"
            )
        return secret

    def project(self, slug: str, environments_yaml: bytes | None = None) -> tuple[int, str, Path]:
        """Make a hosted project: its id, its webhook secret, its bare repository."""
        with self.services.database.write() as session:
            project, secret = projects.create(
                session, self.services.vault, slug=slug, forge="generic", clone_url=None, actor="bench"
            )
            if environments_yaml is not None:
                environments.apply(session, project, policy.parse(environments_yaml), "bench")
            project_id = project.id
        with self.services.database.read() as session:
            repository = self.services.repositories.create_hosted(session.get_one(Project, project_id), secret)
        return project_id, secret, repository

    def run_of(self, sha: str) -> Run | None:
        """The newest run of a commit."""
        with self.services.database.read() as session:
            return session.scalars(select(Run).where(Run.sha == sha).order_by(Run.id.desc()).limit(1)).one_or_none()


@contextmanager
def service(command: tuple[str, ...] = ("up", "--workers", "2"), **environment: str) -> Iterator[Service]:
    """Start a service, hand it out, stop it and remove what it kept. `web` alone gets a Redis beside it."""
    home = Path(tempfile.mkdtemp(prefix="tpb-"))
    port = free_port()
    beside: list[subprocess.Popen[bytes]] = []
    running: Service | None = None
    env = {**os.environ, "TOWPATH_LOG_LEVEL": "warning", **environment}
    try:
        services = wiring.build(Settings(home=home, bind=f"127.0.0.1:{port}"))
        if command[0] != "up":
            migrations.upgrade(services.database)
            beside.append(_redis(home))
        log = home / "service.log"
        running = Service(home, port, start(home, port, log, command, env), services, log)
        yield running
    finally:
        # Whoever started the service anew meanwhile has put the new process in its place.
        if running is not None:
            stop(running.process)
            running.services.database.close()
        for process in beside:
            stop(process)
        shutil.rmtree(home, ignore_errors=True)


def _redis(home: Path) -> subprocess.Popen[bytes]:
    socket_path = home / "redis.sock"
    server = subprocess.Popen(
        [redis_server.program(), "--port", "0", "--unixsocket", str(socket_path), "--save", ""],
        stdout=subprocess.DEVNULL,
    )
    until(socket_path.exists, 10, "redis-server's start")
    return server


def start(home: Path, port: int, log: Path, command: tuple[str, ...], env: dict[str, str]) -> subprocess.Popen[bytes]:
    """Start the process and wait until it answers."""
    with log.open("ab") as out:
        process = subprocess.Popen(
            [*TOWPATH, *command, "--home", str(home), "--bind", f"127.0.0.1:{port}"], stdout=out, stderr=out, env=env
        )
    until(lambda: answers(port) or process.poll() is not None, 40, "the service's start")
    if process.poll() is not None:
        raise RuntimeError(f"the service did not start: {log.read_text()[-2000:]}")
    return process


def answers(port: int) -> bool:
    """Whether something answers HTTP there."""
    try:
        with socket.create_connection(("127.0.0.1", port), 1) as connection:
            connection.settimeout(5)
            connection.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
            return b" 200 " in connection.recv(100)
    except OSError:
        return False


def stop(process: subprocess.Popen[bytes]) -> None:
    """End it, if need be by force."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def git(*arguments: str, cwd: Path) -> str:
    """Run git and return what it printed."""
    env = {**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_TERMINAL_PROMPT": "0"}
    identity = ["-c", "user.name=Bench", "-c", "user.email=bench@example.invalid", "-c", "init.defaultBranch=main"]
    done = subprocess.run(["git", *identity, *arguments], cwd=cwd, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"git {' '.join(arguments)}: {done.stderr}")
    return done.stdout.strip()


def change(work: Path, file: str, line: str) -> str:
    """Replace a line that begins with the same word by `line`, commit, and return the commit."""
    path = work / file
    key = line.split("=", maxsplit=1)[0]
    text, count = re.subn(rf"^{re.escape(key)}=.*$", line, path.read_text(), count=1, flags=re.M)
    if count != 1:
        raise RuntimeError(f"{file} has no line that begins with {key}=")
    path.write_text(text)
    git("commit", "-qam", f"change {secrets.token_hex(3)}", cwd=work)
    return git("rev-parse", "HEAD", cwd=work)
