"""What a stage can't do, tried from inside a real container."""

from __future__ import annotations

import inspect
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import docker
import pytest

from cd.sandbox import inside
from cd.sandbox.base import ContainerSpec, Limits, StageResult
from cd.sandbox.docker_engine import DockerSandbox
from cd.sandbox.output import Memory

INSIDE = inspect.getsource(inside)
LIMITS = Limits(memory=64 << 20, cpus=1, pids=32, disk=8 << 20, timeout=60)
REFUSED = {"EPERM", "EACCES"}

Execute = Callable[..., tuple[StageResult, str]]


@pytest.fixture(scope="module")
def sandbox(docker_client: docker.DockerClient) -> Iterator[DockerSandbox]:
    made = DockerSandbox()
    yield made
    made.api.close()


@pytest.fixture(scope="module")
def execute(sandbox: DockerSandbox, python_image: str) -> Execute:
    """Runs a command in a container as a stage does; gives its result and output."""

    def run(*argv: str, image: str = python_image) -> tuple[StageResult, str]:
        name, output = f"towpath-probe-{uuid.uuid4().hex[:12]}", Memory()
        sandbox.start(ContainerSpec(name, image, argv, LIMITS))
        try:
            result = sandbox.follow(name, into=output, timeout=60, canceled=lambda: False, limit=1 << 20)
        finally:
            sandbox.remove(name)
        return result, output.data.decode()

    return run


class Listener:
    """A TCP server that counts who came, at all addresses of the host."""

    def __init__(self) -> None:
        self.visits = 0
        self._socket = socket.create_server(("0.0.0.0", 0))
        self.port: int = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            connection, _ = self._socket.accept()
            with connection:
                if connection.recv(4) == b"stop":
                    return
                self.visits += 1

    def close(self) -> None:
        with socket.create_connection(("127.0.0.1", self.port)) as last:
            last.sendall(b"stop")
        self._thread.join()
        self._socket.close()


@pytest.fixture(scope="module")
def listener() -> Iterator[Listener]:
    made = Listener()
    yield made
    made.close()


@pytest.fixture(scope="module")
def neighbor(docker_client: docker.DockerClient, busybox_image: str) -> Iterator[dict[str, str]]:
    """Network of a container on docker0 that answers at port 8080: another run, a service, a database."""
    container = docker_client.containers.run(
        busybox_image, ["nc", "-ll", "-p", "8080", "-e", "cat"], detach=True, init=True
    )
    container.reload()
    network = container.attrs["NetworkSettings"]
    deadline = time.monotonic() + 30
    while not answers(network["IPAddress"]):
        assert time.monotonic() < deadline
    yield network
    container.remove(force=True)


def answers(address: str) -> bool:
    """Whether it takes connections at port 8080."""
    try:
        socket.create_connection((address, 8080), timeout=1).close()
    except OSError:
        return False
    return True


@pytest.fixture(scope="module")
def addresses(listener: Listener, neighbor: dict[str, str]) -> dict[str, str]:
    """Places that answer to who can reach them, and some that no stage should even ask."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as outward:
        outward.connect(("192.0.2.1", 9))  # sends nothing; says by which address the host would
        own = outward.getsockname()[0]
    return {
        "the host on docker0": f"{neighbor['Gateway']}:{listener.port}",
        "the host's own address": f"{own}:{listener.port}",
        "the host's loopback": f"127.0.0.1:{listener.port}",
        "another container": f"{neighbor['IPAddress']}:8080",
        "cloud metadata": "169.254.169.254:80",
        "the internet": "1.1.1.1:443",
        "the internet by IPv6": "2606:4700:4700::1111:443",
    }


@pytest.fixture(scope="module")
def abstract() -> Iterator[str]:
    """Name of a Unix socket of the host without a file: it lives in the network namespace."""
    name = f"towpath-probe-{uuid.uuid4().hex}"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"\0{name}")
        server.listen()
        yield name


@pytest.fixture(scope="module")
def facts(execute: Execute, addresses: dict[str, str], abstract: str) -> dict[str, Any]:
    """What one container found out."""
    result, output = execute("python3", "-c", INSIDE, abstract, *addresses.values())
    assert result.exit_code == 0, output
    return dict(json.loads(output))


def test_no_privileges_and_no_way_to_any(facts: dict[str, Any]) -> None:
    status = facts["status"]
    assert {status[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0000000000000000"}
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    assert status["Uid"].split() == ["65532"] * 4
    assert status["Gid"].split() == ["65532"] * 4
    assert facts["become root"] == "EPERM"
    assert facts["device"] == "EPERM"


def test_a_setuid_program_gains_nothing(
    execute: Execute, docker_client: docker.DockerClient, setuid_image: str
) -> None:
    program = ["/rooted", "-c", "import os; print(os.geteuid())"]
    plain = docker_client.containers.run(setuid_image, program, user="65532", network_mode="none", remove=True)
    assert plain == b"0\n", "without the sandbox it does, so this test can fail"
    assert execute(*program, image=setuid_image)[1] == "65532\n"


@pytest.fixture(scope="module")
def setuid_image(docker_client: docker.DockerClient, python_image: str) -> Iterator[str]:
    """The image with a Python that runs as root whoever starts it."""
    script = 'cp "$(readlink -f "$(command -v python3)")" /rooted && chmod 4755 /rooted'
    container = docker_client.containers.run(python_image, ["sh", "-c", script], detach=True, network_mode="none")
    assert container.wait()["StatusCode"] == 0
    image = container.commit()
    container.remove()
    yield image.id
    docker_client.api.remove_image(image.id, force=True)


@pytest.mark.parametrize(
    "name",
    [
        "io_uring_setup", "io_uring_enter", "io_uring_register", "unshare user", "unshare net", "unshare mount",
        "unshare nothing", "setns", "mount", "umount", "pivot_root", "fsopen", "open_tree", "move_mount", "add_key",
        "request_key", "keyctl", "bpf", "perf_event_open", "userfaultfd", "init_module", "finit_module", "kexec_load",
        "open_by_handle_at", "name_to_handle_at", "reboot", "swapon", "sethostname", "settimeofday", "clock_settime",
        "syslog", "acct", "quotactl", "fanotify_init", "pidfd_getfd", "kcmp", "chroot",
    ],
)  # fmt: skip
def test_calls_that_are_refused(facts: dict[str, Any], name: str) -> None:
    assert facts["calls"][name] == "EPERM"


def test_namespaces_are_not_made_by_clone_either(facts: dict[str, Any]) -> None:
    assert facts["clone"] == {"user": "EPERM", "none": "ok"}
    assert facts["calls"]["clone3"] == "ENOSYS"


def test_calls_by_the_numbers_of_32_bits_are_refused(facts: dict[str, Any]) -> None:
    assert facts["32 bits"] in (None, "SIGSYS", "SIGSEGV", 1)


def test_sockets_are_of_local_families_only(facts: dict[str, Any]) -> None:
    sockets = facts["sockets"]
    allowed = {name for name, outcome in sockets.items() if outcome == "ok"}
    assert allowed <= {"unix", "ip", "ip 6", "netlink"}
    assert {"unix", "ip"} <= allowed
    assert {sockets[name] for name in ("raw ip", "packet", "packet datagram", "vsock", "alg", "xdp", "key")} == {
        "EPERM"
    }


def test_nothing_is_written_outside_of_scratch(facts: dict[str, Any]) -> None:
    assert set(facts["writes"].values()) <= {"EROFS", "EACCES", "EPERM", "ENOENT"}
    assert (facts["writes"]["/"], facts["writes"]["/etc"]) == ("EROFS", "EROFS")
    assert facts["scratch"] == {"/tmp": "ok", "/work": "ok"}, "programs that were just built must run"


def test_the_kernel_s_own_files_tell_nothing(facts: dict[str, Any]) -> None:
    assert all(outcome != "ok" or path in EMPTY for path, outcome in facts["reads"].items())


#: Masked by an empty file where they exist at all.
EMPTY = {"/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/sched_debug"}


def test_masked_files_are_empty(execute: Execute) -> None:
    command = f"for file in {' '.join(sorted(EMPTY))}; do [ ! -e $file ] || head -c 1 $file; done"
    assert execute("sh", "-c", command)[1] == ""


def test_no_file_of_the_host_is_mounted(facts: dict[str, Any]) -> None:
    virtual = {"proc", "tmpfs", "sysfs", "cgroup", "cgroup2", "overlay", "devpts", "mqueue"}
    real = {Path(point).name for point, (kind, _) in facts["mounts"].items() if kind not in virtual}
    assert real <= {"resolv.conf", "hostname", "hosts", "docker-init"}, "only what the engine itself puts there"
    for point in ("/tmp", "/work"):
        kind, options = facts["mounts"][point]
        assert kind == "tmpfs"
        assert {"nosuid", "nodev"} <= set(options.split(","))
        assert "noexec" not in options.split(",")
    assert "ro" in facts["mounts"]["/"][1].split(",")


def test_namespaces_are_not_the_host_s(facts: dict[str, Any]) -> None:
    for name in ("pid", "net", "ipc", "mnt", "uts"):
        assert facts["namespaces"][name] != os.readlink(f"/proc/self/ns/{name}"), name
    assert len(facts["processes"]) <= 3, "only its own processes are to be seen"


def test_no_way_out(facts: dict[str, Any], addresses: dict[str, str], listener: Listener) -> None:
    assert facts["interfaces"] == ["lo"]
    assert facts["routes"] == []
    unreachable = {"ENETUNREACH", "EADDRNOTAVAIL"}
    for name, address in addresses.items():
        # Its own loopback is there, and nobody listens on it.
        tcp, udp = ({"ECONNREFUSED"}, {"ok"}) if "loopback" in name else (unreachable, unreachable)
        assert facts["tcp"][address] in tcp, name
        assert facts["udp"][address] in udp, name
    assert facts["abstract"] == "ECONNREFUSED"
    assert listener.visits == 0


def test_the_places_that_were_tried_do_answer(
    docker_client: docker.DockerClient, busybox_image: str, addresses: dict[str, str], listener: Listener
) -> None:
    """Else the test before could not fail: a container on the ordinary network gets through to all of them."""
    for name in ("the host on docker0", "the host's own address", "another container"):
        host, _, port = addresses[name].rpartition(":")
        command = ["sh", "-c", f"echo hi | nc -w 3 {host} {port}"]
        docker_client.containers.run(busybox_image, command, remove=True)
    assert listener.visits == 2
    listener.visits = 0


def test_a_fork_bomb_stops_at_the_limit(execute: Execute) -> None:
    script = """
import os, signal
count = 0
try:
    while count < 1000:
        if os.fork() == 0:
            signal.pause()
        count += 1
except BlockingIOError:
    print(count)
"""
    result, output = execute("python3", "-c", script)
    assert result.exit_code == 0
    assert 20 <= int(output) < LIMITS.pids


def test_a_memory_hog_ends_and_is_told_as_such(execute: Execute) -> None:
    result, _ = execute("python3", "-c", "held = [b'x' * (1 << 20) for _ in range(1 << 20)]")
    assert (result.exit_code, result.oom, result.timed_out) == (137, True, False)


@pytest.mark.parametrize(("folder", "size"), [("/tmp", LIMITS.disk), ("/work", LIMITS.disk), ("/dev/shm", 16 << 20)])
def test_filling_the_disk_stops_at_its_size(execute: Execute, folder: str, size: int) -> None:
    script = """
import errno, sys
written = 0
with open(sys.argv[1] + "/fill", "wb", buffering=0) as file:
    try:
        while written < 1 << 30:
            written += file.write(b"x" * 65536)
    except OSError as error:
        print(errno.errorcode[error.errno], written)
"""
    result, output = execute("python3", "-c", script, folder)
    assert (result.exit_code, output) == (0, f"ENOSPC {size}\n")


def test_a_daemon_that_let_go_of_its_parents_is_gone_with_the_stage(execute: Execute) -> None:
    marker = f"towpath-daemon-{uuid.uuid4().hex}"
    script = """
import os, sys, signal
read, write = os.pipe()
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        os.write(write, b"x")
        signal.pause()
    os._exit(0)
os.read(read, 1)
print(sorted(int(name) for name in os.listdir("/proc") if name.isdigit()))
"""
    result, output = execute("python3", "-c", script, marker)
    assert result.exit_code == 0
    assert len(json.loads(output)) >= 3, "init, the command and its daemon were there"
    assert (result.finished_at - result.started_at).total_seconds() < 10
    assert [pid for pid, words in commands() if marker in words] == []


def commands() -> Iterator[tuple[str, str]]:
    """Id and command line of each process of the host."""
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                yield folder.name, (folder / "cmdline").read_bytes().decode(errors="replace")
            except (FileNotFoundError, ProcessLookupError):
                continue  # it ended just now


def test_the_environment_is_the_image_s_and_the_stage_s(
    facts: dict[str, Any], docker_client: docker.DockerClient, python_image: str
) -> None:
    own = {line.partition("=")[0] for line in docker_client.images.get(python_image).attrs["Config"]["Env"]}
    assert facts["environment"].keys() <= own | {"HOME", "PATH", "HOSTNAME", "LC_CTYPE"}
    assert facts["environment"]["HOME"] == "/work"
    assert facts["limits"] == {"files": 4096}
