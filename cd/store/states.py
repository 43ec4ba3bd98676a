"""The only writer of state columns: a checked transition as compare-and-set, with its event."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from sqlalchemy import Update, bindparam, update
from sqlalchemy.orm import Session
from sqlalchemy.orm.util import identity_key

from cd.errors import StaleWrite
from cd.store import events

#: From each state to the states that may follow it; a state that maps to nothing is terminal.
Transitions = Mapping[str, frozenset[str]]


@dataclass(frozen=True)
class Machine:
    """A named state machine: `name` is the first half of its events' kinds."""

    name: str
    transitions: Transitions

    @property
    def terminal(self) -> frozenset[str]:
        """States that nothing follows."""
        return frozenset(state for state, follow in self.transitions.items() if not follow)

    def check(self, old: str, new: str) -> None:
        """Raises ValueError for a step that the table does not have."""
        if new not in self.transitions[old]:
            raise ValueError(f"{self.name}: {old} -> {new} is not a transition")


def move(session: Session, machine: Machine, row: Any, new: str, *, held: int | None = None, **values: Any) -> None:
    """Bring `row` (an ORM object with id, state, project_id) to `new`, writing `values` with it.

    The row must still be in the state that the object shows and, where `held` is given, carry that fence;
    otherwise StaleWrite is raised and the transaction should end. Appends the event `<machine>.<new>`.
    """
    old = row.state
    machine.check(old, new)
    table = type(row)
    where = [table.id == row.id, table.state == old]
    if held is not None:
        where.append(table.fence == held)
    session.flush()
    changed = session.execute(
        update(table).where(*where).values(state=new, **values).returning(table.id),
        execution_options={"synchronize_session": False},
    ).one_or_none()
    if changed is None:
        raise StaleWrite(f"{machine.name} {row.id} is no longer {old} at fence {held}")
    session.refresh(row)
    events.append(
        session,
        f"{machine.name}.{new}",
        project_id=row.project_id,
        run_id=row.id if machine.name == "run" else getattr(row, "run_id", None),
        subject=row.id,
    )


@cache
def _change(table: Any) -> Update:
    """The statement of `move_many`: made once for each table."""
    columns = table.__table__.c
    return update(table.__table__).where(columns.id == bindparam("moved_id"), columns.state == bindparam("moved_from"))


def move_many(
    session: Session,
    machine: Machine,
    table: Any,
    old: str,
    new: str,
    *,
    rows: Sequence[Mapping[str, Any]],
    project_id: int,
    run_id: int,
) -> None:
    """Bring many rows of `table` that belong to one run from `old` to `new` in one statement, each with its event.

    Each of `rows` has the row's `id` and the values to write with the state, the same columns in all of them. Raises
    StaleWrite when one of them is no longer `old`. Objects of them that the session has are read again.
    """
    if not rows:
        return
    machine.check(old, new)
    session.flush()
    told = [
        {"moved_id": row["id"], "moved_from": old, "state": new, **{k: v for k, v in row.items() if k != "id"}}
        for row in rows
    ]
    changed = session.connection().execute(_change(table), told).rowcount
    if changed != len(rows):
        raise StaleWrite(f"{len(rows) - changed} of {len(rows)} {machine.name}s are no longer {old}")
    ids = [row["id"] for row in rows]
    for key in ids:
        known = session.identity_map.get(identity_key(table, key))
        if known is not None:
            session.refresh(known)
    events.append_many(session, f"{machine.name}.{new}", ids, project_id=project_id, run_id=run_id)
