"""The proxy's configuration, as text. Each one names the deployment that it serves on the status port."""

from __future__ import annotations

from cd.promote.targets.options import STATUS_PORT, TRAFFIC_PORT

#: Seconds that connections of before a switch may last.
DRAIN = 10

_HEAD = f"""global
    maxconn 4096
    hard-stop-after {DRAIN}s

defaults
    mode http
    timeout connect 2s
    timeout client 60s
    timeout server 60s
    timeout http-request 10s
    timeout http-keep-alive 5s
    timeout tunnel 1h
    retries 3
    option redispatch
    option idle-close-on-response
    option forwardfor

resolvers engine
    nameserver dns 127.0.0.11:53
    timeout resolve 1s
    timeout retry 1s
    hold valid 1s

frontend traffic
    bind :{TRAFFIC_PORT}
    default_backend app

backend app
"""


def config(deployment: int, server: str | None) -> str:
    """Send traffic to `server` ("name:port" in the proxy's network), or answer 503 when it is None.

    `deployment` is what the status port says. The server is looked up again all the time: a container that
    restarts may get another address.
    """
    backend = (
        f"    server app {server} resolvers engine init-addr libc,none\n"
        if server
        else "    http-request return status 503\n"
    )
    return f"""{_HEAD}{backend}
frontend status
    bind :{STATUS_PORT}
    http-request return status 200 content-type text/plain string "{deployment}"
"""
