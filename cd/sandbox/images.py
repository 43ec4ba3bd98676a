"""Images on an engine: is it there, and fetch it by its digest where it is not."""

from __future__ import annotations

from typing import Any

from docker.errors import APIError, ImageNotFound

from cd.errors import ServiceError


def exists(api: Any, reference: str) -> bool:
    """Whether the engine has the image."""
    try:
        api.inspect_image(reference)
    except ImageNotFound:
        return False
    return True


def pull(api: Any, reference: str) -> None:
    """Fetch an image by its digest. Raises ServiceError when it is not in a registry, or not there."""
    name, at, digest = reference.partition("@")
    if not at:
        raise ServiceError(f"image {reference} is not on this engine", remedy="run it again: it will be built")
    try:
        for told in api.pull(name, tag=digest, stream=True, decode=True):
            if "error" in told:
                raise ServiceError(f"image {reference} could not be pulled: {told['error']}")
    except APIError as error:
        raise ServiceError(
            f"image {reference} could not be pulled: {error.explanation}",
            remedy="check that the engine reaches the registry and may read from it",
        ) from error
