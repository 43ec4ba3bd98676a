"""One HTTP request to a container, with a deadline for all of it."""

from __future__ import annotations

import re
import socket
import time
from dataclasses import dataclass

MAX_HEAD = 64 << 10


@dataclass(frozen=True)
class Probe:
    """What came back. `refused`: nothing listens there (yet)."""

    ok: bool
    text: str
    refused: bool = False
    body: str = ""


def get(ip: str, port: int, path: str, timeout: float, *, whole: bool = False) -> Probe:
    """GET the path; a status of 200 to 399 is good. `timeout` in seconds; `whole`: read the answer to its end."""
    until = time.monotonic() + timeout
    try:
        with socket.create_connection((ip, port), timeout) as connection:
            connection.sendall(_request(ip, port, path))
            return _judge(_read(connection, until, whole))
    except ConnectionRefusedError:
        return Probe(False, f"port {port}: connection refused", refused=True)
    except TimeoutError:
        return Probe(False, f"no answer within {timeout:g} s")
    except OSError as error:
        return Probe(False, error.strerror or str(error))


def _request(ip: str, port: int, path: str) -> bytes:
    head = f"GET {path} HTTP/1.1\r\nHost: {ip}:{port}\r\nUser-Agent: towpath-probe\r\nConnection: close\r\n\r\n"
    return head.encode()


def _read(connection: socket.socket, until: float, whole: bool) -> bytes:
    data = b""
    while (whole or b"\r\n" not in data) and len(data) < MAX_HEAD:
        left = until - time.monotonic()
        if left <= 0:
            raise TimeoutError
        connection.settimeout(left)
        more = connection.recv(4096)
        if not more:
            break
        data += more
    return data


def _judge(data: bytes) -> Probe:
    status = re.match(rb"HTTP/1\.[01] (\d{3})[ \r]", data)
    if status is None:
        return Probe(False, "the connection was closed without an answer" if not data else "the answer is not HTTP")
    code = int(status[1])
    body = data.partition(b"\r\n\r\n")[2].decode(errors="replace").strip()
    return Probe(200 <= code < 400, f"HTTP {code}", body=body)
