"""An installation of Towpath for the demo: started, asked, and taken down with all that it made on the engine."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from cd.cli.client import Client
from cd.cli.credentials import Credentials
from cd.errors import ServiceError

TOWPATH = Path(sys.executable).with_name("towpath")
#: Seconds between two looks at something that is waited for.
LOOK = 0.1
T = TypeVar("T")


class Failed(Exception):
    """The demo can't go on; the text is for people."""


class Stopped(BaseException):
    """Ctrl-C, or a polite kill."""


@contextmanager
def stoppable() -> Iterator[None]:
    """SIGINT, SIGTERM and SIGHUP become Stopped inside; they are ignored afterwards, while things are taken down."""

    def stop(*_: object) -> None:
        raise Stopped

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    for number in numbers:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number in numbers:
            signal.signal(number, signal.SIG_IGN)


def until(seconds: float, what: str, look: Callable[[], T | None]) -> T:
    """The first thing that `look` finds. Raises Failed after so many seconds."""
    deadline = time.monotonic() + seconds
    while (found := look()) is None:
        if time.monotonic() > deadline:
            raise Failed(f"{what}: not after {seconds:g} seconds")
        time.sleep(LOOK)
    return found


def check_ports(host: str, ports: list[int]) -> None:
    """Raises Failed for the first port that is taken."""
    for port in ports:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError as error:
                raise Failed(
                    f"{host}:{port} can't be listened on ({error.strerror}); choose other ports, such as "
                    "./script/demo --bind 127.0.0.1:9000"
                ) from error


class Installation:
    """One `towpath up` below `folder`, which holds nothing else."""

    def __init__(self, folder: Path, bind: str) -> None:
        self.home, self.log = folder / "home", folder / "up.log"
        self.bind, self.url = bind, f"http://{bind}"
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self._token = ""

    @property
    def started(self) -> bool:
        """Whether there is anything to take down."""
        return self._process is not None

    def runs(self) -> bool:
        """Whether somebody else's `towpath up` works in this folder: it holds the lock for as long as it lives."""
        try:
            with (self.home / "up.lock").open() as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True
        return False

    def start(self) -> str:
        """Start it and wait until it answers; returns the admin's password."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        # setpriv: it must not outlive us, whatever ends us.
        command = ["setpriv", "--pdeathsig", "TERM", TOWPATH, "up", "--home", self.home, "--bind", self.bind]
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        password = until(60, "Towpath's start", self._password)
        until(30, "Towpath's first answer", lambda: self._answers(password))
        return password

    def check(self) -> None:
        """Raises Failed when it has ended."""
        if self._process is not None and self._process.poll() is not None:
            raise Failed(f"towpath up ended with status {self._process.returncode}")

    def _password(self) -> str | None:
        self.check()
        found = re.search(r"^admin password: (\S+)$", self.log.read_text(), re.MULTILINE)
        return found[1] if found else None

    def _answers(self, password: str) -> bool | None:
        self.check()
        try:
            made = Client(Credentials(self.url, "")).post("/tokens", name="demo", username="admin", password=password)
        except ServiceError:
            return None
        self._token = made["token"]
        return True

    @property
    def client(self) -> Client:
        """A client of its API, as admin."""
        return Client(Credentials(self.url, self._token))

    def towpath(self, *arguments: object, quiet: bool = False) -> None:
        """Run the command line, shown as a person would type it. Raises Failed when it fails."""
        words = [str(one) for one in arguments]
        print(f"$ towpath {' '.join(words)}", flush=True)
        env = {**os.environ, "TOWPATH_URL": self.url, "TOWPATH_TOKEN": self._token}
        done = subprocess.run(
            [TOWPATH, *words], env=env, check=False, stdout=subprocess.DEVNULL if quiet else None, stderr=None
        )
        if done.returncode:
            raise Failed(f"towpath {' '.join(words)} ended with status {done.returncode}")

    def tail(self) -> str:
        """The end of what it said, if it was started."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-20:]) if self.started else ""

    def stop(self) -> None:
        """Stop it and remove its containers, networks, images and files."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._clean_engine()
        shutil.rmtree(self.home, ignore_errors=True)

    def _clean_engine(self) -> None:
        """Only what this installation made: its database says what that is."""
        found = self._facts()
        if found is None:
            return
        instance, images = found
        mine = f"label=towpath.instance={instance}"
        _remove(["docker", "rm", "--force", "--volumes"], _docker("ps", "--all", "--quiet", "--filter", mine))
        _remove(["docker", "network", "rm"], _docker("network", "ls", "--quiet", "--filter", mine))
        present = _docker("image", "inspect", "--format", "{{.Id}}", *images) if images else []
        _remove(["docker", "rmi", "--force"], present)

    def _facts(self) -> tuple[str, list[str]] | None:
        path = self.home / "towpath.db"
        if not path.exists():
            return None
        try:
            with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as database:
                instance = database.execute("select value from fact where name = 'instance'").fetchone()
                images = database.execute("select distinct image from step where image is not null").fetchall()
        except sqlite3.Error as error:
            print(f"demo: {path} can't be read ({error}); what it made on the engine stays", file=sys.stderr)
            return None
        return (instance[0], [row[0] for row in images]) if instance else None


def _docker(*arguments: str) -> list[str]:
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False)
    return list(dict.fromkeys(done.stdout.split()))


def _remove(command: list[str], names: list[str]) -> None:
    if names:
        done = subprocess.run([*command, *names], capture_output=True, text=True, check=False)
        if done.returncode:
            print(f"demo: {done.stderr.strip()}", file=sys.stderr)


def stop_engine(pid: int) -> None:
    """Stop the dockerd that script/demo started: a child of this process."""
    try:
        os.kill(pid, signal.SIGTERM)
        os.waitpid(pid, 0)
    except (ProcessLookupError, ChildProcessError):
        print("demo: the engine had ended already", file=sys.stderr)
