"""Push → live in dev, staging and prod, against a shell script that does the same; and again for known trees."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.service import Service, change, free_port, git, service, until
from bench.table import Figure, median
from cd.sandbox.seccomp import PROFILE

HERE = Path(__file__).parent
PAIRS = 10
POLICY = """
environments:
  - {{name: dev, from: {{branches: [main]}}, promote: auto, target: {{kind: docker, url: "http://127.0.0.1:{0}"}}}}
  - {{name: staging, after: [dev], promote: auto, target: {{kind: docker, url: "http://127.0.0.1:{1}"}}}}
  - {{name: prod, after: [staging], promote: auto, target: {{kind: docker, url: "http://127.0.0.1:{2}"}}}}
"""


def serves(port: int, version: str) -> bool:
    """Whether that version answers there."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=2) as answer:
            return bool(answer.read().decode() == version)
    except (urllib.error.URLError, OSError):
        return False


class Sides:
    """The same source, pushed to Towpath and given to the script."""

    def __init__(self, running: Service, folder: Path) -> None:
        self.running, self.folder = running, folder
        self.work = folder / "work"
        self.ports = [free_port() for _ in range(3)]
        _, _, self.repository = running.project("bench", POLICY.format(*self.ports).encode())
        shutil.copytree(HERE / "app", self.work)
        git("init", "-q", cwd=self.work)
        git("add", ".", cwd=self.work)
        git("commit", "-qm", "first", cwd=self.work)
        self.bare_repository = folder / "bare.git"
        git("init", "-q", "--bare", str(self.bare_repository), cwd=folder)
        seccomp = folder / "seccomp.json"
        seccomp.write_text(PROFILE)
        self.bare_port = 23400
        self.env = {**os.environ, "BARE_PORT": str(self.bare_port), "BARE_SECCOMP": str(seccomp)}
        self.bare("setup")

    def bare(self, *arguments: str) -> None:
        """Run the script."""
        subprocess.run([HERE / "bare.sh", *arguments], env=self.env, check=True)

    def by_hand(self, version: str) -> float:
        """Seconds that the script takes from the push until prod serves the version."""
        began = time.perf_counter()
        git("push", "-q", str(self.bare_repository), "HEAD:refs/heads/main", cwd=self.work)
        self.bare("deliver", str(self.bare_repository), version)
        took = time.perf_counter() - began
        if not serves(self.bare_port + 2, version):
            raise RuntimeError("the script did not deliver")
        return took

    def by_towpath(self, version: str) -> float:
        """Seconds that Towpath takes from the push until prod serves the version."""
        began = time.perf_counter()
        git("push", "-q", str(self.repository), "HEAD:refs/heads/main", cwd=self.work)
        until(lambda: serves(self.ports[2], version), 120, f"version {version} in prod", 0.01)
        took = time.perf_counter() - began
        if not all(serves(port, version) for port in self.ports):
            raise RuntimeError("an environment was left out")
        return took


@contextmanager
def sides() -> Iterator[Sides]:
    """Both ways, ready; everything is removed afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="tpp-"))
    with service() as running:
        both = Sides(running, folder)
        try:
            yield both
        finally:
            both.bare("clean")
            remove_containers(running)
            shutil.rmtree(folder, ignore_errors=True)


def remove_containers(running: Service) -> None:
    """Whatever this service left on the engine, its networks too."""
    instance = running.services.instance()
    for kind in ("container", "network"):
        listed = ["docker", kind, "ls", "-q", "--filter", f"label=towpath.instance={instance}"]
        listed += ["-a"] if kind == "container" else []
        names = subprocess.run(listed, check=True, capture_output=True, text=True).stdout.split()
        if names:
            subprocess.run(
                ["docker", kind, "rm", *(["-f"] if kind == "container" else []), *names],
                check=True, capture_output=True,
            )  # fmt: skip


def measure(pairs: int = PAIRS) -> list[Figure]:
    """Alternating; then commits that go back to a tree that was delivered before."""
    ratios, towpath_times, bare_times, known = [], [], [], []
    with sides() as both:
        for number in range(-1, pairs):
            version = f"v{number + 1}"
            change(both.work, "app.py", f'VERSION="{version}"')
            order = (both.by_towpath, both.by_hand) if number % 2 else (both.by_hand, both.by_towpath)
            took = {way.__name__: way(version) for way in order}
            if number >= 0:  # the first pair warms both up
                ratios.append(took["by_towpath"] / took["by_hand"])
                towpath_times.append(took["by_towpath"])
                bare_times.append(took["by_hand"])
        for number in range(pairs):
            version = f"v{number}"
            change(both.work, "app.py", f'VERSION="{version}"')
            order = (both.by_towpath, both.by_hand) if number % 2 else (both.by_hand, both.by_towpath)
            took = {way.__name__: way(version) for way in order}
            known.append(took["by_towpath"] / took["by_hand"])
    ratio, again = median(ratios), median(known)
    return [
        Figure(
            "push → live in dev, staging and prod, against a bare script that does the same by hand",
            "median ratio ≤ 1.15",
            f"{ratio:.2f} ({median(towpath_times):.1f} s against {median(bare_times):.1f} s)",
            f"{pairs} pairs",
            ratio <= 1.15,
        ),
        Figure(
            "the same for a commit whose tree is known already",
            "median ratio ≤ 0.5",
            f"{again:.2f}",
            f"{pairs} pairs",
            again <= 0.5,
        ),
    ]
