from __future__ import annotations

import json
from typing import Any

import pytest

from cd.sandbox.base import ContainerSpec, Limits
from cd.sandbox.options import LOG_CONFIG, create_request, user_of

LIMITS = Limits(memory=64 << 20, cpus=0.5, pids=32, disk=8 << 20, timeout=60)


def request(**more: Any) -> dict[str, Any]:
    spec = ContainerSpec("name", "sha256:abc", ("echo", "hi"), LIMITS, env={"A": "1"}, labels={"towpath.kind": "stage"})
    return create_request(spec, **{"image_user": "", **more})


@pytest.mark.parametrize("user", ["", "root", "0", "00", "root:root", "0:0", "0:1000", " root ", "root:app"])
def test_root_in_any_spelling_becomes_nobody(user: str) -> None:
    assert user_of(user) == "65532:65532"


@pytest.mark.parametrize("user", ["app", "1000", "1000:1000", "rooter", "app:0"])
def test_another_user_of_the_image_stays(user: str) -> None:
    assert user_of(user) == user


def test_the_whole_hardening() -> None:
    body = request()
    host = body["HostConfig"]
    seccomp = host["SecurityOpt"].pop()
    assert seccomp.startswith("seccomp={")
    assert json.loads(seccomp.removeprefix("seccomp="))["defaultAction"] == "SCMP_ACT_ERRNO"
    assert host == {
        "NetworkMode": "none",
        "ReadonlyRootfs": True,
        "CapDrop": ["ALL"],
        "SecurityOpt": ["no-new-privileges:true"],
        "Memory": 64 << 20,
        "MemorySwap": 64 << 20,
        "NanoCpus": 500_000_000,
        "PidsLimit": 32,
        "Ulimits": [{"Name": "nofile", "Soft": 4096, "Hard": 4096}, {"Name": "core", "Soft": 0, "Hard": 0}],
        "IpcMode": "private",
        "ShmSize": 16 << 20,
        "Tmpfs": {
            "/tmp": "rw,exec,nosuid,nodev,mode=1777,size=8388608",
            "/work": "rw,exec,nosuid,nodev,mode=1777,size=8388608",
        },
        "Init": True,
        "Privileged": False,
        "RestartPolicy": {"Name": "no"},
        "LogConfig": LOG_CONFIG,
    }


def test_the_command_replaces_all_that_the_image_says_of_running() -> None:
    body = request()
    assert (body["Entrypoint"], body["Cmd"], body["User"]) == (["echo", "hi"], [], "65532:65532")
    assert body["Env"] == ["HOME=/work", "A=1"]
    assert body["Labels"] == {"towpath.kind": "stage"}
    assert body["Healthcheck"] == {"Test": ["NONE"]}
    assert not body["Tty"]
    assert not body["OpenStdin"]


def test_a_stronger_runtime() -> None:
    assert "Runtime" not in request()["HostConfig"]
    assert request(runtime="runsc")["HostConfig"]["Runtime"] == "runsc"
