"""`towpath doctor`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from cd.cli import output
from cd.cli.output import json_option

if TYPE_CHECKING:
    from cd.config import Settings
    from cd.sandbox.probes import Finding

#: What each kind of stage may not do is counted; what only concerns `network: internet` is told.
INTERNET_ADVICE = """\
A stage with `network: internet` reaches what is marked `open` above. Rules on the engine's machine that end this:
  iptables -I INPUT -i towpath0 -j REJECT
  for net in 10.0.0.0/8 172.16.0.0/12 192.168.0.0/16 169.254.0.0/16 100.64.0.0/10; do
    iptables -I DOCKER-USER -i towpath0 -d $net -j REJECT; done"""


@click.command()
@click.option("--image", default="python:3.11-slim", show_default=True, help="An image with Python 3 for the probes.")
@click.option("--all", "everything", is_flag=True, help="Show every probe, not only what was not stopped.")
@json_option
@click.pass_context
def doctor(ctx: click.Context, image: str, everything: bool, as_json: bool) -> None:
    """Check this machine, and that the engine's sandbox stops what it must.

    Containers are started as for stages, and from inside of them everything is tried that must not work. Status 0 when
    all of it was stopped.
    """
    from cd.config import Settings

    settings = Settings()
    machine = list(_machine(settings))
    if not as_json:
        output.table(("MACHINE", "", "FOUND"), [_row(one) for one in machine], "")
    findings: list[Finding] = []
    internet: list[Finding] = []
    if all(one.blocked for one in machine):
        findings, internet = _examine(settings, image)
    _show(machine, findings, internet, everything, as_json)
    if not findings or not all(one.blocked for one in (*machine, *findings)):
        ctx.exit(1)


def _examine(settings: Settings, image: str) -> tuple[list[Finding], list[Finding]]:
    from cd.sandbox.docker_engine import DockerSandbox
    from cd.sandbox.doctor import Examination

    sandbox = DockerSandbox(settings.docker_host, settings.sandbox_runtime)
    examination = Examination(sandbox, image, _places(settings))
    try:
        return list(examination.findings()), examination.internet()
    finally:
        sandbox.api.close()


def _places(settings: Settings) -> dict[str, str]:
    """Redis and the database, where they have an address at all."""
    from urllib.parse import urlsplit

    found = {}
    for what, url, port in (("Redis", settings.redis_url, 6379), ("the database", settings.database_url, 5432)):
        parts = urlsplit(url)
        if parts.hostname:
            found[f"{parts.hostname}:{parts.port or port}"] = what
    return found


def _machine(settings: Settings) -> Iterator[Finding]:
    import shutil

    from cd.cli import redis_server
    from cd.errors import TowpathError
    from cd.pipeline import buildtool
    from cd.sandbox.docker_engine import DockerSandbox
    from cd.sandbox.probes import Finding

    def look(what: str, ask: Callable[[], object]) -> Finding:
        try:
            return Finding("machine", what, True, str(ask()))
        except TowpathError as error:
            return Finding("machine", what, False, str(error))

    sandbox = DockerSandbox(settings.docker_host, settings.sandbox_runtime)
    yield look("Docker engine", sandbox.version)
    yield look("builds images", lambda: " ".join(buildtool.find_tool().argv))
    if not settings.redis_url:
        yield look("redis-server", redis_server.program)
    git = shutil.which("git")
    yield Finding("machine", "git", git is not None, git or "not on PATH; install git")
    settings.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    free = shutil.disk_usage(settings.folder).free >> 20
    yield Finding("machine", f"space in {settings.folder}", free >= 1024, f"{free} MiB free")


def _show(
    machine: list[Finding], findings: list[Finding], internet: list[Finding], everything: bool, as_json: bool
) -> None:
    if as_json:
        told = {"machine": machine, "probes": findings, "internet": internet}
        output.show_json({name: [asdict(one) for one in values] for name, values in told.items()})
        return
    if not findings:
        click.echo("the sandbox was not tried: mend the machine first")
        return
    shown = [one for one in findings if everything or not one.blocked]
    if shown:
        click.echo()
        output.table(("GROUP", "TRIED", "", "SEEN"), [(one.group, *_row(one)) for one in shown], "")
    click.echo()
    opened = [one for one in internet if not one.blocked]
    if opened:
        output.table(("GROUP", "TRIED", "", "SEEN"), [(one.group, *_row(one)) for one in opened], "")
        click.echo(INTERNET_ADVICE)
        click.echo()
    stopped = sum(one.blocked for one in findings)
    everything_held = stopped == len(findings)
    click.secho(f"{stopped} of {len(findings)} probes went as they must", fg="green" if everything_held else "red")


def _row(finding: Finding) -> tuple[str, str, str]:
    return finding.what, "ok" if finding.blocked else "open", finding.seen
