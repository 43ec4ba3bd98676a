"""From a ContainerSpec to the engine's create request, as pure data: the whole hardening in one place."""

from __future__ import annotations

from typing import Any

from cd.sandbox.base import ContainerSpec, Limits, Service
from cd.sandbox.output import LOG_CONFIG
from cd.sandbox.seccomp import PROFILE

#: Part of every stage key: a sandbox that changes voids the verdicts earned in the one before.
SANDBOX_VERSION = 3
#: Who a stage runs as where its image would run it as root.
NOBODY = "65532:65532"
SHM_BYTES = 16 << 20
#: Where a stage may write.
SCRATCH = ("/tmp", "/work")  # noqa: S108 - paths inside the container
#: The least with which the usual images of databases start: they give files and themselves to a user of their own.
SERVICE_CAPABILITIES = ("CHOWN", "DAC_OVERRIDE", "FOWNER", "SETGID", "SETUID")
HOLDER_LIMITS = Limits(memory=16 << 20, cpus=0.1, pids=8, disk=1 << 20, timeout=0)
#: Labels of what is made beside a command: its part, and the command's container; of a command: its secret variables.
PART_LABEL, OF_LABEL, SECRETS_LABEL = "towpath.part", "towpath.of", "towpath.secrets"
#: Of a service: bytes that it may write into its own root, which the engine itself does not bound.
DISK_LABEL = "towpath.disk"
#: Only the end of what a service says is ever told.
SERVICE_LOG = {"Type": "local", "Config": {"max-size": "10m", "max-file": "1", "compress": "false"}}
HOLDER = "holder"


def user_of(image_user: str) -> str:
    """The image's own user unless that is root in any spelling; then NOBODY."""
    name = image_user.split(":", 1)[0].strip()
    is_root = name in ("", "root") or (name.isdigit() and int(name) == 0)
    return NOBODY if is_root else image_user


def create_request(spec: ContainerSpec, image_user: str, runtime: str = "", network: str = "none") -> dict[str, Any]:
    """Body of POST /containers/create (Engine API 1.41) for a stage of `spec` on an image with that user.

    `network` is the engine's word: none, the name of a network, or `container:` and a holder's name.
    """
    host = _hardened(spec.limits, runtime, network)
    host["ReadonlyRootfs"] = True
    if spec.keep_files:
        host["Mounts"] = [volume_mount(name, folder) for folder, name in volumes(spec.name).items()]
    else:
        host["Tmpfs"] = {folder: f"rw,exec,{_tmpfs(spec.limits.disk)}" for folder in SCRATCH}
    body = {
        "Image": spec.image,
        "User": user_of(image_user),
        "Entrypoint": list(spec.argv),
        "Cmd": [],
        "Env": [f"{name}={value}" for name, value in {"HOME": "/work", **spec.env, **spec.secrets}.items()],
        "Labels": {**spec.labels, SECRETS_LABEL: " ".join(spec.secrets)} if spec.secrets else dict(spec.labels),
        "Tty": False,
        "OpenStdin": False,
        "StopSignal": "SIGKILL",
        "Healthcheck": {"Test": ["NONE"]},
        "HostConfig": host,
    }
    # Who shares a network shares its host name.
    return body if network.startswith("container:") else {**body, "Hostname": "stage"}


def service_request(spec: ContainerSpec, service: Service, runtime: str = "") -> dict[str, Any]:
    """The same for a service. Images of databases begin as root, write where they like, and give root away."""
    host = _hardened(service.limits, runtime, f"container:{holder_name(spec.name)}")
    host["CapAdd"] = list(SERVICE_CAPABILITIES)
    host["Tmpfs"] = {SCRATCH[0]: f"rw,exec,{_tmpfs(service.limits.disk)}"}
    host["LogConfig"] = SERVICE_LOG
    host["Ulimits"] = [*host["Ulimits"], {"Name": "fsize", "Soft": service.limits.disk, "Hard": service.limits.disk}]
    body: dict[str, Any] = {
        "Image": service.image,
        "Env": [f"{name}={value}" for name, value in service.env.items()],
        "Labels": {
            **spec.labels,
            PART_LABEL: service.name,
            OF_LABEL: spec.name,
            DISK_LABEL: str(service.limits.disk),
        },
        "StopSignal": "SIGKILL",
        "HostConfig": host,
    }
    if service.ready is not None:
        body["Healthcheck"] = {"Test": ["NONE"]}
    return body


def holder_request(spec: ContainerSpec, image: str, network: str) -> dict[str, Any]:
    """The same for what holds a pod's network, and its files beyond the end of the command."""
    host = _hardened(HOLDER_LIMITS, "", network)
    host["ReadonlyRootfs"] = True
    host["LogConfig"] = {"Type": "none", "Config": {}}
    host["ExtraHosts"] = [f"{service.name}:127.0.0.1" for service in spec.services]
    if spec.keep_files:
        host["Mounts"] = [volume_mount(name, folder) for folder, name in volumes(spec.name).items()]
    return {
        "Image": image,
        "Hostname": "stage",
        "Labels": {**spec.labels, PART_LABEL: HOLDER, OF_LABEL: spec.name},
        "HostConfig": host,
    }


def volume_request(spec: ContainerSpec, name: str) -> dict[str, Any]:
    """Body of POST /volumes/create: memory with a size, that lives as long as any container of the pod."""
    return {
        "Name": name,
        "Driver": "local",
        "DriverOpts": {"type": "tmpfs", "device": "tmpfs", "o": _tmpfs(spec.limits.disk)},
        "Labels": {**spec.labels, OF_LABEL: spec.name},
    }


def volume_mount(name: str, folder: str) -> dict[str, Any]:
    """One of HostConfig's Mounts."""
    return {"Type": "volume", "Source": name, "Target": folder, "VolumeOptions": {"NoCopy": True}}


def holder_name(name: str) -> str:
    """Of the container that holds the pod of `name`."""
    return f"{name}-pod"


def service_name(name: str, service: str) -> str:
    """Of a service's container."""
    return f"{name}-service-{service}"


def volumes(name: str) -> dict[str, str]:
    """By folder the names of the volumes of `name`."""
    return {folder: f"{name}{folder.replace('/', '-')}" for folder in SCRATCH}


def _tmpfs(size: int) -> str:
    return f"nosuid,nodev,mode=1777,size={size}"


def _hardened(limits: Limits, runtime: str, network: str) -> dict[str, Any]:
    host: dict[str, Any] = {
        "NetworkMode": network,
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
        "Init": True,
        "Privileged": False,
        "RestartPolicy": {"Name": "no"},
        # One file, read again by whoever adopts the container: the order of its lines is the log's order.
        "LogConfig": LOG_CONFIG,
    }
    return {**host, "Runtime": runtime} if runtime else host
