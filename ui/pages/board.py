"""The board: every project, its environments, and the one thing to do next in each."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain

from flask import Blueprint, Response, render_template
from flask.typing import ResponseReturnValue

from cd.identity.people import Role
from cd.promote import queries
from cd.promote.rows import BoardRow, Slot
from cd.store import events
from cd.store.records import Event
from cd.web import live
from cd.web.context import access, services
from ui.pages.common import argument


@dataclass(frozen=True)
class Next:
    """What stands between two environments: a state, or something to do. `promote` is a release's number."""

    tone: str
    text: str
    promotion: int | None = None
    act: bool = False
    promote: int | None = None


@dataclass(frozen=True)
class Place:
    """A slot with what comes next for it."""

    slot: Slot
    next: Next


def register(pages: Blueprint) -> None:
    """Board, approvals and the stream of events that keeps all pages fresh."""
    pages.add_url_rule("/", "board", access(Role.viewer)(show))
    pages.add_url_rule("/approvals", "approvals", access(Role.viewer)(approvals))
    pages.add_url_rule("/events", "events", access(Role.viewer)(stream))


def show() -> ResponseReturnValue:
    """All projects."""
    with services().database.read() as session:
        cursor = events.newest(session)
        rows = queries.board(session)
    waiting = sum(1 for row in rows for slot in row.slots if slot.open and slot.open.state == "awaiting_approval")
    board = [(row, places(row)) for row in rows]
    return render_template("ui/board.html", board=board, cursor=cursor, waiting=waiting)


def approvals() -> ResponseReturnValue:
    """Promotions that wait for somebody's vote."""
    with services().database.read() as session:
        cursor = events.newest(session)
        waiting = queries.waiting(session)
    return render_template("ui/approvals.html", waiting=waiting, cursor=cursor)


def waiting_count() -> int:
    """For the menu: how many promotions wait for a vote."""
    with services().database.read() as session:
        return queries.waiting_count(session)


def places(row: BoardRow) -> list[Place]:
    """The environments of a row, each with what comes next for it."""
    return [Place(slot, upcoming(slot)) for slot in row.slots]


def upcoming(slot: Slot) -> Next:
    """The one thing to say about how the next release gets here."""
    if slot.open is not None:
        return _open(slot)
    if slot.trouble is not None and not (slot.live and slot.live.promotion_id > slot.trouble.id):
        words = {"rolled_back": "rolled back", "rollback_failed": "rollback failed"}
        state = words.get(slot.trouble.state, slot.trouble.state)
        return Next("bad", f"#{slot.trouble.release.number} {state}", slot.trouble.id)
    if slot.next is not None:
        return Next("act", f"Promote #{slot.next.number}", promote=slot.next.number)
    return Next("idle", "up to date" if slot.live else "waits for a release")


def _open(slot: Slot) -> Next:
    assert slot.open is not None
    number = f"#{slot.open.release.number}"
    match slot.open.state:
        case "awaiting_approval":
            votes = f"{slot.open.approvals} of {slot.required}" if slot.required > 1 else ""
            return Next("act", f"Approve {number}" + (f" · {votes}" if votes else ""), slot.open.id, act=True)
        case "waiting":
            return Next("wait", f"{number} {slot.open.reason or 'waits'}"[:60], slot.open.id)
        case "queued":
            return Next("wait", f"{number} queued", slot.open.id)
        case "rolling_back":
            return Next("run", f"{number} rolling back", slot.open.id)
        case state:
            return Next("run", f"{number} {state}", slot.open.id)


def stream() -> ResponseReturnValue:
    """Server-sent events of state changes, of all projects or of the one in `?project=`."""
    wanted = argument("project")

    def fits(event: Event) -> bool:
        return wanted is None or event.project_id == wanted

    frames = live.stream(live.resume_at(), fits)
    answer = Response(chain(["retry: 1000\n\n"], map(_unnamed, frames)), mimetype="text/event-stream")
    answer.headers["Cache-Control"] = "no-store"
    answer.headers["X-Accel-Buffering"] = "no"
    return answer


def _unnamed(frames: str) -> str:
    """Pages listen to events of any kind, and a browser hands over only those without a name that way."""
    return "".join(line for line in frames.splitlines(keepends=True) if not line.startswith("event: "))
