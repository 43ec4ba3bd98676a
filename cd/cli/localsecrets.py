"""Secrets of a run without a server: out of the environment, or as they are given."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import click

from cd.errors import UserError
from cd.pipeline import secrets
from cd.pipeline.definition import Pipeline
from cd.pipeline.parse import FILE
from cd.pipeline.plan import Planned


def collect(pipeline: Pipeline, planned: Sequence[Planned], given: Sequence[str]) -> dict[str, str]:
    """The secrets that the build and these steps ask for, in clear; `given` are NAME=VALUE, or NAME alone.

    A NAME alone that is not in the environment is asked for at the terminal. Raises UserError that names all that are
    missing, and who asks for them.
    """
    known = {*pipeline.image.secrets, *(name for stage in pipeline.stages.values() for name in stage.secrets)}
    values = dict(_given(one, known) for one in given)
    wanted: dict[str, str] = dict.fromkeys(pipeline.image.secrets, "image.secrets")
    for one in planned:
        if not one.skip:
            wanted = {**dict.fromkeys(one.spec.secrets, f"stages.{one.stage}.secrets"), **wanted}
    missing = [name for name in wanted if name not in values and name not in os.environ]
    if missing:
        raise UserError(
            f"there is no secret {', '.join(missing)}",
            where=f"{FILE}: {wanted[missing[0]]}",
            remedy=f"set it in the environment, or give --secret {missing[0]}",
        )
    found = {name: values.get(name, os.environ.get(name, "")) for name in wanted}
    for name, value in found.items():
        secrets.check(name, value)
    return found


def _given(text: str, known: set[str]) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if name not in known:
        raise click.UsageError(f"nothing in the pipeline asks for a secret {name!r}")
    if equals:
        return name, value
    if name in os.environ:
        return name, os.environ[name]
    if not sys.stdin.isatty():
        raise UserError(f"the environment has no {name}", remedy=f"set it, or give --secret {name}=VALUE")
    return name, click.prompt(name, hide_input=True, err=True)
