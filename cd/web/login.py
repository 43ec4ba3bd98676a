"""Names and passwords: checked slowly, and only so often a minute."""

from __future__ import annotations

import hashlib
import threading
from time import monotonic
from typing import TYPE_CHECKING

import redis
import structlog

from cd.errors import Unauthorized, UserError
from cd.identity import users
from cd.identity.people import Person

if TYPE_CHECKING:
    from cd.wiring import Services

log = structlog.get_logger()

#: Failed attempts that one address may make for one user in `SECONDS`.
ATTEMPTS, SECONDS = 10, 60

#: Counts of this process while Redis is away, each with the time at which it begins anew.
_own: dict[str, tuple[int, float]] = {}
_turn = threading.Lock()


class TooMany(UserError):
    """More attempts than are allowed in a minute."""

    status = 429


def check(services: Services, username: str, password: str, address: str) -> Person:
    """The person whose name and password these are. Raises Unauthorized, and TooMany before anything is checked."""
    key = "towpath:login:" + hashlib.sha256(f"{username.lower()}\n{address}".encode(errors="replace")).hexdigest()
    if _count(services.redis, key, 1) > ATTEMPTS:
        raise TooMany("too many failed attempts to sign in", remedy=f"wait for {SECONDS} seconds, then try again")
    with services.database.read() as session:
        found = users.verify(session, username, password)
    if found is None:
        log.warning("login.refused", username=username[:64], address=address)
        raise Unauthorized("user name or password is wrong", remedy="try again, or ask an admin to set a new one")
    _count(services.redis, key, -1)
    return found


def _count(connection: redis.Redis, key: str, step: int) -> int:
    """Counted before the password is looked at, so that attempts at the same time don't slip through."""
    try:
        pipe = connection.pipeline()
        pipe.set(key, 0, ex=SECONDS, nx=True)
        pipe.incrby(key, step)
        return int(pipe.execute()[1])
    except redis.RedisError:
        return _count_here(key, step)


def _count_here(key: str, step: int) -> int:
    at = monotonic()
    with _turn:
        for known in [known for known, (_, until) in _own.items() if until < at]:
            del _own[known]
        count, until = _own.get(key, (0, at + SECONDS))
        _own[key] = count + step, until
        return count + step
