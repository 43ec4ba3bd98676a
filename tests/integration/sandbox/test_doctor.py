"""`towpath doctor` on the engine of the tests: the same probes that users run."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator

import docker
import pytest
from click.testing import CliRunner

from cd.cli import main
from cd.sandbox.base import ContainerSpec, Limits
from cd.sandbox.docker_engine import DockerSandbox
from cd.sandbox.doctor import Examination
from cd.sandbox.probes import Finding


@pytest.fixture(scope="module")
def findings(python_image: str) -> Iterator[list[Finding]]:
    sandbox = DockerSandbox()
    yield list(Examination(sandbox, python_image, {"127.0.0.2:6379": "Redis"}).findings())
    sandbox.api.close()


def test_everything_is_stopped(findings: list[Finding]) -> None:
    assert [finding for finding in findings if not finding.blocked] == []
    assert len(findings) > 150
    assert {finding.group for finding in findings} == {"control", "stage", "stage with services", "greed"}


def test_nothing_is_left_behind(findings: list[Finding], docker_client: docker.DockerClient) -> None:
    assert findings
    assert [one.name for one in docker_client.containers.list(all=True) if "towpath-doctor" in one.name] == []


def test_an_open_sandbox_is_told(python_image: str) -> None:
    """Else the probes could not fail: the same, in a container without any hardening."""

    class Open(DockerSandbox):
        def start(self, spec: ContainerSpec, canceled: object = None) -> None:
            settings = self.api.create_host_config(
                security_opt=["seccomp=unconfined"], network_mode="bridge", log_config={"Type": "local", "Config": {}}
            )
            self.api.create_container(
                spec.image, list(spec.argv), name=spec.name, host_config=settings, entrypoint=[], user="0"
            )
            self.api.start(spec.name)

    sandbox = Open()
    examination = Examination(sandbox, python_image)
    found: dict[str, Finding] = {}
    for finding in examination.findings():
        found.setdefault(finding.what, finding)
        if finding.group != "stage" and len(found) > 60:
            break
    sandbox.api.close()
    for what in ("CapEff is empty", "a seccomp filter", "it is not root", "write to /etc", "routes"):
        assert not found[what].blocked, what
    assert not found["reach the host by its gateway"].blocked


def test_the_command_says_it_in_a_table_and_in_json(python_image: str) -> None:
    told = CliRunner().invoke(main, ["doctor", "--image", "towpath-no-such-image:1"])
    assert told.exit_code == 1
    assert "docker pull towpath-no-such-image:1" in told.output
    found = CliRunner().invoke(main, ["doctor", "--json", "--image", python_image])
    assert found.exit_code == 0, found.output
    assert {"machine", "probes", "internet"} == json.loads(found.stdout).keys()


def test_more_pods_than_an_engine_has_networks(docker_client: docker.DockerClient, busybox_image: str) -> None:
    """A bridge for each would have used up the engine's pools at thirty-one."""
    sandbox, group = DockerSandbox(), uuid.uuid4().hex[:8]
    limits = Limits(memory=16 << 20, cpus=0.1, pids=8, disk=1 << 20, timeout=60)
    before = {one.id for one in docker_client.networks.list()}
    specs = [
        ContainerSpec(f"towpath-test-{group}-{number}", busybox_image, ("sleep", "60"), limits, keep_files=True)
        for number in range(33)
    ]
    try:
        for spec in specs:
            sandbox.start(spec)
        assert {one.id for one in docker_client.networks.list()} == before
    finally:
        for spec in specs:
            sandbox.remove(spec.name)
        sandbox.api.close()
