"""Files out of a pod: read as an archive once its command has ended, or kept as an image for a look later."""

from __future__ import annotations

import contextlib
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Any

from docker.errors import APIError, NotFound

from cd.errors import NotFound as NoSuchPath
from cd.errors import ServiceError, TooLarge
from cd.sandbox.base import Kept
from cd.sandbox.options import SCRATCH, SECRETS_LABEL, holder_name

#: Bytes read at once.
BLOCK = 1 << 18


def read(api: Any, name: str, path: str) -> Iterator[bytes]:
    """A tar of `path` out of the pod of `name`. Raises NotFound, ServiceError."""
    try:
        stream, _ = api.get_archive(holder_name(name), path, chunk_size=BLOCK)
        yield from stream
    except NotFound as error:
        if "No such container" in str(error.explanation):
            raise ServiceError(f"the engine no longer has the files of {name}") from error
        raise NoSuchPath("there is no such file", where=path) from error
    except APIError as error:
        raise ServiceError(f"the engine could not read {path}: {error.explanation}") from error


def snapshot(api: Any, name: str, tag: str, limit: int) -> Kept:
    """Keep /work and /tmp of the pod of `name` as an image on top of its command's. Raises TooLarge, ServiceError.

    The secrets of its environment are left out of the image's, and blanked out of the files and their names.
    """
    command = api.inspect_container(name)
    hidden = set(command["Config"]["Labels"].get(SECRETS_LABEL, "").split())
    env = [line for line in command["Config"]["Env"] if line.partition("=")[0] not in hidden]
    values = [line.partition("=")[2].encode() for line in command["Config"]["Env"] if line.partition("=")[0] in hidden]
    body = {
        "Image": command["Image"],
        "Env": env,
        "User": command["Config"]["User"],
        "Entrypoint": ["/bin/sh"],
        "Cmd": [],
        "Labels": {**command["Config"]["Labels"], "towpath.kind": "snapshot"},
        "HostConfig": {"NetworkMode": "none"},
    }
    # One that a killed worker left is half of a snapshot.
    with contextlib.suppress(NotFound):
        api.remove_container(f"{name}-snapshot", force=True)
    made = api.create_container_from_config(body, f"{name}-snapshot")["Id"]
    try:
        counter = _Counter(limit)
        for folder in SCRATCH:
            api.put_archive(made, "/", cleaned(counter.count(read(api, name, folder)), values))
        repository, _, version = tag.rpartition(":")
        image = api.commit(made, repository=repository, tag=version)["Id"]
    finally:
        api.remove_container(made, force=True)
    return Kept(str(image), counter.size)


class _Counter:
    """Lets pass so many bytes and no more."""

    def __init__(self, limit: int) -> None:
        self.size, self._limit = 0, limit

    def count(self, data: Iterable[bytes]) -> Iterator[bytes]:
        for block in data:
            self.size += len(block)
            if self.size > self._limit:
                raise TooLarge(
                    f"/work and /tmp hold more than {self._limit >> 20} MiB, and are not kept",
                    remedy="raise TOWPATH_SNAPSHOT_LIMIT, or leave less there",
                )
            yield block


def cleaned(archive: Iterator[bytes], values: Sequence[bytes]) -> Iterator[bytes]:
    """The same tar with each of `values` written over by stars, in what files hold and in what they are called."""
    texts = [value.decode(errors="surrogateescape") for value in values if value]
    stream: Any = _Stream(archive)
    with tarfile.open(fileobj=stream, mode="r|", bufsize=BLOCK, encoding="utf-8", errors="surrogateescape") as tar:
        while (member := tar.next()) is not None:
            vars(tar)["members"] = []  # it would keep all of them
            for text in texts:
                member.name = member.name.replace(text, "*" * len(text))
                member.linkname = member.linkname.replace(text, "*" * len(text))
            member.pax_headers = {}  # made anew, from these names
            yield member.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
            if (file := tar.extractfile(member) if member.isreg() else None) is not None:
                yield from blanked(iter(partial(file.read, BLOCK), b""), values)
                yield bytes(-member.size % tarfile.BLOCKSIZE)
    yield bytes(2 * tarfile.BLOCKSIZE)


class _Stream:
    """What tarfile reads from: the pieces end to end."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces, self._rest = pieces, b""

    def read(self, size: int) -> bytes:
        while len(self._rest) < size and (piece := next(self._pieces, None)) is not None:
            self._rest += piece
        found, self._rest = self._rest[:size], self._rest[size:]
        return found


def blanked(data: Iterable[bytes], values: Sequence[bytes]) -> Iterator[bytes]:
    """The same bytes with each of `values` written over by stars, across the borders of blocks too."""
    wanted = sorted((value for value in values if value), key=len, reverse=True)
    longest = max(map(len, wanted), default=1)
    left = b""
    for block in data:
        buffer = left + block
        for value in wanted:
            buffer = buffer.replace(value, b"*" * len(value))
        cut = max(0, len(buffer) - longest + 1)
        left = buffer[cut:]
        yield buffer[:cut]
    yield left
