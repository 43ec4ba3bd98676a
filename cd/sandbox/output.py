"""The way of a container's output from the engine into a sink: quick, in constant memory, from where the sink ends."""

from __future__ import annotations

import contextlib
import http.client
import struct
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from time import sleep
from typing import Any

import requests
from urllib3.exceptions import HTTPError

from cd.errors import ServiceError
from cd.sandbox.base import Sink

#: Bytes asked for at once.
BLOCK = 1 << 18
#: The engine wakes its reader for every line. Seconds that the reader waits after a look that gave it less than so many
#: bytes, so that lines come together: a stage that prints without end is read a fifth faster for it.
TOGETHER, ENOUGH = 0.0005, 4096
#: The engine stamps the lines of both streams before it writes them, so that neighbours may stand in the wrong order;
#: a resumed reading begins this much earlier, in nanoseconds, and looks for the entry itself.
MARGIN = 2_000_000_000
#: Beyond so many bytes the end of an output is first looked for among its last lines, so many of them: the engine would
#: go through all of it otherwise.
LARGE, LAST_LINES = 1 << 20, 1000
#: Header of an entry; its time, of fixed width, with a blank; how much of it is seconds and milliseconds.
HEADER, STAMP, MILLISECONDS = 8, 31, 23
#: The log that holds any byte as it came and is never turned over; both ends of it are ours.
LOG_CONFIG = {"Type": "local", "Config": {"max-size": "1000g", "max-file": "1", "compress": "false"}}

#: No entry has this time.
NOWHERE = b"nowhere"

_size = struct.Struct(">L").unpack_from
_MINUTE: dict[bytes, int] = {}


def copy(api: Any, name: str, into: Sink, limit: int) -> bool:
    """Read what the container wrote beyond `into.position` until the engine has no more for now.

    Returns True when the output is larger than `limit` bytes; the rest is not read. What the sink raises comes out.
    """
    return bool(_read(api, name, into, limit, follow=True))


def rest(api: Any, name: str, into: Sink, limit: int) -> bool:
    """The same for a container that has ended: what the engine kept back when it stopped following."""
    if into.since and into.position > LARGE:
        flooded = _read(api, name, into, limit, tail=LAST_LINES)
        if flooded is not None:
            return flooded
    return bool(_read(api, name, into, limit))


def _read(api: Any, name: str, into: Sink, limit: int, *, follow: bool = False, tail: int = 0) -> bool | None:
    """As `copy`; None when the entry to go on from is not among the `tail` last ones."""
    entries = _Entries(into.since, into.since_at, tail=bool(tail))
    query = f"stdout=1&stderr=1&timestamps=1&follow={int(follow)}"
    if tail:
        query += f"&tail={tail}"
    elif into.since:
        since = max(0, into.since - MARGIN)
        query += f"&since={since // 10**9}.{since % 10**9:09}"
    with _opened(api, f"/containers/{name}/logs?{query}") as stream:
        while block := _block(stream):
            at, data, times = entries.feed(block)
            skip = into.position - at
            if skip >= len(data):
                continue
            if skip > 0:
                data = data[skip:]
                times = [(offset - skip, time) for offset, time in times if offset >= skip]
            if into.position + len(data) > limit:
                into.write(data[: limit - into.position], times)
                return True
            into.write(data, times)
    if entries.lost and tail:
        return None
    if entries.lost:
        raise ServiceError(f"the engine no longer has the beginning of {name}'s output", retryable=True)
    return False


def _block(stream: Any) -> bytes:
    try:
        data: bytes = stream.read1(BLOCK)
        if 0 < len(data) < ENOUGH:
            sleep(TOGETHER)
    except (OSError, http.client.HTTPException) as error:
        raise ServiceError(f"the Docker engine broke off: {error}") from error
    return data


class _Entries:
    """Takes the engine's stream apart; a reading that is resumed passes over what lies before its entry.

    In a `tail` the entry counts only behind another one: the first of it could be the second of two at one moment.
    """

    def __init__(self, since: int, since_at: int, *, tail: bool = False) -> None:
        self._wanted = _stamp(since) if since else b""
        self._first = tail
        self._position = since_at if since else 0
        self._left = b""
        self._last = b""

    @property
    def lost(self) -> bool:
        """Whether the entry that the reading was to go on from did not come."""
        return bool(self._wanted)

    def feed(self, block: bytes) -> tuple[int, bytes, list[tuple[int, int]]]:
        """Position of the bytes that came, the bytes, and (offset, ns) where the time moved on by a millisecond."""
        buffer = self._left + block if self._left else block
        parts: list[bytes] = []
        times: list[tuple[int, int]] = []
        last, wanted, length = self._last, self._wanted, 0
        at, end = 0, len(buffer)
        while at + HEADER <= end:
            following = at + HEADER + _size(buffer, at + 4)[0]
            if following > end:
                break
            begin = at + HEADER + STAMP
            if wanted:
                found = buffer[at + HEADER : begin - 1] == wanted
                if found and self._first:
                    wanted = NOWHERE
                self._first = False
                if not found or wanted == NOWHERE:
                    at = following
                    continue
                wanted = b""
            moment = buffer[at + HEADER : at + HEADER + MILLISECONDS]
            if moment != last:
                times.append((length, _nanoseconds(buffer[at + HEADER : begin - 1])))
                last = moment
            parts.append(buffer[begin:following])
            length += following - begin
            at = following
        self._left, self._last, self._wanted = buffer[at:], last, wanted
        position, self._position = self._position, self._position + length
        return position, b"".join(parts), times


def _nanoseconds(stamp: bytes) -> int:
    """The engine's RFC 3339 with nine digits as ns since 1970."""
    minute = stamp[:17]
    seconds = _MINUTE.get(minute)
    if seconds is None:
        _MINUTE.clear()
        told = datetime.fromisoformat(minute.decode() + "00").replace(tzinfo=UTC)
        seconds = _MINUTE[minute] = int(told.timestamp())
    return (seconds + int(stamp[17:19])) * 10**9 + int(stamp[20:29])


def _stamp(nanoseconds: int) -> bytes:
    """The other way round."""
    told = datetime.fromtimestamp(nanoseconds // 10**9, UTC)
    return f"{told:%Y-%m-%dT%H:%M:%S}.{nanoseconds % 10**9:09}Z".encode()


@contextlib.contextmanager
def _opened(api: Any, path: str) -> Iterator[Any]:
    """The body of an answer as a file. By HTTP/1.0, for which the engine does not wrap each line in a chunk of its own:
    taking those apart costs more than all the rest.
    """
    url = f"{api.base_url}/v{api.api_version}{path}"
    request = requests.Request("GET", url).prepare()
    pool = api.get_adapter(url).get_connection_with_tls_context(request, api.verify, cert=api.cert)
    connection = pool._new_conn()
    connection._http_vsn, connection._http_vsn_str = 10, "HTTP/1.0"
    try:
        # The answer has taken the socket over.
        with contextlib.closing(_asked(connection, request.path_url)) as answer:
            yield answer
    finally:
        connection.close()


def _asked(connection: Any, path: str) -> Any:
    try:
        connection.timeout = None
        connection.request("GET", path)
        answer = http.client.HTTPConnection.getresponse(connection)
        told = "" if answer.status == requests.codes.ok else answer.read(1000).decode(errors="replace").strip()
    except (OSError, http.client.HTTPException, HTTPError) as error:
        raise ServiceError(
            f"the Docker engine does not answer: {error}",
            remedy="start it, or set TOWPATH_DOCKER_HOST to one that runs",
        ) from error
    if told or answer.status != requests.codes.ok:
        raise ServiceError(f"the engine has no output of that container: {told}")
    return answer


class Memory:
    """A sink that keeps everything in memory: for small outputs."""

    def __init__(self, position: int = 0, since: int = 0, since_at: int = 0) -> None:
        self.position, self.since, self.since_at = position, since, since_at
        self.data = bytearray()
        self.times: list[tuple[int, int]] = []

    def write(self, data: bytes, times: Sequence[tuple[int, int]] = ()) -> None:
        """See cd.sandbox.base.Sink."""
        self.times += [(self.position + offset, time) for offset, time in times]
        if times:
            self.since_at, self.since = self.position + times[-1][0], times[-1][1]
        self.data += data
        self.position += len(data)
