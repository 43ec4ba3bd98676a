"""Images on an engine: which there are, what each takes of its disk, and letting them go."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import requests
from docker.errors import APIError, ImageNotFound

from cd.sandbox.docker_engine import translated

#: Instructions of a Dockerfile that make a layer even where it holds no bytes.
_LAYERED = ("RUN", "COPY", "ADD", "WORKDIR")


@dataclass(frozen=True)
class Stored:
    """An image that an engine has."""

    id: str
    #: `name:tag` of each of its tags.
    tags: tuple[str, ...]
    #: `name@sha256:…` of the registries that it was pushed to or pulled from.
    digests: tuple[str, ...]
    labels: Mapping[str, str]
    created: datetime
    #: Bytes, with what it shares with others.
    size: int
    #: Id of the image that it was committed on top of; empty for what was built or pulled.
    parent: str = ""


class Stock:
    """The images of one engine, through its API. All calls raise ServiceError when it does not answer."""

    def __init__(self, api: Any) -> None:
        self._api = api

    def images(self) -> list[Stored]:
        """All of them."""
        with translated():
            return [
                Stored(
                    id=one["Id"],
                    tags=tuple(tag for tag in one.get("RepoTags") or () if tag != "<none>:<none>"),
                    digests=tuple(name for name in one.get("RepoDigests") or () if name != "<none>@<none>"),
                    labels=one.get("Labels") or {},
                    created=datetime.fromtimestamp(one["Created"], UTC),
                    size=one["Size"],
                    parent=one.get("ParentId") or "",
                )
                for one in self._api.images()
            ]

    def layers(self, image: str) -> dict[str, int]:
        """Bytes of each layer, by a name that equal layers of several images share; none for an image that is gone."""
        with translated():
            try:
                stack = self._api.inspect_image(image)["RootFS"].get("Layers") or ()
                made = [(one["CreatedBy"], one["Size"]) for one in reversed(self._api.history(image))]
            except ImageNotFound:
                return {}
        return layers(stack, made)

    def in_use(self) -> set[str]:
        """Ids of the images that containers stand on, whether they run or not."""
        with translated():
            return {one["ImageID"] for one in self._api.containers(all=True)}

    def remove(self, image: Stored) -> bool:
        """Take its tags and digests away and with the last the image; False when something still needs it."""
        with translated():
            for name in (*image.tags, *image.digests, image.id):
                try:
                    # Without pruning: what it was committed on top of is somebody's own.
                    self._api.remove_image(name, noprune=True)
                except ImageNotFound:
                    continue  # it went with the name before
                except APIError as error:
                    if error.status_code != requests.codes.conflict:
                        raise
                    return False
        return True

    def prune_cache(self, keep: int) -> int:
        """Drop what builds left for later builds until it takes no more than `keep` bytes; the bytes that it freed."""
        with translated():
            url = self._api._url("/build/prune")
            answer = self._api._post(url, params={"keep-storage": keep, "all": "true"}, timeout=600)
            return int(self._api._result(answer, json=True).get("SpaceReclaimed") or 0)

    def close(self) -> None:
        """Give the connection back."""
        with contextlib.suppress(OSError):
            self._api.close()


def layers(stack: Sequence[str], made: Sequence[tuple[str, int]]) -> dict[str, int]:
    """Size of each layer by the hash of it and all below.

    `stack` are the layers' own digests and `made` the steps of the image's history with their bytes, lowest first.
    The engine does not say which steps made no layer: their instructions do, or failing that, that they are empty.
    """
    told = [size for text, size in made if size or text.split(" ", 1)[0] in _LAYERED]
    if len(told) != len(stack):
        told = [size for _, size in made if size]
    told += [0] * (len(stack) - len(told))
    found, below = {}, ""
    for digest, size in zip(stack, told, strict=False):
        below = hashlib.sha256(f"{below} {digest}".encode()).hexdigest()
        found[below] = size
    return found
