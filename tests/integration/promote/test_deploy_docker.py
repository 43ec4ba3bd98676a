"""Deploying to a real engine, with people asking the app for pages all the while."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
import pytest
import requests
from deploying import free_port, proxy_image
from promote_scene import Scene

from cd.promote import deployments
from cd.promote.targets import Targets
from cd.store import tasks
from cd.store.database import Database

__all__ = ["proxy_image"]
HEALTH = {"path": "/index.html", "interval": "50ms", "timeout": "1s", "passes": 2, "deadline": "3s"}
SLOW = r'printf "#!/bin/sh\nsleep 2\nprintf \"Content-Type: text/plain\\r\\n\\r\\nslow {text}\"\n" > cgi-bin/slow'
SERVE = (
    "mkdir -p /tmp/www/cgi-bin; cd /tmp/www; echo {text} > index.html; "
    + SLOW
    + "; chmod +x cgi-bin/slow; exec httpd -f -p 8000 -h /tmp/www"
)


@dataclass
class Site:
    """One environment on the engine, whose app answers with a text that each release chooses."""

    scene: Scene
    client: docker.DockerClient
    image: str
    port: int

    def release(self, text: str, command: str = SERVE, **deploy: Any) -> None:
        """A new release whose pages say `text`."""
        given = {"port": 8000, "command": command.replace("{text}", text), "health": HEALTH}
        self.scene.passed(self.image, deploy=given | deploy)

    def deploy(self, text: str, command: str = SERVE, **deploy: Any) -> None:
        self.release(text, command, **deploy)
        self.scene.work()

    def page(self, path: str = "/index.html") -> str:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        connection.request("GET", path)
        body = connection.getresponse().read().decode().strip()
        connection.close()
        return body

    def containers(self, kind: str = "app") -> list[Any]:
        labels = [f"towpath.instance={self.scene.instance}", f"towpath.kind={kind}"]
        return list(self.client.containers.list(all=True, filters={"label": labels}))

    @property
    def state(self) -> str:
        return self.scene.promotions("dev")[-1][1]

    @contextmanager
    def load(self) -> Iterator[dict[str, Any]]:
        """Requests without a pause; what came of them is in the dict afterwards."""
        script = Path(__file__).with_name("http_load.py")
        process = subprocess.Popen(
            [sys.executable, script, str(self.port)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        result: dict[str, Any] = {}
        try:
            yield result
        finally:
            out, _ = process.communicate(timeout=60)
            result |= json.loads(out)


def one_environment(port: int) -> bytes:
    target = f'{{kind: docker, url: "http://127.0.0.1:{port}"}}'
    return f"environments: [{{name: dev, from: {{branches: main}}, target: {target}}}]".encode()


@pytest.fixture
def site(
    sqlite_database: Database, docker_client: docker.DockerClient, busybox_image: str, proxy_image: str
) -> Iterator[Site]:
    port = free_port()
    scene = Scene(sqlite_database, find=Targets("", proxy_image))
    scene.apply(one_environment(port))
    site = Site(scene, docker_client, busybox_image, port)
    yield site
    scene.apply(b"environments: []")
    deployments.clean(scene.database, scene.deployer.targets, scene.instance)
    assert site.containers() + site.containers("proxy") == []
    assert docker_client.networks.list(filters={"label": f"towpath.instance={scene.instance}"}) == []


def test_no_request_fails_during_ten_deployments(site: Site) -> None:
    site.deploy("v0")
    with site.load() as load:
        for number in range(1, 11):
            site.deploy(f"v{number}")
            assert site.page() == f"v{number}"
    assert load["failures"] == []
    assert load["requests"] > 1000
    assert load["bodies"] == [f"v{number}" for number in range(11)]
    assert len(site.containers()) == 1
    running = site.containers()[0]
    assert running.attrs["Image"] == site.image
    host = running.attrs["HostConfig"]
    assert (host["RestartPolicy"]["Name"], host["CapDrop"]) == ("unless-stopped", ["ALL"])


@pytest.mark.parametrize(
    ("command", "words", "code"),
    [
        ("echo no database; exit 7", "exit code 7", 7),
        ("mkdir /tmp/www; exec httpd -f -p 8000 -h /tmp/www", "/index.html gave HTTP 404", None),
        ("exec sleep 100", "connection refused", None),
    ],
)
def test_a_version_that_does_not_become_healthy_is_never_seen(
    site: Site, command: str, words: str, code: int | None
) -> None:
    site.deploy("old")
    with site.load() as load:
        site.deploy("new", command, health=HEALTH | {"deadline": "1s"})
    assert (load["failures"], load["bodies"]) == ([], ["old"])
    failed = site.scene.deployments("dev")[-1]
    assert failed.state == "failed"
    assert words in failed.reason
    assert failed.evidence["exit_code"] == code
    assert failed.evidence["log"] == (["no database"] if code else [])
    assert len(site.containers()) == 1


def test_a_command_that_does_not_exist_and_one_that_takes_too_much_memory(site: Site) -> None:
    site.scene.passed(site.image, deploy={"port": 8000, "command": ["/bin/nothing"]})
    site.scene.work()
    assert site.state == "failed"
    assert "can't be executed" in site.scene.promotion("dev").reason
    site.deploy("x", "tail /dev/zero", limits={"memory": "16MiB"})
    assert "ran out of memory" in site.scene.promotion("dev").reason
    assert site.scene.deployments("dev")[-1].evidence["oom"] is True


def test_a_request_that_is_under_way_is_answered_by_the_old_version(site: Site) -> None:
    site.deploy("old")
    answers: list[str] = []
    asking = threading.Thread(target=lambda: answers.append(site.page("/cgi-bin/slow")))
    asking.start()
    wait_for(lambda: "sleep" in site.containers()[0].exec_run("ps").output.decode())
    site.deploy("new")
    assert site.page() == "new"
    asking.join()
    assert answers == ["slow old"]
    assert len(site.containers()) == 1


def test_a_taken_port_fails_with_what_to_do_and_leaves_nothing(site: Site) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", site.port))
        taken.listen()
        site.deploy("v1")
    assert site.state == "failed"
    assert "is taken by another program" in site.scene.promotion("dev").reason
    assert "target.url" in site.scene.promotion("dev").reason
    assert site.containers() + site.containers("proxy") == []
    site.deploy("v2")
    assert site.page() == "v2"


def test_an_app_without_a_port_has_to_stay(site: Site) -> None:
    site.deploy("", "exec sleep 1000", port=None)
    assert site.state == "succeeded"
    site.deploy("", "sleep 0.01; exit 0", port=None)
    assert "exit code 0" in site.scene.promotion("dev").reason
    assert len(site.containers()) == 1
    assert site.containers("proxy") == []


def test_an_environment_may_move_to_another_address(site: Site) -> None:
    site.deploy("v1")
    site.port = free_port()
    site.scene.apply(one_environment(site.port))
    site.deploy("v2")
    assert site.page() == "v2"
    assert len(site.containers("proxy")) == 1


def test_an_app_that_ends_is_started_again_and_found_again(site: Site) -> None:
    site.deploy("v1")
    (app,) = site.containers()
    started = app.attrs["State"]["StartedAt"]
    app.exec_run("killall httpd")

    def back() -> bool:
        app.reload()
        if app.attrs["State"]["StartedAt"] == started:
            return False
        with contextlib.suppress(OSError, http.client.HTTPException):
            return site.page() == "v1"
        return False

    wait_for(back)


def test_an_image_that_the_engine_does_not_have(site: Site) -> None:
    site.scene.passed("sha256:" + "0" * 64, deploy={"port": 8000})
    site.scene.work()
    assert "is not on the engine" in site.scene.promotion("dev").reason


def wait_for(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


class Fatal:
    """In a child: SIGKILL for the process at its engine call number `at` that changes something."""

    def __init__(self, at: int, after: bool) -> None:
        self._left, self._after = at, after
        self._real = requests.Session.request

    def request(self, session: requests.Session, method: str, *args: Any, **kwargs: Any) -> Any:
        if method.upper() == "GET":
            return self._real(session, method, *args, **kwargs)
        self._left -= 1
        if self._left == 0 and not self._after:
            os.kill(os.getpid(), signal.SIGKILL)
        answer = self._real(session, method, *args, **kwargs)
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return answer


def dies(scene: Scene, at: int, after: bool) -> bool:
    """Do the open task in a child that is killed on the way; False when it came to its end before."""
    claim = scene.claim()
    assert claim is not None
    child = os.fork()
    if child == 0:
        fatal = Fatal(at, after)

        def request(*args: Any, **kwargs: Any) -> Any:
            return fatal.request(*args, **kwargs)

        requests.Session.request = request
        scene.database.after_fork()
        try:
            scene.deployer.execute(claim)
            with scene.database.write() as session:
                tasks.finish(session, claim)
            scene.work()  # the removal of the version before, a task of its own
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_worker_killed_at_any_engine_call_is_followed_by_one_that_goes_on(site: Site, after: bool) -> None:
    site.deploy("v0")
    created: list[str] = []
    with site.load() as load:
        for at in range(1, 20):
            site.release(f"v{at}")
            died = dies(site.scene, at, after)
            here = {one.id for one in site.containers()}
            site.scene.work()
            assert site.page() == f"v{at}"
            (one,) = site.containers()
            # What the dead worker had started is what serves now, unless it had started nothing.
            assert one.id in here or not any(f"-d{at + 1}-" in name for name in created)
            if not died:
                break
    assert at > 5
    assert load["failures"] == []
    assert load["bodies"] == [f"v{number}" for number in range(at + 1)]
    assert {one.state for one in site.scene.deployments("dev")} == {"live", "retired"}
