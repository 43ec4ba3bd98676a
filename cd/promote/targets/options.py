"""Names, labels and create requests of all that a Docker target makes, as pure data."""

from __future__ import annotations

from typing import Any

from cd.promote.policy import DockerTargetSpec
from cd.promote.targets.base import App, Place

KIND = "towpath.kind"
INSTANCE = "towpath.instance"
PROJECT = "towpath.project"
ENVIRONMENT = "towpath.environment"
ENVIRONMENT_ID = "towpath.environment_id"
DEPLOYMENT = "towpath.deployment"
ADDRESS = "towpath.address"

PIDS = 512
#: Seconds that an app has between SIGTERM and SIGKILL.
STOP_SECONDS = 10
#: User of the official HAProxy image; it needs no entry in /etc/passwd.
PROXY_USER = "99:99"
PROXY_FOLDER = "/usr/local/etc/haproxy"
PROXY_FILE = "haproxy.cfg"
#: Ports inside the proxy's container: traffic, and the id of the deployment that gets it.
TRAFFIC_PORT, STATUS_PORT = 8080, 8404
_LOGS = {"Type": "json-file", "Config": {"max-size": "10m", "max-file": "3"}}
_LOCKED = {
    "CapDrop": ["ALL"],
    "SecurityOpt": ["no-new-privileges:true"],
    "Privileged": False,
    "LogConfig": _LOGS,
}


def network_name(place: Place) -> str:
    """The network that the place's containers share with nobody else."""
    return f"towpath-{place.project}-{place.environment}-{place.instance}"


def app_name(app: App) -> str:
    """The one container of a deployment."""
    place = app.place
    return f"towpath-{place.project}-{place.environment}-d{app.deployment}-{place.instance}"


def alias(app: App) -> str:
    """The container's name in its network; container names can be too long for DNS."""
    return f"d{app.deployment}"


def proxy_name(place: Place, target: DockerTargetSpec) -> str:
    """The proxy that listens on the target's port."""
    return f"towpath-{place.project}-{place.environment}-proxy{target.port}-{place.instance}"


def address(target: DockerTargetSpec) -> str:
    """Where the proxy listens."""
    return f"{target.host}:{target.port}"


def labels(place: Place, **more: str) -> dict[str, str]:
    """Labels by which everything of a place is found again."""
    return {
        INSTANCE: place.instance,
        PROJECT: place.project,
        ENVIRONMENT: place.environment,
        ENVIRONMENT_ID: str(place.environment_id),
        **more,
    }


def app_request(app: App) -> dict[str, Any]:
    """Body of POST /containers/create (Engine API 1.41) for a version.

    It does not restart until it was healthy once: a version that ends at its start stays as it ended.
    """
    network, limits = network_name(app.place), app.deploy.limits
    body: dict[str, Any] = {
        "Image": app.image,
        "Hostname": f"{app.place.environment}-d{app.deployment}"[-63:].lstrip("-"),
        "Env": [f"{name}={value}" for name, value in app.env.items()],
        "Labels": labels(app.place, **{KIND: "app", DEPLOYMENT: str(app.deployment)}),
        "Healthcheck": {"Test": ["NONE"]},
        "HostConfig": {
            **_LOCKED,
            "NetworkMode": network,
            "Memory": limits.memory,
            "MemorySwap": limits.memory,
            "NanoCpus": int(limits.cpus * 1e9),
            "PidsLimit": PIDS,
            "Ulimits": [{"Name": "core", "Soft": 0, "Hard": 0}],
            "Init": True,
            "RestartPolicy": {"Name": "no"},
        },
        "NetworkingConfig": {"EndpointsConfig": {network: {"Aliases": [alias(app)]}}},
    }
    if app.deploy.command:
        body |= {"Entrypoint": list(app.deploy.command), "Cmd": []}
    return body


def proxy_request(place: Place, target: DockerTargetSpec, image: str) -> dict[str, Any]:
    """Body of POST /containers/create for the proxy in front of a place."""
    network, inside = network_name(place), f"{TRAFFIC_PORT}/tcp"
    return {
        "Image": image,
        "User": PROXY_USER,
        "Entrypoint": ["haproxy"],
        "Cmd": ["-W", "-db", "-f", f"{PROXY_FOLDER}/{PROXY_FILE}"],
        "Labels": labels(place, **{KIND: "proxy", ADDRESS: address(target)}),
        "ExposedPorts": {inside: {}},
        "Healthcheck": {"Test": ["NONE"]},
        "HostConfig": {
            **_LOCKED,
            "NetworkMode": network,
            "PortBindings": {inside: [{"HostIp": target.host, "HostPort": str(target.port)}]},
            "Memory": 256 << 20,
            "PidsLimit": 128,
            "RestartPolicy": {"Name": "unless-stopped"},
        },
        "NetworkingConfig": {"EndpointsConfig": {network: {}}},
    }
