"""Git among strangers: which URLs and refs are taken, and git itself in an environment made from scratch."""

from __future__ import annotations

import ipaddress
import os
import re
import shlex
import socket
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cd.errors import ServiceError, UserError

# Without git GitPython refuses to be imported; it is told at the first command instead, in one line.
os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
from git.cmd import Git as GitCommand
from git.exc import GitCommandError, GitCommandNotFound

DEFAULT_PORTS = {"https": 443, "http": 80, "ssh": 22}
#: Longest fetch, in seconds, and the largest file that one may write, in bytes.
NETWORK_SECONDS = 600
LARGEST_FILE = 8 << 30
SHA = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")

_SCP = re.compile(r"(?:(?P<user>[A-Za-z0-9_][A-Za-z0-9_.-]*)@)?(?P<host>[A-Za-z0-9.-]+):(?P<path>[^/\\:][^\\:]*)")
_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?\.?")
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.~%:+-]*")
_PATH = re.compile(r"/[A-Za-z0-9_.~%+@/,=:-]+")
#: What git itself allows in no ref. The rest is taken as it is: no shell ever sees it.
_RISKY = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]")
#: urlsplit drops tabs and newlines without a word.
_PLAIN = re.compile(r"[!-~]{1,2000}")
_CREDENTIALS = re.compile(r"(?<=://)[^/\s@']+(?=@)")
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


@dataclass(frozen=True)
class Remote:
    """A clone URL that was looked at. `internal`: an admin lists the host as one with private addresses."""

    url: str
    scheme: str
    host: str
    port: int
    internal: bool


@dataclass(frozen=True)
class Place:
    """A remote with the addresses that git is held to, so that a second look-up can't lead elsewhere."""

    remote: Remote
    addresses: tuple[str, ...]


def check_url(url: str, internal_hosts: Collection[str] = frozenset()) -> Remote:
    """Look at a clone URL without asking the network. Raises UserError for what is never fetched from."""
    shown = redact(url)
    if not _PLAIN.fullmatch(url):
        raise _refused(shown, "a URL has no blanks and is at most 2,000 characters long")
    scp = _SCP.fullmatch(url)
    login = f"{scp['user']}@" if scp and scp["user"] else ""
    try:
        parts = urlsplit(f"ssh://{login}{scp['host']}/{scp['path']}" if scp else url)
        port = parts.port
    except ValueError as error:
        raise _refused(shown, "this is not a URL") from error
    host = (parts.hostname or "").rstrip(".")
    internal = host in {name.lower().rstrip(".") for name in internal_hosts}
    if parts.scheme not in ("https", "ssh") and not (parts.scheme == "http" and internal):
        raise _refused(shown, "only https and ssh are fetched from")
    if parts.query or parts.fragment or not _PATH.fullmatch(parts.path) or "/../" in parts.path + "/":
        raise _refused(shown, "the path of this URL has characters that are not taken")
    user = (parts.netloc.rpartition("@")[0]) or None
    if not _named(host) or (user is not None and not _USER.fullmatch(user)):
        raise _refused(shown, "the host or user of this URL has characters that are not taken")
    if not internal and (literal := _literal(host)) and not _public(literal):
        raise _private(host)
    return Remote(url, parts.scheme, host, port or DEFAULT_PORTS[parts.scheme], internal)


def _named(host: str) -> bool:
    return bool(_HOST.fullmatch(host)) or _literal(host) is not None


def _literal(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _refused(shown: str, why: str) -> UserError:
    return UserError(f"{shown!r}: {why}", remedy="give a clone URL such as https://forge.example/team/shop.git")


def _private(host: str) -> UserError:
    return UserError(
        f"{host} is an address of the inner network, which is not fetched from",
        remedy="an admin can list the host in TOWPATH_GIT_INTERNAL_HOSTS",
    )


def locate(remote: Remote) -> Place:
    """Resolve the host once. Raises UserError for private addresses, ServiceError when there is no answer."""
    try:
        found = socket.getaddrinfo(remote.host, remote.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise ServiceError(f"the host {remote.host} can't be found: {error}", remedy="check the clone URL") from error
    addresses = tuple(dict.fromkeys(str(entry[4][0]) for entry in found))
    if not addresses:
        raise ServiceError(f"the host {remote.host} has no address", remedy="check the clone URL")
    if not remote.internal and not all(_public(ipaddress.ip_address(one.split("%")[0])) for one in addresses):
        raise _private(remote.host)
    return Place(remote, addresses)


def _public(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Whether an address is out in the internet, also the one wrapped in an IPv6 address."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if inner is None and address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return _public(inner)
    return address.is_global and not address.is_multicast


def check_ref(ref: str) -> str:
    """A full ref that can be taken. Raises UserError."""
    parts = ref.split("/")
    odd = any(not part or part.startswith((".", "-")) or part.endswith((".lock", ".")) for part in parts)
    if parts[0] != "refs" or len(parts) < 3 or odd or ".." in ref or "@{" in ref or _RISKY.search(ref):
        raise UserError(
            f"the ref {ref[:200]!r} has characters that are not taken",
            remedy="use a name that `git check-ref-format` takes",
        )
    return ref


def check_sha(sha: str) -> str:
    """A full commit id. Raises UserError."""
    if not SHA.fullmatch(sha):
        raise UserError(f"{sha[:80]!r} is not a commit id", remedy="give all 40 hexadecimal digits")
    return sha


def redact(text: str) -> str:
    """Text without user and password of the URLs in it."""
    return _CREDENTIALS.sub("***", text)


def environment(home: Path, protocols: str) -> dict[str, str]:
    """All that git gets to know. `home` holds the known hosts of ssh; `protocols` as in GIT_ALLOW_PROTOCOL."""
    return {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "HOME": str(home),
        "LC_ALL": "C",
        "GIT_ALLOW_PROTOCOL": protocols,
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_ATTR_NOSYSTEM": "1",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ASKPASS": "/bin/false",
        "GIT_NO_REPLACE_OBJECTS": "1",
        "GIT_OPTIONAL_LOCKS": "0",
    }


#: Options that no repository's own configuration may undo.
GUARDS: Mapping[str, str] = {
    "core.hooksPath": "/dev/null",
    "core.fsmonitor": "false",
    "core.symlinks": "true",
    "core.protectNTFS": "false",
    "credential.helper": "",
    "fetch.fsckObjects": "true",
    "transfer.fsckObjects": "true",
    "transfer.bundleURI": "false",
    "fetch.recurseSubmodules": "false",
    "submodule.recurse": "false",
    "gc.auto": "0",
    "maintenance.auto": "false",
    "http.followRedirects": "false",
    "protocol.version": "2",
}


def options(settings: Mapping[str, str]) -> list[str]:
    """As `-c name=value`."""
    return [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]


def pinned(place: Place, ca_file: str, known_hosts: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Configuration and variables that hold git to the addresses that were looked at."""
    remote = place.remote
    if remote.scheme == "ssh":
        ssh = [
            "ssh", "-F", "/dev/null", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=accept-new",
            "-o", f"UserKnownHostsFile={known_hosts}", "-o", f"HostName={place.addresses[0]}",
            "-o", f"HostKeyAlias={remote.host}", "-o", "ConnectTimeout=20", "-o", "ForwardAgent=no",
        ]  # fmt: skip
        return {}, {"GIT_SSH_COMMAND": shlex.join(ssh), "GIT_SSH_VARIANT": "ssh"}
    addresses = ",".join(f"[{one}]" if ":" in one else one for one in place.addresses)
    config = {
        "http.curloptResolve": f"{remote.host}:{remote.port}:{addresses}",
        "http.proxy": "",
        "http.lowSpeedLimit": "1000",
        "http.lowSpeedTime": "60",
    }
    if ca_file:
        config["http.sslCAInfo"] = ca_file
    return config, {}


class Git:
    """Runs git on one bare repository and nothing else. Arguments are lists; no shell sees them."""

    def __init__(self, repository: Path, home: Path, place: Place | None = None, ca_file: str = "") -> None:
        self.repository = repository
        protocols = "file" if place is None else "http:https:ssh" if place.remote.internal else "https:ssh"
        config, extra = pinned(place, ca_file, home / "known_hosts") if place else ({}, {})
        self._variables = {**environment(home, protocols), **extra}
        self._config = {**GUARDS, **config}
        self._runner = GitCommand(str(home))
        self._network = place is not None

    def command(self, *arguments: str, variables: Mapping[str, str] | None = None) -> list[str]:
        """The whole command, with the variables and limits it runs under."""
        told = [f"{name}={value}" for name, value in {**self._variables, **(variables or {})}.items()]
        limits = ["timeout", "--kill-after=5", str(NETWORK_SECONDS), "prlimit", f"--fsize={LARGEST_FILE}"]
        git = ["git", f"--git-dir={self.repository}", *options(self._config), *arguments]
        return ["/usr/bin/env", "-i", *told, *(limits if self._network else ()), *git]

    def run(self, *arguments: str, variables: Mapping[str, str] | None = None) -> str:
        """What git says. Raises GitFailed."""
        try:
            said = self._runner.execute(self.command(*arguments, variables=variables), with_extended_output=True)
        except GitCommandNotFound as error:
            raise ServiceError("git is not installed", retryable=False, remedy="install git 2.37 or newer") from error
        except GitCommandError as error:
            raise GitFailed(_status(error), redact(str(error.stderr))) from error
        return str(said[1])

    def start(self, arguments: Sequence[str], **popen: Any) -> Any:
        """A running git to talk to, as GitPython's AutoInterrupt."""
        return self._runner.execute(self.command(*arguments), as_process=True, **popen)


def _status(error: GitCommandError) -> int:
    return error.status if isinstance(error.status, int) else 1


class GitFailed(ServiceError):
    """Git ended with an error; `stderr` are its words without credentials."""

    def __init__(self, status: int, stderr: str) -> None:
        self.status = status
        self.stderr = stderr.strip().removeprefix("stderr: ").strip("'").strip()
        super().__init__(f"git failed: {self._last() or f'exit code {status}'}")

    def _last(self) -> str:
        lines = [line.strip() for line in self.stderr.splitlines() if line.strip()]
        return next((line for line in lines if line.startswith(("fatal:", "error:"))), lines[-1] if lines else "")
