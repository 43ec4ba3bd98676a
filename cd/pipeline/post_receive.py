"""The post-receive hook of hosted repositories: tells Towpath of a push, and keeps it while Towpath is away.

This file is copied into each repository and run by itself: it may import the standard library only, and little
of that, for it stands between `git push` and its end. Beside it lies `towpath/hook.json` with `url` (where webhooks
of all projects go), `shown` (the address for people), `project` and `secret`.
"""

from __future__ import annotations

import binascii
import hmac
import json
import os
import socket
import sys
import time
import zlib

FOLDER = "towpath"
SPOOL = "towpath/spool"
#: Seconds to wait for Towpath's answer; the push is kept all the same.
PATIENCE = 10.0
LONGEST_MESSAGE = 16_384
LARGEST_ANSWER = 1 << 20


class Away(Exception):
    """Towpath did not answer."""


def main() -> None:
    """Read git's lines of old, new and ref, and hand each over."""
    with open(f"{FOLDER}/hook.json", encoding="utf-8") as file:
        told = json.load(file)
    away = ""
    for line in sys.stdin.buffer:
        before, after, ref = line.decode(errors="replace").rstrip("\n").split(" ", 2)
        if ref.startswith(("refs/heads/", "refs/tags/")):
            away = _push(told, before, after, ref, away)
    if away:
        print(f"Towpath: {away}; the push is kept and will be delivered")


def _push(told: dict[str, str], before: str, after: str, ref: str, away: str) -> str:
    """Keep one push, then deliver it; once Towpath was found away it is not asked again. Returns why it is away."""
    name, body = f"msg_{binascii.hexlify(os.urandom(16)).decode()}", payload(before, after, ref)
    path = keep(name, body)
    if away:
        return away
    try:
        status, answer = post(told, name, body)
    except (OSError, Away) as error:
        return f"no answer ({error})"
    if not (200 <= status < 300 or status == 409):
        return f"answered {status} {answer.get('detail') or answer.get('title') or ''}".rstrip()
    os.unlink(path)
    say(told, answer)
    return ""


def payload(before: str, after: str, ref: str) -> bytes:
    """The JSON of one push."""
    deleted = not after.strip("0")
    content = {
        "type": "push",
        "ref": ref,
        "before": before,
        "after": after,
        "deleted": deleted,
        "commit": None if deleted else commit(after),
        "pusher": pusher(),
        "created_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    return json.dumps(content).encode()


def pusher() -> str:
    """Who pushed: as the web server or the forced command of ssh says, else the account that runs this."""
    named = os.environ.get("REMOTE_USER")
    if named:
        return named
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def commit(sha: str) -> dict[str, str]:
    """Id, message and author of a commit, or of the one that a tag names."""
    kind, raw = read(sha)
    while kind == "tag":
        sha = raw.split(b"\n", 1)[0].split(b" ")[1].decode()
        kind, raw = read(sha)
    head, _, message = raw.partition(b"\n\n")
    author = next((line[7:] for line in head.split(b"\n") if line.startswith(b"author ")), b"")
    return {
        "id": sha,
        "message": message.decode(errors="replace")[:LONGEST_MESSAGE],
        "author": author[: author.rfind(b">") + 1].decode(errors="replace"),
    }


def read(sha: str) -> tuple[str, bytes]:
    """Type and content of an object. A small push leaves loose files, which are read without another process."""
    try:
        with open(f"objects/{sha[:2]}/{sha[2:]}", "rb") as file:
            head, _, content = zlib.decompress(file.read()).partition(b"\0")
    except OSError:
        return packed(sha)
    return head.split(b" ")[0].decode(), content


def packed(sha: str) -> tuple[str, bytes]:
    """The same through git."""
    import subprocess

    said = subprocess.run(["git", "cat-file", "--batch"], input=sha.encode(), stdout=subprocess.PIPE, check=True).stdout
    head, _, content = said.partition(b"\n")
    return head.split(b" ")[1].decode(), content[:-1]


def keep(name: str, body: bytes) -> str:
    """Write the push down until it is delivered."""
    path = f"{SPOOL}/{time.time_ns()}-{name}.json"
    with open(f"{path}.new", "wb") as file:
        file.write(body)
    os.rename(f"{path}.new", path)
    return path


def sign(secret: str, name: str, at: str, body: bytes) -> str:
    """The signature of Standard Webhooks."""
    key = binascii.a2b_base64(secret.removeprefix("whsec_"))
    mac = hmac.digest(key, f"{name}.{at}.".encode() + body, "sha256")
    return "v1," + binascii.b2a_base64(mac, newline=False).decode()


def headers(secret: str, name: str, body: bytes) -> dict[str, str]:
    """What goes with a delivery, signed now."""
    at = str(int(time.time()))
    return {
        "content-type": "application/json",
        "webhook-id": name,
        "webhook-timestamp": at,
        "webhook-signature": sign(secret, name, at, body),
    }


def post(told: dict[str, str], name: str, body: bytes) -> tuple[int, dict[str, object]]:
    """Deliver; returns status and the answer's JSON. Raises OSError or Away."""
    scheme, _, rest = told["url"].partition("://")
    place, _, prefix = rest.partition("/")
    path = f"/{prefix}/{told['project']}" if prefix else f"/{told['project']}"
    sent = headers(told["secret"], name, body)
    status, raw = (tls if scheme == "https" else plain)(place, path, sent, body)
    try:
        answer = json.loads(raw)
    except ValueError:
        answer = {}
    return status, answer if isinstance(answer, dict) else {}


def plain(place: str, path: str, sent: dict[str, str], body: bytes) -> tuple[int, bytes]:
    """POST over a bare socket: importing http.client alone takes longer than all of this."""
    host, _, port = place.rpartition(":") if place.rpartition(":")[2].isdigit() else (place, "", "80")
    lines = [f"POST {path} HTTP/1.0", f"host: {place}", f"content-length: {len(body)}"]
    lines += [f"{header}: {value}" for header, value in sent.items()]
    with socket.create_connection((host.strip("[]"), int(port)), timeout=PATIENCE) as connection:
        connection.sendall("\r\n".join([*lines, "", ""]).encode() + body)
        answer = bytearray()
        while len(answer) < LARGEST_ANSWER and (data := connection.recv(65536)):
            answer += data
    head, _, rest = bytes(answer).partition(b"\r\n\r\n")
    words = head.split(b" ", 2)
    if not head.startswith(b"HTTP/") or not words[1].isdigit():
        raise Away("it does not speak HTTP")
    return int(words[1]), rest


def tls(place: str, path: str, sent: dict[str, str], body: bytes) -> tuple[int, bytes]:
    """The same over TLS."""
    import http.client

    connection = http.client.HTTPSConnection(place, timeout=PATIENCE)
    try:
        connection.request("POST", path, body, sent)
        response = connection.getresponse()
        return response.status, response.read(LARGEST_ANSWER)
    except http.client.HTTPException as error:
        raise Away(str(error) or type(error).__name__) from error
    finally:
        connection.close()


def say(told: dict[str, str], answer: dict[str, object]) -> None:
    """One line for the one who pushed."""
    run = answer.get("run")
    number = run.get("number") if isinstance(run, dict) else run
    if number is not None:
        print(f"Towpath: run #{number} {told['shown']}/projects/{told['project']}/runs/{number}")
    elif answer.get("reason"):
        print(f"Towpath: {answer['reason']}")


if __name__ == "__main__":
    try:
        main()
    except Exception as error:  # noqa: BLE001 - whoever pushed gets one line, not a traceback
        print(f"Towpath: the hook failed: {type(error).__name__}: {error}")
