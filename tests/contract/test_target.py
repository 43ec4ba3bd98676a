"""What every target has to do; once on the fake, once on a real engine."""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import docker
import pytest
from deploying import free_port, proxy_image

from cd.pipeline.definition import DeploySpec
from cd.promote.policy import DockerTargetSpec
from cd.promote.targets.base import App, DeployFailed, Place, Target
from cd.promote.targets.docker_engine import DockerTarget
from cd.promote.targets.fake import FakeTarget

HEALTH = {"path": "/index.html", "interval": "50ms", "timeout": "1s", "passes": 2, "deadline": "5s"}
SERVE = "mkdir -p /tmp/www; echo one > /tmp/www/index.html; exec httpd -f -p 8000 -h /tmp/www"
numbers = itertools.count(1)
__all__ = ["proxy_image"]


@dataclass
class Bench:
    """A target with an empty place. `sick(app)` never becomes healthy, `mute(app)` is not heard behind a proxy."""

    target: Target
    place: Place
    image: str
    spec: DockerTargetSpec
    sick: Callable[[App], App]
    mute: Callable[[App], App]

    def app(self) -> App:
        deploy = DeploySpec.model_validate({"port": 8000, "command": SERVE, "health": HEALTH})
        return App(self.place, next(numbers), self.image, deploy, self.spec)

    def deploy(self) -> App:
        app = self.app()
        self.target.prepare(app, quiet)
        self.target.switch(app, quiet)
        self.target.retire(app)
        return app

    def deployments(self) -> list[int]:
        found = self.target.found(self.place.instance)
        return sorted(one.deployment for one in found if one.deployment is not None)


def quiet(what: str, ok: bool) -> None:
    """A timeline that nobody reads."""


def fake() -> Bench:
    target = FakeTarget()

    def ill(kind: set[str]) -> Callable[[App], App]:
        def make(app: App) -> App:
            kind.add("ill")
            return replace(app, image="ill")

        return make

    spec = DockerTargetSpec(url="http://127.0.0.1:18000")
    return Bench(target, Place("0" * 8, 1, "p", "dev"), "sha256:a", spec, ill(target.sick), ill(target.mute))


def real(image: str) -> Bench:
    def with_command(command: str) -> Callable[[App], App]:
        return lambda app: replace(app, deploy=app.deploy.model_copy(update={"command": ("sh", "-c", command)}))

    # Deaf after the two requests that make it healthy.
    deaf = (
        "mkdir /tmp/www; echo one > /tmp/www/index.html; for i in 1 2; do nc -l -p 8000 -e httpd -i -h /tmp/www; done"
    )
    return Bench(
        DockerTarget("", "haproxy:2.8"),
        Place(secrets.token_hex(4), 1, "contract", "dev"),
        image,
        DockerTargetSpec(url=f"http://127.0.0.1:{free_port()}"),
        with_command("echo it broke; exit 3"),
        with_command(f"{deaf}; exec sleep 100"),
    )


@pytest.fixture(params=["fake", "docker"])
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    if request.param == "fake":
        yield fake()
        return
    client: docker.DockerClient = request.getfixturevalue("docker_client")
    request.getfixturevalue("proxy_image")
    made = real(request.getfixturevalue("busybox_image"))
    yield made
    made.target.clear(made.place)
    assert client.containers.list(all=True, filters={"label": f"towpath.instance={made.place.instance}"}) == []


def test_a_version_is_prepared_without_traffic_then_gets_it(bench: Bench) -> None:
    app = bench.app()
    bench.target.prepare(app, quiet)
    assert not bench.target.serves(app)
    bench.target.switch(app, quiet)
    assert bench.target.serves(app)


def test_every_call_may_come_twice(bench: Bench) -> None:
    old, app = bench.deploy(), bench.app()
    for _ in range(2):
        bench.target.prepare(app, quiet)
    for _ in range(2):
        bench.target.switch(app, quiet)
    for _ in range(2):
        bench.target.retire(app)
    assert bench.target.serves(app)
    assert not bench.target.serves(old)
    assert bench.deployments() == [app.deployment]
    for _ in range(2):
        bench.target.discard(app)
    assert bench.target.found(bench.place.instance) == []


def test_a_version_that_is_sick_never_gets_traffic_and_says_why(bench: Bench) -> None:
    old, app = bench.deploy(), bench.sick(bench.app())
    with pytest.raises(DeployFailed) as failed:
        bench.target.prepare(app, quiet)
    assert failed.value.evidence.exit_code == 3
    assert failed.value.evidence.log == ("it broke",)
    bench.target.discard(app)
    assert bench.target.serves(old)
    assert bench.deployments() == [old.deployment]


def test_a_first_version_that_is_sick_leaves_nothing(bench: Bench) -> None:
    app = bench.sick(bench.app())
    with pytest.raises(DeployFailed):
        bench.target.prepare(app, quiet)
    bench.target.discard(app)
    assert bench.target.found(bench.place.instance) == []


def test_traffic_goes_back_when_a_version_is_mute(bench: Bench) -> None:
    old, app = bench.deploy(), bench.mute(bench.app())
    bench.target.prepare(app, quiet)
    with pytest.raises(DeployFailed):
        bench.target.switch(app, quiet)
    bench.target.switch_back(bench.place, bench.spec, old, quiet)
    bench.target.discard(app)
    assert bench.target.serves(old)


def test_clear_takes_one_deployment_or_the_whole_place(bench: Bench) -> None:
    old, app = bench.deploy(), bench.app()
    bench.target.prepare(app, quiet)
    bench.target.clear(bench.place, app.deployment)
    assert bench.deployments() == [old.deployment]
    bench.target.clear(bench.place)
    assert bench.target.found(bench.place.instance) == []


def test_found_tells_installations_apart(bench: Bench) -> None:
    bench.deploy()
    assert bench.target.found("f" * 8) == []
