"""`towpath shell`: a terminal on what a failed stage left, through the server or on this machine's engine."""

from __future__ import annotations

import base64
import contextlib
import os
import select
import shutil
import sys
import threading
from collections.abc import Callable, Generator, Iterator, Mapping
from typing import Any

import click

from cd.cli.client import Client, connect, part
from cd.cli.run import number_argument, project_argument, where
from cd.errors import NotFound, TowpathError

#: Seconds between two looks at the size of the terminal, and bytes typed at once.
LOOK, BLOCK = 0.5, 16 << 10
END_OF_INPUT = b"\x04"

Write = Callable[[bytes], None]
Resize = Callable[[int, int], None]


@click.command()
@project_argument
@number_argument
@click.argument("stage")
@click.option("--attempt", type=click.IntRange(1), help="Which attempt's files; without it the last kept ones.")
@click.option("--local", is_flag=True, help="Ask no server: look on this machine's engine.")
def shell(project: str, number: int, stage: str, attempt: int | None, local: bool) -> None:
    """Open a shell on the files of a failed stage: /work and /tmp as it left them, without network and secrets.

    STAGE is the name of the stage, or stage:cell. The container ends with the shell, after an hour at the latest.
    """
    if local:
        _local(project, number, stage, attempt)
    else:
        _remote(connect(), project, number, stage, attempt)


def _remote(client: Client, project: str, number: int, stage: str, attempt: int | None) -> None:
    made = client.post(f"{where(project, number)}/steps/{part(stage)}/shell", attempt=attempt)
    address = f"/shells/{part(made['shell'])}"
    _told(stage, made["attempt"])

    def write(data: bytes) -> None:
        client.post(f"{address}/input", data=base64.b64encode(data).decode())

    def resize(rows: int, columns: int) -> None:
        client.post(f"{address}/input", rows=rows, columns=columns)

    talk(_unframed(client.stream(address)), write, resize)


def _unframed(pieces: Iterator[bytes]) -> Generator[bytes, None, None]:
    """From frames of a length and so many bytes to the bytes; also the empty ones, which are signs of life."""
    left = b""
    for piece in pieces:
        left += piece
        while len(left) >= 4 and len(left) >= 4 + (size := int.from_bytes(left[:4], "big")):
            yield left[4 : 4 + size]
            left = left[4 + size :]


def _local(project: str, number: int, stage: str, attempt: int | None) -> None:
    from cd.config import Settings
    from cd.sandbox.docker_engine import DockerSandbox
    from cd.sandbox.shell import Shells, local_spec
    from cd.sandbox.stock import Stock

    settings = Settings()
    sandbox = DockerSandbox(settings.docker_host, settings.sandbox_runtime)
    wanted = {"towpath.kind": "snapshot", "towpath.project": project, "towpath.run": str(number)}
    wanted["towpath.stage"] = stage
    if attempt is not None:
        wanted["towpath.attempt"] = str(attempt)
    stock = Stock(sandbox.api)
    found = [one for one in stock.images() if _fits(one.labels, wanted)]
    if not found:
        raise NotFound(
            f"this engine has no kept files of stage {stage} of run #{number} of {project}",
            remedy=f"leave --local out to ask the server, or `towpath project set {project} --keep-failed` and retry",
        )
    newest = max(found, key=lambda one: (int(one.labels.get("towpath.attempt", 0)), one.created))
    shells = Shells(sandbox, settings.sandbox_runtime)
    name = shells.open(local_spec(newest, stock.layers(newest.id)))
    _told(stage, int(newest.labels.get("towpath.attempt", 0)))
    talk(
        shells.read(name),
        lambda data: shells.write(name, data),
        lambda rows, columns: shells.resize(name, rows, columns),
    )
    sandbox.api.close()


def _fits(labels: Mapping[str, str], wanted: Mapping[str, str]) -> bool:
    return all(labels.get(name) == value for name, value in wanted.items())


def _told(stage: str, attempt: int) -> None:
    click.echo(f"{stage}, attempt {attempt}: /work and /tmp as it left them; no network; ends with `exit`", err=True)


def talk(pieces: Generator[bytes, None, None], write: Write, resize: Resize) -> None:
    """Show what comes and pass on what is typed, until nothing comes any more."""
    out = sys.stdout.buffer
    first = next(pieces, None)  # from now on it can be typed into
    if first is None:
        return
    ended = threading.Event()
    typing = threading.Thread(target=_type, args=(write, resize, ended), daemon=True)
    with _raw_terminal():
        typing.start()
        try:
            out.write(first)
            out.flush()
            for data in pieces:
                out.write(data)
                out.flush()
        finally:
            ended.set()
            pieces.close()
            typing.join(2 * LOOK)


def _type(write: Write, resize: Resize, ended: threading.Event) -> None:
    size: tuple[int, int] | None = None
    try:
        while not ended.is_set():
            if sys.stdin.isatty() and (now := shutil.get_terminal_size()) != size:
                size = now
                resize(now.lines, now.columns)
            if not select.select([sys.stdin], [], [], LOOK)[0]:
                continue
            data = os.read(sys.stdin.fileno(), BLOCK)
            write(data or END_OF_INPUT)
            if not data:
                return
    except (TowpathError, OSError, ValueError):
        return  # it has ended, which the reader of its output sees


@contextlib.contextmanager
def _raw_terminal() -> Iterator[None]:
    """Keys go to the other end as they are; the terminal is as before afterwards."""
    if not sys.stdin.isatty():
        yield
        return
    import termios
    import tty

    before: list[Any] = termios.tcgetattr(sys.stdin)
    try:
        tty.setraw(sys.stdin, termios.TCSADRAIN)  # what was typed already is not lost
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)
