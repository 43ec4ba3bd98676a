"""What a Docker target asks the engine for, as data, and what it makes of an answer to a probe."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cd.pipeline.definition import DeploySpec
from cd.promote.policy import DockerTargetSpec
from cd.promote.targets.base import App, Place
from cd.promote.targets.haproxy import config
from cd.promote.targets.options import app_name, app_request, proxy_name, proxy_request
from cd.promote.targets.probe import _judge

PLACE = Place("0123abcd", 7, "demo", "prod")
TARGET = DockerTargetSpec(url="http://127.0.0.1:18001")
APP = App(PLACE, 12, "sha256:a", DeploySpec(port=8000), TARGET, {"LOG": "debug"})


def test_an_app_is_locked_down_and_found_by_labels() -> None:
    body = app_request(APP)
    host = body["HostConfig"]
    assert app_name(APP) == "towpath-demo-prod-d12-0123abcd"
    assert body["Labels"] == {
        "towpath.kind": "app",
        "towpath.instance": "0123abcd",
        "towpath.project": "demo",
        "towpath.environment": "prod",
        "towpath.environment_id": "7",
        "towpath.deployment": "12",
    }
    assert host["CapDrop"] == ["ALL"]
    assert host["SecurityOpt"] == ["no-new-privileges:true"]
    assert host["Memory"] == host["MemorySwap"] == 256 << 20
    assert not {"Binds", "Mounts", "Devices", "PortBindings"} & host.keys()
    assert body["Env"] == ["LOG=debug"]
    assert "Entrypoint" not in body


def test_a_command_takes_the_place_of_the_image_s_own() -> None:
    body = app_request(replace(APP, deploy=DeploySpec.model_validate({"command": ["python", "app.py"]})))
    assert (body["Entrypoint"], body["Cmd"]) == (["python", "app.py"], [])


def test_a_proxy_listens_where_the_target_says() -> None:
    body = proxy_request(PLACE, TARGET, "haproxy:2.8")
    assert proxy_name(PLACE, TARGET) == "towpath-demo-prod-proxy18001-0123abcd"
    assert body["HostConfig"]["PortBindings"] == {"8080/tcp": [{"HostIp": "127.0.0.1", "HostPort": "18001"}]}
    assert body["HostConfig"]["RestartPolicy"] == {"Name": "unless-stopped"}


def test_the_proxy_says_whom_it_serves() -> None:
    assert "server app d12:8000 resolvers engine" in config(12, "d12:8000")
    assert 'string "12"' in config(12, "d12:8000")
    assert "status 503" in config(0, None)


@pytest.mark.parametrize(
    ("data", "ok", "text"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\nfine", True, "HTTP 200"),
        (b"HTTP/1.0 302 Found\r\n", True, "HTTP 302"),
        (b"HTTP/1.1 503\r\n", False, "HTTP 503"),
        (b"", False, "the connection was closed without an answer"),
        (b"SSH-2.0-OpenSSH\r\n", False, "the answer is not HTTP"),
    ],
)
def test_answers(data: bytes, ok: bool, text: str) -> None:
    probe = _judge(data)
    assert (probe.ok, probe.text) == (ok, text)
