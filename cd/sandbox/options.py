"""From a ContainerSpec to the engine's create request, as pure data: the whole hardening in one place."""

from __future__ import annotations

from typing import Any

from cd.sandbox.base import ContainerSpec
from cd.sandbox.seccomp import PROFILE

#: Part of every stage key: a sandbox that changes voids the verdicts earned in the one before.
SANDBOX_VERSION = 1
#: Who a stage runs as where its image would run it as root.
NOBODY = "65532:65532"
SHM_BYTES = 16 << 20


def user_of(image_user: str) -> str:
    """The image's own user unless that is root in any spelling; then NOBODY."""
    name = image_user.split(":", 1)[0].strip()
    is_root = name in ("", "root") or (name.isdigit() and int(name) == 0)
    return NOBODY if is_root else image_user


def create_request(spec: ContainerSpec, image_user: str, runtime: str = "") -> dict[str, Any]:
    """Body of POST /containers/create (Engine API 1.41) for a stage of `spec` on an image with that user."""
    limits = spec.limits
    writable = f"rw,exec,nosuid,nodev,mode=1777,size={limits.disk}"
    host: dict[str, Any] = {
        "NetworkMode": "none",
        "ReadonlyRootfs": True,
        "CapDrop": ["ALL"],
        "SecurityOpt": ["no-new-privileges:true", f"seccomp={PROFILE}"],
        "Memory": limits.memory,
        "MemorySwap": limits.memory,
        "NanoCpus": int(limits.cpus * 1e9),
        "PidsLimit": limits.pids,
        "Ulimits": [
            {"Name": "nofile", "Soft": 4096, "Hard": 4096},
            {"Name": "core", "Soft": 0, "Hard": 0},
        ],
        "IpcMode": "private",
        "ShmSize": SHM_BYTES,
        "Tmpfs": {"/tmp": writable, "/work": writable},  # noqa: S108 - a path inside the container
        "Init": True,
        "Privileged": False,
        "RestartPolicy": {"Name": "no"},
        # One file, read again by whoever adopts the container: the order of its lines is the log's order.
        "LogConfig": {"Type": "json-file", "Config": {}},
    }
    if runtime:
        host["Runtime"] = runtime
    return {
        "Image": spec.image,
        "Hostname": "stage",
        "User": user_of(image_user),
        "Entrypoint": list(spec.argv),
        "Cmd": [],
        "Env": [f"{name}={value}" for name, value in {"HOME": "/work", **spec.env}.items()],
        "Labels": dict(spec.labels),
        "Tty": False,
        "OpenStdin": False,
        "StopSignal": "SIGKILL",
        "Healthcheck": {"Test": ["NONE"]},
        "HostConfig": host,
    }
