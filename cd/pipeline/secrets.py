"""Secrets of a project: stored encrypted, given to stages and builds of trusted runs, never shown again."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from cd.errors import NotFound, TooLarge, UserError
from cd.identity import audit
from cd.pipeline.projects import Vault
from cd.pipeline.records import Project, Secret
from cd.store.base import now

#: The same as in names of variables, since that is how a stage sees them.
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
MAX_BYTES = 64 << 10


@dataclass(frozen=True)
class SecretRow:
    """What is told of a secret."""

    name: str
    version: int
    changed_by: str
    changed_at: datetime


def put(session: Session, vault: Vault, project: Project, name: str, *, value: str, actor: str) -> int:
    """Store a secret, in the place of one of that name; returns its version. Raises UserError."""
    check(name, value)
    sealed = vault.encrypt(value, _about(project.id, name))
    row = session.scalar(select(Secret).where(Secret.project_id == project.id, Secret.name == name).with_for_update())
    if row is None:
        row = Secret(project_id=project.id, name=name, version=0)
        session.add(row)
    row.value, row.version, row.changed_by, row.changed_at = sealed, row.version + 1, actor, now()
    session.flush()
    audit.append(session, actor, "secret.set", project.slug, name=name, version=row.version)
    return row.version


def delete(session: Session, project: Project, name: str, actor: str) -> None:
    """Forget a secret's value. Raises NotFound."""
    row = session.scalar(
        select(Secret).where(Secret.project_id == project.id, Secret.name == name, Secret.value.is_not(None))
    )
    if row is None:
        raise NotFound(f"{project.slug} has no secret {name[:128]!r}", remedy="`towpath secret list` names them")
    row.value, row.changed_by, row.changed_at = None, actor, now()
    session.flush()
    audit.append(session, actor, "secret.delete", project.slug, name=name)


def listing(session: Session, project_id: int) -> list[SecretRow]:
    """All secrets of a project by name, without their values."""
    rows = session.execute(
        select(Secret.name, Secret.version, Secret.changed_by, Secret.changed_at)
        .where(Secret.project_id == project_id, Secret.value.is_not(None))
        .order_by(Secret.name)
    )
    return [SecretRow(*row) for row in rows]


def versions(session: Session, project_id: int, names: Collection[str]) -> dict[str, int]:
    """The version of each of these secrets; names that there is none of are left out."""
    rows = session.execute(
        select(Secret.name, Secret.version).where(
            Secret.project_id == project_id, Secret.name.in_(names), Secret.value.is_not(None)
        )
    )
    return {row.name: row.version for row in rows}


def values(session: Session, vault: Vault, project_id: int, names: Sequence[str]) -> dict[str, str]:
    """The secrets in clear. Raises UserError that names those that there are none of."""
    if not names:
        return {}
    rows = session.execute(
        select(Secret.name, Secret.value).where(
            Secret.project_id == project_id, Secret.name.in_(names), Secret.value.is_not(None)
        )
    )
    found = {name: vault.decrypt(value, _about(project_id, name)) for name, value in rows if value is not None}
    absent = [name for name in names if name not in found]
    if absent:
        raise UserError(
            f"the project has no secret {', '.join(absent)}", remedy="`towpath secret set PROJECT NAME` stores one"
        )
    return {name: found[name] for name in names}


def check(name: str, value: str) -> None:
    """Raises UserError for what can be no secret."""
    if not NAME.fullmatch(name):
        raise UserError(f"{name[:128]!r} can't be a secret's name", remedy="use letters, digits and _")
    if name.startswith("TOWPATH_"):
        raise UserError("names with TOWPATH_ are Towpath's own", where=name[:128], remedy="choose another name")
    if not value:
        raise UserError("the value is empty", where=name, remedy="give one, or delete the secret")
    if len(value.encode(errors="surrogatepass")) > MAX_BYTES:
        raise TooLarge(f"the value is over {MAX_BYTES >> 10} KiB", where=name, remedy="keep it elsewhere")
    if "\0" in value or any("\ud800" <= char <= "\udfff" for char in value):
        raise UserError("the value has a NUL or half a character in it", where=name, remedy="encode it as base64")


def _about(project_id: int, name: str) -> str:
    return f"secret/{project_id}/{name}"
