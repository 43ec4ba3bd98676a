"""A registry that builds push to, so that any worker's engine and any target can fetch an image by its digest."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import docker
import requests
from docker.errors import APIError
from docker.utils import kwargs_from_env

from cd.errors import ServiceError
from cd.sandbox.docker_engine import translated


class Registry:
    """`prefix` as in TOWPATH_REGISTRY, `host` as in DOCKER_HOST: the engine is who talks to the registry."""

    def __init__(self, prefix: str, host: str = "") -> None:
        self._prefix, self._host = prefix.rstrip("/"), host
        self._client: docker.APIClient | None = None

    @property
    def _api(self) -> Any:
        """The connection, opened at first use: the process that forks must not have used it."""
        if self._client is None:
            kwargs = kwargs_from_env()
            if self._host:
                kwargs["base_url"] = self._host
            self._client = docker.APIClient(version="1.41", timeout=600, **kwargs)
        return self._client

    def close(self) -> None:
        """Give the connection back; the next use opens another."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def __bool__(self) -> bool:
        """Whether there is one."""
        return bool(self._prefix)

    def push(self, image: str, name: str, tag: str, write: Callable[[bytes], None]) -> str:
        """Push an image of the engine; returns what it is known by everywhere: `prefix/name@sha256:…`.

        The tag is for people. Raises ServiceError when the registry refuses, or does not have it afterwards.
        """
        repository = f"{self._prefix}/{name}"
        write(f"pushing to {repository}:{tag}\n".encode())
        digest = ""
        with translated():
            self._api.tag(image, repository, tag)
            # What goes wrong is told in the answer, which begins well.
            for told in self._api.push(repository, tag=tag, stream=True, decode=True):
                if "error" in told:
                    raise ServiceError(
                        f"the image could not be pushed to {repository}: {told['error']}",
                        remedy="check TOWPATH_REGISTRY, and that the engine may write to it",
                    )
                digest = told.get("aux", {}).get("Digest", digest)
        reference = f"{repository}@{digest}"
        if not digest or not self.has(reference):
            raise ServiceError(f"{repository} took the image and does not have it")
        return reference

    def has(self, reference: str) -> bool:
        """Whether the registry has an image of that digest. Raises ServiceError when it does not answer."""
        try:
            with translated():
                self._api.inspect_distribution(reference)
        except ServiceError as error:
            cause = error.__cause__
            absent = ("manifest unknown", "not found", "name unknown")
            if isinstance(cause, APIError) and (
                cause.status_code == requests.codes.not_found
                or any(words in str(cause.explanation).lower() for words in absent)
            ):
                return False
            raise
        return True
