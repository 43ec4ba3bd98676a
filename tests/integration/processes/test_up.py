"""`towpath up` as an operator meets it: its start, its errors, its end."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.idle import family
from bench.service import TOWPATH, answers, free_port, service, until


@pytest.fixture
def home() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="tpu-") as folder:
        yield Path(folder)


def up(home: Path, port: int, **environment: str) -> subprocess.CompletedProcess[str]:
    """Start it where it must refuse; its end."""
    return subprocess.run(
        [*TOWPATH, "up", "--home", str(home), "--bind", f"127.0.0.1:{port}"],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def one_line(done: subprocess.CompletedProcess[str]) -> str:
    """What it said, which must be one line and no traceback."""
    assert done.returncode == 1, done.stderr
    (line,) = done.stderr.strip().splitlines()
    return line


def test_a_taken_port_is_told_with_the_remedy(home: Path, docker_client: object) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        line = one_line(up(home, port))
    assert f"127.0.0.1:{port}" in line
    assert "--bind" in line


def test_an_absent_engine_is_told_with_the_remedy(home: Path) -> None:
    line = one_line(up(home, free_port(), TOWPATH_DOCKER_HOST="unix:///nowhere/docker.sock"))
    assert "Docker engine does not answer" in line
    assert "TOWPATH_DOCKER_HOST" in line


def test_an_absent_redis_server_is_told_with_the_remedy(home: Path, docker_client: object) -> None:
    programs = home / "programs"
    programs.mkdir()
    (programs / "git").symlink_to(shutil.which("git") or "/usr/bin/git")
    line = one_line(up(home, free_port(), PATH=str(programs)))
    assert "redis-server is not installed" in line
    assert "TOWPATH_REDIS_URL" in line


def test_absent_git_is_told_with_the_remedy(home: Path, docker_client: object) -> None:
    line = one_line(up(home, free_port(), PATH=str(home)))
    assert "git is not installed" in line


def test_a_redis_that_does_not_answer_is_told_with_the_remedy(home: Path, docker_client: object) -> None:
    line = one_line(up(home, free_port(), TOWPATH_REDIS_URL=f"redis://127.0.0.1:{free_port()}"))
    assert "Redis does not answer" in line


def test_a_nonsense_setting_is_told(home: Path) -> None:
    done = up(home, free_port(), TOWPATH_WORKERS="many")
    assert done.returncode == 1
    assert "TOWPATH_WORKERS" in done.stderr
    assert "Traceback" not in done.stderr


def test_every_process_comes_back_and_all_end_together(docker_client: object) -> None:
    with service() as running:
        root = running.process.pid
        assert "admin password: " in running.log.read_text()
        second = one_line(up(running.home, free_port()))
        assert "runs already" in second
        before = set(family(root)) - {root}
        assert len(before) == 6
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        until(lambda: len(set(family(root)) - before - {root}) >= 6, 30, "six new processes")
        until(lambda: answers(running.port), 30, "the web")
        after = family(root)
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(20) == 0
        assert not [pid for pid in after if Path(f"/proc/{pid}").exists()]


def test_the_supervisor_takes_its_processes_with_it(docker_client: object) -> None:
    with service() as running:
        pids = family(running.process.pid)
        running.process.kill()
        running.process.wait()
        until(lambda: not [pid for pid in pids if Path(f"/proc/{pid}/cmdline").exists()], 10, "the end of all")
