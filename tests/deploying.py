"""What tests that deploy to a real engine share."""

from __future__ import annotations

import socket

import docker
import pytest

PROXY_IMAGE = "haproxy:2.8"


@pytest.fixture(scope="session")
def proxy_image(docker_client: docker.DockerClient) -> str:
    """Name of the proxy's image, which script/bootstrap makes."""
    try:
        docker_client.images.get(PROXY_IMAGE)
    except docker.errors.ImageNotFound:
        pytest.skip(f"{PROXY_IMAGE} is not on the engine: run script/bootstrap")
    return PROXY_IMAGE


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody has at this moment."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
    return port
