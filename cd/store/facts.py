"""Lasting facts about this installation."""

from __future__ import annotations

import secrets

from sqlalchemy.orm import Session

from cd.store.base import insert_new
from cd.store.records import Fact


def instance(session: Session) -> str:
    """Eight hex digits that tell this installation's containers from another's; made at first use."""
    fact = session.get(Fact, "instance")
    if fact is None:
        made = insert_new(session.get_bind().dialect.name, Fact).values(name="instance", value=secrets.token_hex(4))
        session.execute(made)
        fact = session.get_one(Fact, "instance")
    return fact.value
