"""What a sandbox must not let through, and how that shows: judgements over what was tried inside of real containers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

#: What a kernel or an engine says of what is not allowed.
REFUSED = frozenset({"EPERM", "EACCES"})
UNWRITABLE = frozenset({"EROFS", "EACCES", "EPERM", "ENOENT", "ENOTDIR"})
UNREACHABLE = frozenset({"ENETUNREACH", "EADDRNOTAVAIL", "EHOSTUNREACH"})
#: Calls for which a missing kernel feature is as good as a refusal.
ABSENT = frozenset({"ENOSYS"})
#: Masked by an empty file where they exist at all.
MASKED = frozenset({"/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/sched_debug"})
LOCAL_FAMILIES = frozenset({"unix", "ip", "ip 6", "netlink"})
VIRTUAL = frozenset({"proc", "tmpfs", "sysfs", "cgroup", "cgroup2", "overlay", "devpts", "mqueue"})
#: Files that every engine puts into a container.
ENGINE_FILES = frozenset({"resolv.conf", "hostname", "hosts", "docker-init"})
NO_CAPABILITIES = "0" * 16


@dataclass(frozen=True)
class Finding:
    """One line of the table: what was tried, whether it was stopped, and what was seen."""

    group: str
    what: str
    blocked: bool
    seen: str


def judge(
    facts: Mapping[str, Any], host: Mapping[str, str], places: Mapping[str, str], group: str
) -> Iterator[Finding]:
    """Findings from what `cd.sandbox.inside` printed.

    `host`: the host's namespaces by name, as links of /proc/self/ns; `places`: what each tried address is.
    """
    for what, blocked, seen in (
        *_privileges(facts),
        *_calls(facts),
        *_files(facts),
        *_namespaces(facts, host),
        *_network(facts, places),
    ):
        yield Finding(group, what, blocked, seen)


Judged = tuple[str, bool, str]


def _privileges(facts: Mapping[str, Any]) -> Iterator[Judged]:
    status = facts["status"]
    for name in ("CapEff", "CapPrm", "CapBnd", "CapInh", "CapAmb"):
        yield f"{name} is empty", status[name] == NO_CAPABILITIES, status[name]
    yield "no new privileges", status["NoNewPrivs"] == "1", f"NoNewPrivs {status['NoNewPrivs']}"
    yield "a seccomp filter", status["Seccomp"] == "2", f"Seccomp {status['Seccomp']}"
    uid = status["Uid"].split()[1]
    yield "it is not root", uid != "0", f"uid {uid}"
    yield "become root", facts["become root"] in REFUSED, facts["become root"]
    yield "make a device", facts["device"] in REFUSED, facts["device"]


def _calls(facts: Mapping[str, Any]) -> Iterator[Judged]:
    for name, outcome in facts["calls"].items():
        yield f"call {name}", outcome in (REFUSED | ABSENT if name != "clone3" else ABSENT), outcome
    yield "clone a user namespace", facts["clone"]["user"] in REFUSED, facts["clone"]["user"]
    narrow = facts["32 bits"]
    yield "calls by 32-bit numbers", narrow in (None, "SIGSYS", "SIGSEGV", 1), str(narrow)
    for name, outcome in facts["sockets"].items():
        if name not in LOCAL_FAMILIES:
            yield f"socket {name}", outcome != "ok", outcome


def _files(facts: Mapping[str, Any]) -> Iterator[Judged]:
    for folder, outcome in facts["writes"].items():
        yield f"write to {folder}", outcome in UNWRITABLE, outcome
    for path, outcome in facts["reads"].items():
        yield f"read {path}", outcome != "ok" or path in MASKED, "empty" if outcome == "ok" else outcome
    real = {PurePosixPath(point).name for point, (kind, _) in facts["mounts"].items() if kind not in VIRTUAL}
    foreign = sorted(real - ENGINE_FILES)
    yield "files of the host", not foreign, ", ".join(foreign) or "none mounted"
    for folder, outcome in facts["scratch"].items():
        kind, options = facts["mounts"].get(folder, ("", ""))
        safe = kind == "tmpfs" and {"nosuid", "nodev"} <= set(options.split(","))
        yield f"{folder} in memory, nosuid, nodev, programs run", safe and outcome == "ok", f"{kind}, {outcome}"


def _namespaces(facts: Mapping[str, Any], host: Mapping[str, str]) -> Iterator[Judged]:
    for name in ("pid", "net", "ipc", "mnt", "uts"):
        yield f"the host's {name} namespace", facts["namespaces"][name] != host.get(name), facts["namespaces"][name]
    count = len(facts["processes"])
    yield "see processes of others", count <= 3, f"{count} to be seen"  # init, the command, and itself


def _network(facts: Mapping[str, Any], places: Mapping[str, str]) -> Iterator[Judged]:
    yield "interfaces besides loopback", facts["interfaces"] == ["lo"], ", ".join(facts["interfaces"])
    yield "routes", not facts["routes"], f"{len(facts['routes'])} routes"
    for address, what in places.items():
        tcp, udp = facts["tcp"][address], facts["udp"][address]
        # Its own loopback is there, and nobody listens on it.
        own = address.startswith("127.")
        blocked = tcp == "ECONNREFUSED" if own else tcp in UNREACHABLE and udp in UNREACHABLE
        yield f"reach {what}", blocked, tcp if own else f"tcp {tcp}, udp {udp}"
    yield "abstract sockets of the host", facts["abstract"] == "ECONNREFUSED", facts["abstract"]
