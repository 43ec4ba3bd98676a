"""Tries on a real engine what a sandbox must stop: `towpath doctor`, and the same in the tests.

Beside the sandbox it starts two ordinary containers that answer to whoever reaches them, one in the host's network, one
on the engine's bridge. An ordinary container reaches both, or nothing would be proven by a stage that does not.
"""

from __future__ import annotations

import inspect
import json
import secrets
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from time import monotonic, sleep
from typing import Any

from docker.errors import ImageNotFound

from cd.errors import ServiceError, UserError
from cd.sandbox import inside, output, probes
from cd.sandbox.base import ContainerSpec, Limits, Service, StageResult
from cd.sandbox.docker_engine import DockerSandbox, translated
from cd.sandbox.probes import Finding

LIMITS = Limits(memory=64 << 20, cpus=1, pids=32, disk=8 << 20, timeout=60)
SHM = 16 << 20
#: Port of what answers on the bridge and in a pod; the one in the host's network takes a free one.
PORT, OTHER_PORT = 8080, 8081
#: A listener's own words, after its facts.
VISIT = "visit"
LISTENER = """
import json, os, socket, sys
server = socket.create_server(("0.0.0.0", int(sys.argv[1])))
def link(name, pid="self"):
    try:
        return os.readlink(f"/proc/{pid}/ns/{name}")
    except OSError:
        return ""
names = {name: link(name) for name in ("pid", "net", "ipc", "uts")}
names["mnt"] = link("mnt", 1)
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
try:
    udp.connect(("192.0.2.1", 9))  # sends nothing; says by which address the host would
    own = udp.getsockname()[0]
except OSError:
    own = ""
abstract = socket.socket(socket.AF_UNIX)
abstract.bind("\\0" + sys.argv[2])
abstract.listen()
print(json.dumps({"port": server.getsockname()[1], "namespaces": names, "own": own}), flush=True)
while True:
    connection, _ = server.accept()
    connection.close()
    print("visit", flush=True)
"""
CONNECT = """
import socket, sys
for place in sys.argv[1:]:
    host, _, port = place.rpartition(":")
    try:
        socket.create_connection((host, int(port)), 3).close()
        print("reached")
    except OSError as error:
        print(error)
"""
CONNECT_OR_FAIL = "import socket, sys; socket.create_connection(('127.0.0.1', int(sys.argv[1])), 1)"
FORKS = """
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
HOG = "held = [b'x' * (1 << 20) for _ in range(1 << 20)]"
FILL = """
import errno, sys
written = 0
with open(sys.argv[1] + "/fill", "wb", buffering=0) as file:
    try:
        while written < 1 << 30:
            written += file.write(b"x" * 65536)
    except OSError as error:
        print(errno.errorcode[error.errno], written)
"""
DAEMON = """
import os, signal
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
print("left behind")
"""


@dataclass(frozen=True)
class Beside:
    """An ordinary container that answers."""

    container: str
    port: int
    #: Its own address on the bridge, and the bridge's; empty in the host's network.
    address: str
    gateway: str
    facts: dict[str, Any]


class Examination:
    """One look at an engine. `image` has Python 3 in it; `places` are further addresses that no stage may reach."""

    def __init__(self, sandbox: DockerSandbox, image: str, places: dict[str, str] | None = None) -> None:
        self._sandbox, self._image = sandbox, image
        self._more = places or {}
        self._tag = f"towpath-doctor-{secrets.token_hex(6)}"
        self._count = 0

    def findings(self) -> Iterator[Finding]:
        """Everything that must be stopped, one by one. Raises ServiceError, UserError."""
        self._check_image()
        with ExitStack() as stack:
            host = stack.enter_context(self._beside("host", 0))
            bridge = stack.enter_context(self._beside("bridge", PORT))
            places = self._places(host, bridge)
            yield from self._control(places)
            listener = stack.enter_context(self._listener())
            service = Service("other", listener, LIMITS)
            for group, network, services in (
                ("stage", "none", ()),
                ("stage with services", "services", (service,)),
            ):
                facts = self._facts(places, network, services)
                yield from probes.judge(facts, host.facts["namespaces"], places, group)
            yield self._visits(host, bridge)
            yield from self._pods(listener)
            yield from self._greed()

    def internet(self) -> list[Finding]:
        """What a stage with `network: internet` reaches besides the internet: only what is ours is asked for."""
        self._check_image()
        with self._beside("host", 0) as host, self._beside("bridge", PORT) as bridge:
            ours = ("the host by", "another container")
            places = {a: what for a, what in self._places(host, bridge).items() if what.startswith(ours)}
            facts = self._facts(places, "internet")
        return [
            Finding("stage with internet", f"reach {what}", facts["tcp"][address] != "ok", facts["tcp"][address])
            for address, what in places.items()
        ]

    def _check_image(self) -> None:
        with translated():
            try:
                self._sandbox.api.inspect_image(self._image)
            except ImageNotFound as error:
                raise UserError(
                    f"the engine has no image {self._image}",
                    where="doctor",
                    remedy=f"`docker pull {self._image}`, or name one that has Python 3 with --image",
                ) from error

    def _places(self, host: Beside, bridge: Beside) -> dict[str, str]:
        found = {
            f"{bridge.gateway}:{host.port}": "the host by its gateway",
            f"127.0.0.1:{host.port}": "the host's loopback",
            f"{bridge.address}:{PORT}": "another container",
            "169.254.169.254:80": "cloud metadata",
            "1.1.1.1:443": "the internet",
            **self._more,
        }
        if host.facts["own"]:
            found[f"{host.facts['own']}:{host.port}"] = "the host by its own address"
        return found

    def _control(self, places: dict[str, str]) -> Iterator[Finding]:
        """That an ordinary container gets through, or else nothing would be shown by one that does not."""
        wanted = [a for a, what in places.items() if what.startswith(("the host by", "another"))]
        with self._plain(["python3", "-c", CONNECT, *wanted]) as name:
            with translated():
                self._sandbox.api.wait(name, timeout=60)
            answers = self._log(name)
        for address, answer in zip(wanted, answers, strict=True):
            yield Finding("control", f"an ordinary container does reach {places[address]}", answer == "reached", answer)
        self._expected = answers.count("reached")

    def _visits(self, host: Beside, bridge: Beside) -> Finding:
        visits = sum(self._log(one.container).count(VISIT) for one in (host, bridge))
        seen = f"{visits} visits, {self._expected} of them the control's"
        return Finding("stage", "nobody came from inside", visits == self._expected, seen)

    def _facts(self, places: dict[str, str], network: str, services: tuple[Service, ...] = ()) -> dict[str, Any]:
        argv = ("python3", "-c", inspect.getsource(inside), self._tag, *places)
        result, told = self.execute(argv, network, services)
        if result.exit_code:
            raise ServiceError(f"the probe ended with exit code {result.exit_code}: {told[-500:]}", retryable=False)
        return dict(json.loads(told))

    def _pods(self, listener: str) -> Iterator[Finding]:
        """Two runs at once, each with a service: either reaches its own and not the other's."""
        service = Service("other", listener, LIMITS, ready=("python3", "-c", CONNECT_OR_FAIL, str(PORT)))
        self._count += 1
        first = f"{self._tag}-{self._count}"
        argv = ("python3", "-uc", LISTENER, str(OTHER_PORT), f"{self._tag}-other")
        self._sandbox.start(ContainerSpec(first, self._image, argv, LIMITS, network="services", services=(service,)))
        try:
            self._first(first)
            wanted = {f"other:{PORT}": "its own service", f"other:{OTHER_PORT}": "another run"}
            _, told = self.execute(("python3", "-c", CONNECT, *wanted), "services", (service,))
        finally:
            self._sandbox.remove(first)
        own, foreign = told.splitlines()
        yield Finding("control", "a stage reaches its own service", own == "reached", own)
        yield Finding("stage with services", "reach another run", "refused" in foreign, foreign)

    @contextmanager
    def _listener(self) -> Iterator[str]:
        """Id of an image whose own command is the listener: services run what their image says."""
        api = self._sandbox.api
        command = json.dumps(["python3", "-uc", LISTENER, str(PORT), f"{self._tag}-service"])
        with translated():
            made = api.create_container(self._image, ["true"], entrypoint=[], network_disabled=True)["Id"]
            image = api.commit(made, changes=["ENTRYPOINT []", f"CMD {command}"])["Id"]
            api.remove_container(made)
        try:
            yield image
        finally:
            with translated():
                api.remove_image(image, force=True)

    def _greed(self) -> Iterator[Finding]:
        group = "greed"
        result, told = self.execute(("python3", "-c", FORKS))
        forks = int(told or 0)
        yield Finding(group, "a fork bomb", result.exit_code == 0 and forks < LIMITS.pids, f"{forks} processes")
        result, _ = self.execute(("python3", "-c", HOG))
        seen = "told as out of memory" if result.oom else f"exit code {result.exit_code}"
        yield Finding(group, "a memory hog", result.oom and result.exit_code == 137, seen)
        for folder, size in (*((path, LIMITS.disk) for path in inside.SCRATCH), ("/dev/shm", SHM)):  # noqa: S108
            _, told = self.execute(("python3", "-c", FILL, folder))
            yield Finding(group, f"fill {folder}", told.strip() == f"ENOSPC {size}", told.strip())
        result, told = self.execute(("python3", "-c", DAEMON))
        seconds = (result.finished_at - result.started_at).total_seconds()
        gone = result.exit_code == 0 and seconds < 10 and "left behind" in told
        yield Finding(group, "a daemon that let go of its parents", gone, f"gone after {seconds:.1f} s")

    def execute(
        self,
        argv: tuple[str, ...],
        network: str = "none",
        services: tuple[Service, ...] = (),
    ) -> tuple[StageResult, str]:
        """Run a command as a stage does; its result and output."""
        self._count += 1
        name, kept = f"{self._tag}-{self._count}", output.Memory()
        spec = ContainerSpec(name, self._image, argv, LIMITS, network=network, services=services)
        try:
            self._sandbox.start(spec)
            result = self._sandbox.follow(
                name, into=kept, timeout=LIMITS.timeout, canceled=lambda: False, limit=1 << 20
            )
        finally:
            self._sandbox.remove(name)
        return result, kept.data.decode(errors="replace")

    @contextmanager
    def _beside(self, network: str, port: int) -> Iterator[Beside]:
        argv = ["python3", "-uc", LISTENER, str(port), self._tag]
        with self._plain(argv, network) as name:
            facts = self._first(name)
            with translated():
                told = self._sandbox.api.inspect_container(name)["NetworkSettings"]
            yield Beside(name, facts["port"], told.get("IPAddress", ""), told.get("Gateway", ""), facts)

    @contextmanager
    def _plain(self, argv: list[str], network: str = "bridge") -> Iterator[str]:
        """An ordinary container, gone afterwards."""
        self._count += 1
        name, api = f"{self._tag}-{self._count}", self._sandbox.api
        with translated():
            mode = {"pid_mode": "host", "ipc_mode": "host", "uts_mode": "host", "cap_add": ["SYS_PTRACE"]}
            settings = api.create_host_config(network_mode=network, init=True, **(mode if network == "host" else {}))
            api.create_container(self._image, argv, name=name, host_config=settings, entrypoint=[])
        try:
            with translated():
                api.start(name)
            yield name
        finally:
            self._sandbox.remove(name)

    def _log(self, name: str) -> list[str]:
        with translated():
            text: str = self._sandbox.api.logs(name).decode(errors="replace")
        return text.splitlines()

    def _first(self, name: str) -> dict[str, Any]:
        """The facts that a listener prints once it listens."""
        until = monotonic() + LIMITS.timeout
        while not (lines := self._log(name)):
            with translated():
                running = self._sandbox.api.inspect_container(name)["State"]["Running"]
            if not running or monotonic() > until:
                raise ServiceError(f"a listener for the probes did not come up: {self._log(name)}", retryable=False)
            sleep(0.05)  # between two looks
        return dict(json.loads(lines[0]))
