"""Runs inside a sandboxed container with nothing but Python, tries what must not work, and prints what came of it.

The arguments: name of an abstract Unix socket, then addresses as host:port; it tries to reach them. It is handed to
the container as text, so it imports nothing of Towpath; `cd.sandbox.probes` judges what it prints.
"""

import ctypes
import errno
import json
import mmap
import os
import platform
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

libc = ctypes.CDLL(None, use_errno=True)
ARM = platform.machine() == "aarch64"

#: Number on x86_64, number on aarch64, arguments that a kernel without a filter would at least look at.
CALLS: dict[str, tuple[int, int, tuple[Any, ...]]] = {
    "io_uring_setup": (425, 425, (1, ctypes.create_string_buffer(120))),
    "io_uring_enter": (426, 426, (-1, 0, 0, 0, 0, 0)),
    "io_uring_register": (427, 427, (-1, 0, 0, 0)),
    "unshare user": (272, 97, (0x10000000,)),
    "unshare net": (272, 97, (0x40000000,)),
    "unshare mount": (272, 97, (0x00020000,)),
    "unshare nothing": (272, 97, (0,)),
    "setns": (308, 268, (-1, 0)),
    "mount": (165, 40, (b"none", b"/tmp", b"tmpfs", 0, 0)),
    "umount": (166, 39, (b"/proc", 0)),
    "pivot_root": (155, 41, (b"/tmp", b"/tmp")),
    "fsopen": (430, 430, (b"tmpfs", 0)),
    "open_tree": (428, 428, (-100, b"/", 0)),
    "move_mount": (429, 429, (-1, b"", -1, b"", 0)),
    "add_key": (248, 217, (b"user", b"probe", b"x", 1, -2)),
    "request_key": (249, 218, (b"user", b"probe", 0, 0)),
    "keyctl": (250, 219, (0, -2, 1)),
    "bpf": (321, 280, (0, ctypes.create_string_buffer(128), 128)),
    "perf_event_open": (298, 241, (ctypes.create_string_buffer(128), 0, -1, -1, 0)),
    "userfaultfd": (323, 282, (0,)),
    "init_module": (175, 105, (0, 0, b"")),
    "finit_module": (313, 273, (-1, b"", 0)),
    "kexec_load": (246, 104, (0, 0, 0, 0)),
    "open_by_handle_at": (304, 265, (-1, 0, 0)),
    "name_to_handle_at": (303, 264, (-100, b"/", ctypes.create_string_buffer(128), ctypes.create_string_buffer(8), 0)),
    "reboot": (169, 142, (0, 0, 0, 0)),
    "swapon": (167, 224, (b"/tmp", 0)),
    "sethostname": (170, 161, (b"probe", 5)),
    "settimeofday": (164, 170, (0, 0)),
    "clock_settime": (227, 112, (0, 0)),
    "syslog": (103, 116, (3, 0, 0)),
    "acct": (163, 89, (0,)),
    "quotactl": (179, 60, (0, 0, 0, 0)),
    "fanotify_init": (300, 262, (0, 0)),
    "pidfd_getfd": (438, 438, (-1, 0, 0)),
    "kcmp": (312, 272, (1, 1, 0, 0, 0)),
    "clone3": (435, 435, (0, 0)),
    "chroot": (161, 51, (b"/tmp",)),
}
SOCKETS = {
    "raw ip": (socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP),
    "raw ip 6": (socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6),
    "packet": (socket.AF_PACKET, socket.SOCK_RAW, 0),
    "packet datagram": (socket.AF_PACKET, socket.SOCK_DGRAM, 0),
    "vsock": (40, socket.SOCK_STREAM, 0),
    "alg": (38, socket.SOCK_SEQPACKET, 0),
    "xdp": (44, socket.SOCK_RAW, 0),
    "key": (15, socket.SOCK_RAW, 2),
    "tipc": (30, socket.SOCK_SEQPACKET, 0),
    "bluetooth": (31, socket.SOCK_RAW, 0),
    "nfc": (39, socket.SOCK_RAW, 0),
    "rds": (21, socket.SOCK_SEQPACKET, 0),
    "can": (29, socket.SOCK_RAW, 1),
    "smc": (43, socket.SOCK_STREAM, 0),
    "unix": (socket.AF_UNIX, socket.SOCK_STREAM, 0),
    "ip": (socket.AF_INET, socket.SOCK_STREAM, 0),
    "ip 6": (socket.AF_INET6, socket.SOCK_STREAM, 0),
    "netlink": (socket.AF_NETLINK, socket.SOCK_RAW, 0),
}
READ_ONLY = (
    "/",
    "/etc",
    "/usr/bin",
    "/dev",
    "/proc/sys/kernel",
    "/sys",
    "/sys/fs/cgroup",
    "/var/lib",
    "/root",
    "/home",
)
SECRET = ("/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/sched_debug", "/proc/kmsg", "/dev/mem", "/dev/kmsg")


#: Where a stage may write.
SCRATCH = ("/tmp", "/work")  # noqa: S108 - paths inside the container


def name_of(number: int) -> str:
    return errno.errorcode.get(number, str(number))


def attempt(work: Callable[[], Any]) -> str:
    """ "ok", or the name of the error."""
    try:
        work()
    except OSError as error:
        return name_of(error.errno) if error.errno else str(error)
    return "ok"


def call(numbers: tuple[int, int, tuple[Any, ...]]) -> str:
    """In a child: one that works must not change what comes after it, as chroot would."""
    on_x86, on_arm, arguments = numbers

    def work() -> int:
        ctypes.set_errno(0)
        result = libc.syscall(on_arm if ARM else on_x86, *arguments)
        return 0 if result >= 0 else min(ctypes.get_errno(), 255)

    ended = in_child(work)
    return "ok" if ended == 0 else name_of(ended) if isinstance(ended, int) else ended


def in_child(work: Callable[[], int]) -> str | int:
    """What `work` returns, or the name of the signal that it died of; in a child, which may be killed for it."""
    child = os.fork()
    if child == 0:
        os._exit(work())
    status = os.waitpid(child, 0)[1]
    return signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def clone_with(flag: int) -> str:
    """clone(2) with that flag and SIGCHLD; the child, if there is one, ends at once."""
    ctypes.set_errno(0)
    arguments = (flag | signal.SIGCHLD, 0, 0, 0, 0)
    result = libc.syscall(220 if ARM else 56, *arguments)
    if result == 0:
        os._exit(0)
    return "ok" if result > 0 else name_of(ctypes.get_errno())


def call_of_32_bits() -> int:
    """mkdir by `int 0x80`: other numbers, which a filter of 64-bit numbers would let pass. Exit code 7: it worked."""
    page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(b"\x53\xb8\x14\x00\x00\x00\xcd\x80\x5b\xc3")  # push rbx; mov eax, 20 (getpid); int 0x80; pop rbx; ret
    function = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))
    return 7 if function() == os.getpid() else 1


def open_socket(kind: tuple[int, int, int]) -> None:
    socket.socket(*kind).close()


def write_in(folder: str) -> None:
    path = os.path.join(folder, "probe")
    with open(path, "w") as file:
        file.write("x")


def look_at(path: str) -> None:
    with open(path, "rb") as file:
        file.read(1)


def routes() -> list[str]:
    with open("/proc/net/route") as lines:
        return lines.read().splitlines()[1:]


def run_from(folder: str) -> None:
    path = os.path.join(folder, "program")
    with open(path, "w") as file:
        file.write("#!/bin/sh\nexit 0\n")
    os.chmod(path, 0o755)  # noqa: S103 - in a container of its own
    subprocess.run([path], check=True)


def reach(address: str, kind: socket.SocketKind) -> None:
    host, _, port = address.rpartition(":")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, kind) as client:
        client.settimeout(3)
        client.connect((host, int(port)))
        client.send(b"x")


def status() -> dict[str, str]:
    with open("/proc/self/status") as lines:
        return dict(line.rstrip("\n").split(":\t", 1) for line in lines if ":\t" in line)


def mounts() -> dict[str, list[str]]:
    """Mount points by kind of file system."""
    points: dict[str, list[str]] = {}
    with open("/proc/self/mounts") as lines:
        for line in lines:
            _, point, kind, options, *_ = line.split()
            points[point] = [kind, options]
    return points


def main() -> None:
    print(
        json.dumps(
            {
                "status": status(),
                "namespaces": {name: os.readlink(f"/proc/self/ns/{name}") for name in os.listdir("/proc/self/ns")},
                "calls": {name: call(numbers) for name, numbers in CALLS.items()},
                "clone": {name: clone_with(flag) for name, flag in (("user", 0x10000000), ("none", 0))},
                "32 bits": None if ARM else in_child(call_of_32_bits),
                "sockets": {name: attempt(partial(open_socket, one)) for name, one in SOCKETS.items()},
                "writes": {folder: attempt(partial(write_in, folder)) for folder in READ_ONLY},
                "reads": {path: attempt(partial(look_at, path)) for path in SECRET},
                "scratch": {folder: attempt(partial(run_from, folder)) for folder in SCRATCH},
                "become root": attempt(lambda: os.setuid(0)),
                "device": attempt(lambda: os.mknod(f"{SCRATCH[0]}/device", stat.S_IFBLK | 0o600, os.makedev(8, 0))),
                "mounts": mounts(),
                "interfaces": os.listdir("/sys/class/net"),
                "routes": routes(),
                "tcp": {one: attempt(partial(reach, one, socket.SOCK_STREAM)) for one in sys.argv[2:]},
                "udp": {one: attempt(partial(reach, one, socket.SOCK_DGRAM)) for one in sys.argv[2:]},
                "abstract": attempt(lambda: socket.socket(socket.AF_UNIX).connect("\0" + sys.argv[1])),
                "processes": [int(name) for name in os.listdir("/proc") if name.isdigit()],
                "environment": dict(os.environ),
                "limits": {"files": os.sysconf("SC_OPEN_MAX")},
            }
        )
    )


if __name__ == "__main__":
    main()
