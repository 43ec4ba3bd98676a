"""Shells: a terminal on what a failed stage left."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Generator, Iterator, Mapping
from itertools import chain

from flask import Response
from pydantic import BaseModel, Field

from cd.errors import Conflict, NotFound, UserError
from cd.identity import audit
from cd.identity.people import Role
from cd.pipeline import kept
from cd.sandbox.shell import LONGEST, USER_LABEL, Shells, shell_spec
from cd.web.api.common import part, shown
from cd.web.api.models import StepPath, Taken
from cd.web.context import access, services, who

api = part("shell")
#: Shells at the same time: each holds a thread of the web process and a stage's memory.
MOST = 10
#: Most bytes typed at once, in base64.
TYPED = 64 << 10


class NewShell(Taken):
    attempt: int | None = Field(None, ge=1, le=2**31, description="Which attempt's files; none: the last kept ones.")


class Shell(BaseModel):
    shell: str = Field(description="Its name, for the calls that read, type and end.")
    attempt: int
    seconds: float = Field(description="How long it lasts at most.")


class ShellPath(BaseModel):
    shell: str = Field(pattern="^towpath-shell-[0-9a-f]{24}$")


class Typed(Taken):
    data: str = Field("", max_length=TYPED, description="What is typed, in base64.")
    rows: int | None = Field(None, ge=1, le=1000, description="With `columns`: the size of the terminal.")
    columns: int | None = Field(None, ge=1, le=1000)


@api.post("/projects/<slug>/runs/<int:number>/steps/<step>/shell", responses={201: Shell})
@access(Role.developer)
def open_shell(path: StepPath, body: NewShell) -> Response:
    """A container on the kept files of a failed stage. It begins when it is read, and ends with that connection."""
    parts, shells, instance = services(), _shells(), services().instance()
    with parts.database.read() as session:
        found = kept.find(session, path.slug, path.number, path.step, body.attempt)
    if shells.count(instance) >= MOST:
        raise Conflict(f"there are {MOST} shells already", remedy="end one of them")
    labels = {
        "towpath.instance": instance,
        "towpath.project": path.slug,
        "towpath.run": str(path.number),
        "towpath.stage": path.step,
    }
    with parts.database.write() as session:
        told = {"run": path.number, "stage": path.step, "attempt": found.attempt}
        audit.append(session, who().username, "shell.open", path.slug, **told)
    name = shells.open(shell_spec(found.image, found.limits, found.env, labels, who().username))
    return shown(Shell(shell=name, attempt=found.attempt, seconds=LONGEST), 201)


@api.get("/shells/<shell>", responses={200: {"content": {"application/octet-stream": {}}}})
@access(Role.developer)
def read_shell(path: ShellPath) -> Response:
    """What it writes, until it ends: frames of a length, four bytes with the highest first, and so many bytes.

    Empty frames are signs of life. The end of this connection ends the shell.
    """
    _mine(path.shell)
    pieces = _shells().read(path.shell)
    # What keeps it from beginning is told before the answer begins.
    first = next(pieces, None)
    answer = Response(
        _frames(chain([] if first is None else [first], pieces), pieces), mimetype="application/octet-stream"
    )
    answer.headers["X-Accel-Buffering"] = "no"
    return answer


def _frames(all_: Iterator[bytes], pieces: Generator[bytes, None, None]) -> Iterator[bytes]:
    try:
        for data in all_:
            yield len(data).to_bytes(4, "big") + data
    finally:
        pieces.close()


@api.post("/shells/<shell>/input", responses={204: None})
@access(Role.developer)
def type_shell(path: ShellPath, body: Typed) -> Response:
    """Type into it, or tell it the size of the terminal."""
    _mine(path.shell)
    try:
        data = base64.b64decode(body.data, validate=True)
    except binascii.Error as error:
        raise UserError("this is not base64", where="data") from error
    if body.rows is not None and body.columns is not None:
        _shells().resize(path.shell, body.rows, body.columns)
    if data:
        _shells().write(path.shell, data)
    return Response(status=204)


@api.delete("/shells/<shell>", responses={204: None})
@access(Role.developer)
def end_shell(path: ShellPath) -> Response:
    """End it."""
    _mine(path.shell)
    _shells().remove(path.shell)
    return Response(status=204)


def _shells() -> Shells:
    parts = services()
    return Shells(parts.sandbox, parts.settings.sandbox_runtime)


def _mine(name: str) -> Mapping[str, str]:
    """Whoever opened it, and nobody else, may read and type. Raises NotFound."""
    labels = _shells().find(name)
    if labels.get(USER_LABEL) != who().username or labels.get("towpath.instance") != services().instance():
        raise NotFound("there is no such shell")
    return labels
