"""Docker engines and registries of a test's own, beside the one that all tests share."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import docker

START = 60.0


@dataclass
class Engine:
    """A dockerd with folders, a socket and a bridge of its own, and no rules in the host's firewall."""

    folder: Path
    bridge: str
    live_restore: bool = False
    process: subprocess.Popen[bytes] | None = field(default=None)

    @property
    def host(self) -> str:
        """As in DOCKER_HOST."""
        return f"unix://{self.folder}/docker.sock"

    def start(self) -> None:
        """Start it and wait until it answers."""
        # Of an engine that was killed: the number may be a zombie's, which looks alive.
        for stale in ("docker.pid", "exec/containerd/containerd.pid"):
            (self.folder / stale).unlink(missing_ok=True)
        command = [
            "dockerd",
            f"--host={self.host}",
            f"--data-root={self.folder}/data",
            f"--exec-root={self.folder}/exec",
            f"--pidfile={self.folder}/docker.pid",
            f"--bridge={self.bridge}",
            "--iptables=false",
            "--ip-forward=false",
            *(["--live-restore"] if self.live_restore else []),
        ]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        end = time.monotonic() + START
        while not self._answers():
            if self.process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"dockerd did not start: {(self.folder / 'log').read_text()[-2000:]}")
            time.sleep(0.1)

    def _answers(self) -> bool:
        """By a socket of our own: the client's library leaves one behind for each time that nobody is there."""
        with socket.socket(socket.AF_UNIX) as asked:
            asked.settimeout(5)
            try:
                asked.connect(f"{self.folder}/docker.sock")
                asked.sendall(b"GET /_ping HTTP/1.0\r\n\r\n")
                return b" 200 " in asked.recv(100)
            except OSError:
                return False

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """End it; by SIGKILL its containers are left alone."""
        if self.process is not None:
            self.process.send_signal(how)
            self.process.wait(60)
            self.process = None

    def load(self, image: str) -> str:
        """Bring an image over from the shared engine; its id."""
        shared, own = docker.APIClient(version="1.41"), docker.APIClient(self.host, version="1.41", timeout=120)
        try:
            own.load_image(b"".join(shared.get_image(image)))
            return str(own.inspect_image(image)["Id"])
        finally:
            shared.close()
            own.close()


@contextmanager
def engine(*, live_restore: bool = False) -> Iterator[Engine]:
    """An engine that is gone afterwards, with all that it held."""
    name = uuid.uuid4().hex[:8]
    folder = Path("/var/tmp") / f"towpath-engine-{name}"
    folder.mkdir(mode=0o700)
    bridge = f"tp{name}"
    number = int(name[:2], 16)
    subprocess.run(["ip", "link", "add", bridge, "type", "bridge"], check=True)
    subprocess.run(["ip", "address", "add", f"10.213.{number}.1/24", "dev", bridge], check=True)
    made = Engine(folder, bridge, live_restore)
    try:
        made.start()
        yield made
    finally:
        _empty(made)
        made.stop()
        subprocess.run(["ip", "link", "delete", bridge], check=True)
        for mount in sorted(_mounts(folder), reverse=True):
            subprocess.run(["umount", "-l", mount], check=False)
        shutil.rmtree(folder, ignore_errors=True)


def _empty(made: Engine) -> None:
    if made.process is None:
        made.start()
    client = docker.APIClient(made.host, version="1.41", timeout=60)
    try:
        for one in client.containers(all=True):
            client.remove_container(one["Id"], force=True)
    finally:
        client.close()


def _mounts(folder: Path) -> list[str]:
    lines = Path("/proc/self/mounts").read_text().splitlines()
    return [line.split()[1] for line in lines if line.split()[1].startswith(f"{folder}/")]


@contextmanager
def registry(folder: Path) -> Iterator[str]:
    """A real registry; its host and port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config = folder / "registry.yml"
    config.write_text(
        f"version: 0.1\nstorage: {{filesystem: {{rootdirectory: {folder}/registry}}}}\n"
        f"http: {{addr: '127.0.0.1:{port}'}}\n"
    )
    with (folder / "registry.log").open("wb") as log:
        process = subprocess.Popen(
            ["docker-registry", "serve", str(config)],
            stdout=log,
            stderr=log,
            env={**os.environ, "OTEL_TRACES_EXPORTER": "none"},
        )
    try:
        end = time.monotonic() + START
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                if time.monotonic() > end or process.poll() is not None:
                    raise RuntimeError((folder / "registry.log").read_text()[-2000:]) from None
                time.sleep(0.05)
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(20)
