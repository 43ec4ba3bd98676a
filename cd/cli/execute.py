"""`towpath exec`."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cd.cli import output
from cd.cli.output import json_option

if TYPE_CHECKING:
    from cd.cli.localrun import Result
    from cd.cli.snapshot import Snapshot
    from cd.cli.stepprinter import StepPrinter
    from cd.config import Settings
    from cd.pipeline.builder import Builder
    from cd.pipeline.definition import Pipeline
    from cd.pipeline.plan import Occasion, Planned

#: Exit status after Ctrl-C.
INTERRUPTED = 130


@click.command("exec")
@click.argument("stage", nargs=-1)
@click.option(
    "-C", "--directory", type=click.Path(exists=True, file_okay=False, path_type=Path), default=".", help="Start there."
)
@click.option(
    "-j", "--jobs", type=click.IntRange(1, 64), default=os.cpu_count() or 2, help="Stages that run at the same time."
)
@click.option(
    "--event",
    type=click.Choice(["push", "pull_request", "tag", "manual"]),
    default="push",
    show_default=True,
    help="What conditions take the run to be about.",
)
@click.option("--branch", help="The branch, or tag, that they take it to be of; else the one that is checked out.")
@click.option(
    "--secret",
    multiple=True,
    metavar="NAME[=VALUE]",
    help="A secret. Without VALUE, or without this, it is read from the environment.",
)
@json_option
@click.pass_context
def execute(
    ctx: click.Context,
    *,
    stage: tuple[str, ...],
    directory: Path,
    jobs: int,
    event: str,
    branch: str | None,
    secret: tuple[str, ...],
    as_json: bool,
) -> None:
    """Run the pipeline of the working tree on this machine.

    No server is asked. The image is built as a server builds it, out of all files that git does not ignore, and its
    stages run in the same containers. With STAGE only these, and what they need. What changed is not known here:
    conditions on paths hold. Logs go to standard error when --json is given. Status 0 when the run passed.
    """
    try:
        result = _execute(directory, stage, jobs=jobs, about=(event, branch), given=secret, as_json=as_json)
    except KeyboardInterrupt:
        click.echo("interrupted", err=True)
        ctx.exit(INTERRUPTED)
    if as_json:
        output.show_json(asdict(result))
    else:
        _show(result)
    if result.state != "passed":
        ctx.exit(1)


def _execute(
    directory: Path,
    names: tuple[str, ...],
    *,
    jobs: int,
    about: tuple[str, str | None],
    given: tuple[str, ...],
    as_json: bool,
) -> Result:
    from cd.cli import localsecrets, snapshot
    from cd.cli.localrun import LocalRun, chosen
    from cd.cli.stepprinter import StepPrinter
    from cd.config import Settings
    from cd.pipeline.plan import plan
    from cd.sandbox.docker_engine import DockerSandbox

    settings = Settings()
    with snapshot.taken(directory) as taken:
        pipeline = _pipeline(taken)
        planned = plan(pipeline, _occasion(taken, *about))
        planned = chosen(planned, _known(names, pipeline, planned))
        secrets = localsecrets.collect(pipeline, planned, given)
        printer = StepPrinter(["build", *(one.name for one in planned)], sys.stderr if as_json else sys.stdout)
        try:
            images, services = _build(settings, taken, pipeline, planned, secrets=secrets, printer=printer)
        except BaseException:
            printer.close()
            raise
    sandbox = DockerSandbox(settings.docker_host, settings.sandbox_runtime)
    by_step = {one.name: images[one.spec.target or pipeline.image.target] for one in planned}
    run = LocalRun(planned, by_step, services, secrets, sandbox, printer.write, jobs, settings.log_limit)
    try:
        return run.run()
    finally:
        printer.close()


def _occasion(taken: Snapshot, event: str, branch: str | None) -> Occasion:
    """What a server would take a commit of this working tree to be about."""
    from cd.pipeline.plan import Occasion

    name = branch or taken.branch
    if event == "pull_request":
        return Occasion(event, "refs/pull/0/head")
    if name is None:
        return Occasion(event, "HEAD")
    return Occasion(event, f"refs/{'tags' if event == 'tag' else 'heads'}/{name}")


def _pipeline(taken: Snapshot) -> Pipeline:
    from cd.errors import UserError
    from cd.pipeline.build import NO_FILE
    from cd.pipeline.definition import Pipeline, unsupported
    from cd.pipeline.parse import FILE, parse

    text = taken.pipeline
    if text is None:
        click.echo(NO_FILE, err=True)
        return Pipeline()
    pipeline = parse(text)
    refused = unsupported(pipeline)
    if refused:
        what = ", ".join(refused)
        raise UserError(f"this version of Towpath can't do {what}", where=FILE, remedy="remove it for now")
    return pipeline


def _known(names: tuple[str, ...], pipeline: Pipeline, planned: Sequence[Planned]) -> tuple[str, ...]:
    import difflib

    cells = [one.name for one in planned]
    for name in names:
        if name not in pipeline.stages and name not in cells:
            close = difflib.get_close_matches(name, [*pipeline.stages, *cells], n=1)
            known = ", ".join(pipeline.stages) or "it has none"
            hint = f"did you mean {close[0]!r}?" if close else f"known: {known}"
            raise click.UsageError(f"the pipeline has no stage {name!r}; {hint}")
    return names


def _build(
    settings: Settings,
    taken: Snapshot,
    pipeline: Pipeline,
    planned: Sequence[Planned],
    *,
    secrets: Mapping[str, str],
    printer: StepPrinter,
) -> tuple[dict[str | None, str], dict[str, dict[str, str]]]:
    """The image of each target; by step the image of each service."""
    from cd.cli.localrun import Printed
    from cd.pipeline.build import wanted_targets
    from cd.pipeline.builder import Builder, BuildRequest

    parsed = taken.dockerfile(pipeline.image)
    request = BuildRequest(
        files=taken.files,
        spec=pipeline.image,
        dockerfile=parsed,
        targets=wanted_targets(pipeline, parsed),
        tag=tag(taken.root),
        namespace=tag(taken.root).replace("/", "-").replace(":", "-"),
        secrets={name: secrets[name] for name in pipeline.image.secrets},
    )
    builder = Builder(settings.docker_host, timeout=settings.build_timeout)
    printed = Printed(lambda data: printer.write("build", data), secrets.values())
    try:
        services = _services(builder, planned, printed.say)
        return builder.build(request, printed.say, lambda: False), services
    finally:
        printed.close()
        builder.close()


def _services(
    builder: Builder, planned: Sequence[Planned], write: Callable[[bytes], None]
) -> dict[str, dict[str, str]]:
    """By step that is not left out, the image of each of its services; those that are absent are pulled."""
    from cd.pipeline.parse import FILE

    found: dict[str, dict[str, str]] = {}
    known: dict[str, str] = {}
    for one in planned:
        for name, service in one.spec.services.items() if not one.skip else ():
            if service.image not in known:
                where = f"{FILE}: stages.{one.stage}.services.{name}"
                known[service.image] = builder.reference(service.image, where, write)
            found.setdefault(one.name, {})[name] = known[service.image]
    return found


def tag(root: Path) -> str:
    """Name and tag of the image of one working tree; the next build of the same takes it over."""
    from cd.cli.localrun import PROJECT

    return f"towpath/{PROJECT}:{hashlib.sha256(str(root).encode()).hexdigest()[:12]}"


def _show(result: Result) -> None:
    from cd.units import format_seconds

    rows: list[tuple[Any, ...]] = [
        (
            one.name,
            one.state,
            format_seconds(one.seconds) if one.seconds else "",
            one.key[:12],
            f"{one.reason}; may fail" if one.allow_failure and one.state == "failed" else one.reason,
        )
        for one in result.stages
    ]
    click.echo()
    output.table(("STAGE", "STATE", "TOOK", "KEY", "REASON"), rows, "no stages: nothing was tested")
    click.secho(f"the run {result.state}", bold=True, fg=output.STATES.get(result.state))
