"""The redis-server that `towpath up` runs for itself: on a socket in HOME, in memory only."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from time import monotonic, sleep

import redis

from cd.errors import ServiceError, UserError

#: Longest path of a Unix socket, in bytes.
LONGEST = 107


def program() -> str:
    """Path of redis-server. Raises UserError when there is none."""
    found = shutil.which("redis-server")
    if found is None:
        raise UserError(
            "redis-server is not installed", remedy="install it (Debian: redis-server) or set TOWPATH_REDIS_URL"
        )
    return found


def run(socket: Path) -> None:
    """Become the server. What it holds may be lost at any time: the database is the truth."""
    if len(os.fsencode(socket)) > LONGEST:
        raise UserError(f"{socket} is too long for a socket", remedy="choose a shorter --home or set TOWPATH_REDIS_URL")
    path = program()
    options = {
        "port": "0",
        "unixsocket": str(socket),
        "unixsocketperm": "600",
        "save": "",
        "appendonly": "no",
        "dir": str(socket.parent),
        "maxmemory": "256mb",
        "maxmemory-policy": "volatile-lru",
        "loglevel": "warning",
        "logfile": str(socket.parent / "redis.log"),
        "daemonize": "no",
        "hz": "5",
    }
    arguments = [part for name, value in options.items() for part in (f"--{name}", value)]
    os.execv(path, [path, *arguments])  # noqa: S606 - no shell is wanted


def wait(connection: redis.Redis, seconds: float = 10.0) -> None:
    """Until Redis answers. Raises ServiceError with the remedy when it does not in time."""
    until = monotonic() + seconds
    while True:
        try:
            connection.ping()
        except redis.RedisError as error:
            if monotonic() > until:
                raise ServiceError(
                    f"Redis does not answer: {error}", remedy="start it, or check TOWPATH_REDIS_URL"
                ) from error
            sleep(0.02)
        else:
            return
