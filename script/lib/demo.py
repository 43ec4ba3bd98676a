"""The demo: a project, a push, and its way to prod. Called by script/demo, which has set up the machine."""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

from installation import Failed, Installation, Stopped, check_ports, stop_engine, stoppable, until

from cd.errors import TowpathError

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "demo"
FOLDER = ROOT / ".towpath" / "demo"
#: Environments in the order of the way, with the port that examples/demo/environments.yml gives them.
PORTS = {"dev": 18001, "staging": 18002, "prod": 18003}
#: Seconds that a push may take to staging, and an approved release to prod.
PATIENCE = 300.0
COLOURS = ("#0f766e", "#7c3aed", "#b45309", "#be123c", "#1d4ed8")
GOOD = ("waiting", "awaiting_approval", "queued", "deploying", "verifying", "succeeded")


def say(title: str) -> None:
    """A headline."""
    print(f"\n== {title}", flush=True)


class Demo:
    """The story, chapter by chapter. Each raises Failed when it does not come out as told."""

    def __init__(self, bind: str) -> None:
        host, _, port = bind.rpartition(":")
        if not host or not port.isdigit() or not 0 < int(port) < 55000:
            raise Failed(f"--bind {bind}: write HOST:PORT, such as 127.0.0.1:9000, with a port below 55000")
        self.host, self.port = host, int(port)
        self.ports = {name: number - 8000 + self.port for name, number in PORTS.items()}
        self.installation = Installation(FOLDER, bind)
        self.work = FOLDER / "work"
        self.password = ""
        #: Whether all that was promised is done, so that Ctrl-C is the good end.
        self.done = False

    def start(self) -> None:
        """Towpath itself."""
        if self.installation.runs():
            raise Failed(f"a demo runs already in {FOLDER}; end it with Ctrl-C where it was started")
        self.installation.stop()  # what an earlier demo left that was killed
        check_ports(self.host, [self.port])
        check_ports("127.0.0.1", list(self.ports.values()))
        say("Towpath starts")
        self.password = self.installation.start()
        print(f"{self.installation.url}   user admin, password {self.password}", flush=True)

    def connect(self) -> None:
        """A project with a repository of its own, and where its releases go."""
        say("A project, and where its releases go")
        self.installation.towpath("project", "create", "demo", "--hosted", quiet=True)
        policy = EXAMPLE / "environments.yml"
        if self.ports != PORTS:
            text = re.sub(r":(1800\d)\b", lambda port: f":{int(port[1]) - 8000 + self.port}", policy.read_text())
            policy = FOLDER / "environments.yml"
            policy.write_text(text)
        self.installation.towpath("environment", "apply", "demo", policy)

    def clone(self) -> None:
        """A working copy of the example. One that is there may hold somebody's work: it is kept beside."""
        if self.work.exists():
            before = FOLDER / "work-before"
            shutil.rmtree(before, ignore_errors=True)
            self.work.rename(before)
        shutil.copytree(EXAMPLE, self.work, ignore=shutil.ignore_patterns("__pycache__"))
        self.git("init", "--quiet", "--initial-branch", "main")
        self.git("config", "user.name", "Dana Developer")
        self.git("config", "user.email", "dana@example.org")
        self.git("remote", "add", "origin", str(self.installation.home / "repositories" / "demo.git"))
        self.git("add", ".")
        self.git("commit", "--quiet", "--message", "A first version")

    def git(self, *arguments: str) -> None:
        """Git in the working copy."""
        done = subprocess.run(["git", "-C", self.work, *arguments], check=False)
        if done.returncode:
            raise Failed(f"git {' '.join(arguments)} ended with status {done.returncode}")

    def change(self, version: int) -> None:
        """Another version of the app, as a commit."""
        look = self.work / "look.py"
        text = re.sub(r'VERSION = "\d+"', f'VERSION = "{version}"', look.read_text())
        colour = COLOURS[(version - 1) % len(COLOURS)]
        look.write_text(re.sub(r'COLOUR = "#\w+"', f'COLOUR = "{colour}"', text))
        self.git("commit", "--quiet", "--all", "--message", f"Version {version}: another colour")

    def push(self, version: int) -> int:
        """Push, and follow the version to dev, staging and the door of prod; the id of the promotion there."""
        say("A push")
        begun = time.monotonic()
        print("$ git push origin main", flush=True)
        self.git("push", "--quiet", "origin", "main")
        number = until(30, "the run of the push", lambda: self._run_of(version))
        say(f"Run #{number}: {self.installation.url}/projects/demo/runs/{number}")
        self.installation.towpath("run", "logs", "-f", "demo", number)
        run = self.installation.client.get(f"/projects/demo/runs/{number}")
        for step in run["steps"]:
            print(f"  {step['name']:<12} {step['state']}")
        say(f"Release #{run['release']} on its way")
        for name in ("dev", "staging"):
            self._arrived(run["release"], name, "succeeded")
            self.check(name, version)
            print(f"  {name} serves version {version}, {time.monotonic() - begun:.1f} s after the push", flush=True)
        return int(self._arrived(run["release"], "prod", "awaiting_approval")["id"])

    def _run_of(self, version: int) -> int | None:
        """Versions are pushed one after the other, each makes one run."""
        self.installation.check()
        runs = self.installation.client.get("/projects/demo/runs")["items"]
        return int(runs[0]["number"]) if len(runs) == version else None

    def _arrived(self, release: int, name: str, state: str) -> Any:
        """The promotion of a release into an environment, once it is in that state."""
        return until(PATIENCE, f"release #{release} in {name}", lambda: self._look(release, name, state))

    def _look(self, release: int, name: str, state: str) -> Any:
        self.installation.check()
        listed = self.installation.client.get("/projects/demo/promotions", environment=name)["items"]
        found = next((one for one in listed if one["release"]["number"] == release), None)
        if found is not None and found["state"] not in GOOD:
            raise Failed(f"the promotion of release #{release} to {name} {found['state']}: {found['reason']}")
        return found if found is not None and found["state"] == state else None

    def approve(self, promotion: int, version: int) -> None:
        """What a person does at the door of prod."""
        say("Prod asks a person")
        self.installation.towpath("approve", promotion, "--comment", "looks good on staging", quiet=True)
        release = self.installation.client.get(f"/promotions/{promotion}")["release"]["number"]
        self._arrived(release, "prod", "succeeded")
        self.check("prod", version)
        print(f"  prod serves version {version}", flush=True)

    def check(self, name: str, version: int) -> None:
        """Ask an environment by HTTP what it serves. Raises Failed unless it is that version."""
        with urllib.request.urlopen(f"{self.address(name)}/healthz", timeout=10) as answer:
            told = json.load(answer)
        if told != {"status": "ok", "version": str(version), "environment": name}:
            raise Failed(f"{name} should serve version {version}, but says {told}")

    def address(self, name: str) -> str:
        """Where an environment serves."""
        return f"http://127.0.0.1:{self.ports[name]}"

    def serve(self, promotion: int) -> None:
        """Say what to try, then wait for Ctrl-C."""
        url, git = self.installation.url, f"git -C {self.work.relative_to(ROOT)}"
        print(
            f"""
== Your turn
Board       {url}   user admin, password {self.password}
Serving     dev {self.address("dev")}   staging {self.address("staging")}
Waiting     prod, for your approval: {url}/promotions/{promotion}
Push again  edit {self.work.relative_to(ROOT)}/look.py, then
            {git} commit -am "Another colour" && {git} push origin main
Command     .venv/bin/towpath login {url} --username admin
Ctrl-C ends it and takes everything down.""",
            flush=True,
        )
        self.done = True
        while True:
            self.installation.check()
            time.sleep(1)


def play(demo: Demo, ends: bool) -> None:
    """The whole story."""
    demo.start()
    demo.connect()
    demo.clone()
    promotion = demo.push(1)
    if not ends:
        demo.serve(promotion)
    demo.approve(promotion, 1)
    demo.change(2)
    demo.approve(demo.push(2), 2)
    for name in PORTS:
        demo.check(name, 2)
    say("dev, staging and prod serve version 2")


def run(bind: str, ends: bool) -> int:
    """Play it and take it down; the exit status."""
    try:
        demo = Demo(bind)
    except Failed as error:
        print(f"demo: {error}", file=sys.stderr)
        return 2
    status = 1
    try:
        with stoppable():
            play(demo, ends)
            status = 0
    except Stopped:
        status = 0 if demo.done else 130
    except (Failed, TowpathError, OSError) as error:
        print(f"\ndemo: {error}\n{demo.installation.tail()}", file=sys.stderr)
    finally:
        if demo.installation.started:
            print("\nTaking everything down ...", flush=True)
            demo.installation.stop()
    return status


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--exit", action="store_true")
    parser.add_argument("--bind", default="127.0.0.1:8000")
    parser.add_argument("--engine-pid", type=int)
    told = parser.parse_args()
    try:
        return run(told.bind, told.exit)
    finally:
        if told.engine_pid:
            stop_engine(told.engine_pid)


if __name__ == "__main__":
    sys.exit(main())
