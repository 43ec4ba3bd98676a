"""Everything that a sandbox must stop, tried on this engine."""

from __future__ import annotations

from bench.table import Figure
from cd.sandbox.docker_engine import DockerSandbox
from cd.sandbox.doctor import Examination

IMAGE = "python:3.11-slim"


def measure() -> list[Figure]:
    """The probes of `towpath doctor`; `towpath doctor --all` lists them."""
    sandbox = DockerSandbox()
    findings = list(Examination(sandbox, IMAGE).findings())
    stopped = sum(finding.blocked for finding in findings)
    engine = sandbox.version()
    sandbox.api.close()
    return [
        Figure(
            "sandbox probes that went as they must (`towpath doctor --all` lists them)",
            "all of them",
            f"{stopped} of {len(findings)} on Engine {engine}",
            str(len(findings)),
            stopped == len(findings) > 100,
        )
    ]
