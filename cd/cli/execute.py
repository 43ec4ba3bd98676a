"""`towpath exec`."""

from __future__ import annotations

import hashlib
import os
import sys
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
    from cd.pipeline.definition import Pipeline

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
@json_option
@click.pass_context
def execute(ctx: click.Context, stage: tuple[str, ...], directory: Path, jobs: int, as_json: bool) -> None:
    """Run the pipeline of the working tree on this machine.

    No server is asked. The image is built as a server builds it, out of all files that git does not ignore, and its
    stages run in the same containers. With STAGE only these, and what they need. Logs go to standard error when
    --json is given. Status 0 when the run passed.
    """
    try:
        result = _execute(directory, stage, jobs, as_json)
    except KeyboardInterrupt:
        click.echo("interrupted", err=True)
        ctx.exit(INTERRUPTED)
    if as_json:
        output.show_json(asdict(result))
    else:
        _show(result)
    if result.state != "passed":
        ctx.exit(1)


def _execute(directory: Path, names: tuple[str, ...], jobs: int, as_json: bool) -> Result:
    from cd.cli import snapshot
    from cd.cli.localrun import LocalRun, Result, chosen
    from cd.cli.stepprinter import StepPrinter
    from cd.config import Settings
    from cd.sandbox.docker_engine import DockerSandbox

    settings = Settings()
    with snapshot.taken(directory) as taken:
        pipeline = _pipeline(taken)
        stages = chosen(pipeline, _known(names, pipeline))
        printer = StepPrinter(["build", *stages], sys.stderr if as_json else sys.stdout)
        images = _build(settings, taken, pipeline, printer)
    if not stages:
        return Result("passed", ())
    sandbox = DockerSandbox(settings.docker_host, settings.sandbox_runtime)
    by_stage = {name: images[spec.target or pipeline.image.target] for name, spec in stages.items()}
    run = LocalRun(stages, by_stage, sandbox, printer.write, jobs)
    try:
        return run.run()
    finally:
        printer.close()


def _pipeline(taken: Snapshot) -> Pipeline:
    from cd.errors import UserError
    from cd.pipeline.build import NO_FILE
    from cd.pipeline.definition import Pipeline, ignored, unsupported
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
    for line in ignored(pipeline):
        click.echo(f"{FILE}: {line} is not acted on yet", err=True)
    return pipeline


def _known(names: tuple[str, ...], pipeline: Pipeline) -> tuple[str, ...]:
    import difflib

    for name in names:
        if name not in pipeline.stages:
            close = difflib.get_close_matches(name, pipeline.stages, n=1)
            known = ", ".join(pipeline.stages) or "it has none"
            hint = f"did you mean {close[0]!r}?" if close else f"known: {known}"
            raise click.UsageError(f"the pipeline has no stage {name!r}; {hint}")
    return names


def _build(settings: Settings, taken: Snapshot, pipeline: Pipeline, printer: StepPrinter) -> dict[str | None, str]:
    from cd.cli.localrun import PROJECT
    from cd.pipeline.build import wanted_targets
    from cd.pipeline.builder import Builder, BuildRequest

    parsed = taken.dockerfile(pipeline.image)
    request = BuildRequest(
        files=taken.files,
        spec=pipeline.image,
        dockerfile=parsed,
        targets=wanted_targets(pipeline, parsed),
        tag=tag(taken.root),
        labels={"towpath.project": PROJECT},
        namespace=tag(taken.root).replace("/", "-").replace(":", "-"),
    )
    builder = Builder(settings.docker_host, timeout=settings.build_timeout)
    try:
        return builder.build(request, lambda data: printer.write("build", data), lambda: False)
    finally:
        builder.close()


def tag(root: Path) -> str:
    """Name and tag of the image of one working tree; the next build of the same takes it over."""
    from cd.cli.localrun import PROJECT

    return f"towpath/{PROJECT}:{hashlib.sha256(str(root).encode()).hexdigest()[:12]}"


def _show(result: Result) -> None:
    from cd.units import format_seconds

    rows: list[tuple[Any, ...]] = [
        (one.name, one.state, format_seconds(one.seconds) if one.seconds else "", one.reason) for one in result.stages
    ]
    click.echo()
    output.table(("STAGE", "STATE", "TOOK", "REASON"), rows, "no stages: nothing was tested")
    click.secho(f"the run {result.state}", bold=True, fg=output.STATES.get(result.state))
