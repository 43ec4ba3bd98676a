"""Keeping the engine's disk within its bound: which images made by Towpath may go, and letting them go.

Only images that this database knows are looked at; whatever else is on the engine is not ours.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog
from sqlalchemy import case, delete, func, select
from sqlalchemy.orm import Session

from cd.pipeline.records import Image, Project, Run, Step
from cd.sandbox.stock import Stock, Stored
from cd.store.base import now
from cd.store.database import Database, lock_events
from cd.store.records import Task

log = structlog.get_logger()

#: A run that ended this recently is still being looked at: retried, released, audited.
RECENT = timedelta(minutes=10)
SNAPSHOT = "towpath/kept"
#: Why an image stays, in words for people.
OPEN, JUST_ENDED, AUDITED = "an open run", "a run that ended just now", "an audit of reuse"
CONTAINER, BENEATH, NAMED, FILES = "a container", "an image on top of it", "another name", "files of a failed stage"

#: From an open session: images, as runs and releases name them, that must stay, and why.
Held = Callable[[Session], Mapping[str, str]]
#: Told, in the transaction that decides it, which of these names stand for images that go.
Retire = Callable[[Session, Collection[str]], None]


@dataclass(frozen=True)
class Candidate:
    """An image made by Towpath. `layers` as `Stock.layers`; `why` it must stay, empty when it may go."""

    image: Stored
    layers: Mapping[str, int]
    used: datetime
    why: str = ""
    #: All names by which rows may call it.
    names: Set[str] = frozenset()


@dataclass(frozen=True)
class Use:
    """How rows use an image."""

    used: datetime
    why: str = ""


def taken(candidates: Sequence[Candidate], foreign: Set[str] = frozenset()) -> int:
    """Bytes that the images take together, without layers that others (`foreign`) need anyway."""
    layers = {name: size for one in candidates for name, size in one.layers.items() if name not in foreign}
    return sum(layers.values())


def choose(candidates: Sequence[Candidate], foreign: Set[str], limit: int) -> list[Candidate]:
    """What has to go so that the rest takes at most `limit` bytes: least recently used first, nothing that must stay.

    Layers in `foreign` count for nothing, and shared ones until the last image that needs them is gone.
    """
    sizes: dict[str, int] = {}
    users: dict[str, int] = {}
    for one in candidates:
        for name, size in one.layers.items():
            sizes[name] = 0 if name in foreign else size
            users[name] = users.get(name, 0) + 1
    total, gone = sum(sizes.values()), []
    for one in sorted(candidates, key=lambda one: (one.used, one.image.id)):
        if total <= limit:
            break
        if one.why:
            continue
        gone.append(one)
        for name in one.layers:
            users[name] -= 1
            if not users[name]:
                total -= sizes[name]
    return gone


def uses(session: Session, names: Collection[str]) -> dict[str, Use]:
    """Of these names of images those that rows know: when each was used last, and whether runs need it."""
    fresh = case((Run.state.in_(("queued", "running")), 2), (Run.finished_at > now() - RECENT, 1), else_=0)
    at = func.max(func.coalesce(Run.finished_at, Run.created_at))
    of_runs = select(Run.image, at, func.max(fresh)).where(Run.image.in_(names)).group_by(Run.image)
    of_steps = (
        select(Step.image, at, func.max(fresh))
        .join(Run, Run.id == Step.run_id)
        .where(Step.image.in_(names))
        .group_by(Step.image)
    )
    found: dict[str, Use] = {}
    for name, used, grade in (*session.execute(of_runs), *session.execute(of_steps)):
        _add(found, name, Use(used, ("", JUST_ENDED, OPEN)[grade]))
    built = select(Image.digest, func.max(Image.created_at)).where(Image.digest.in_(names)).group_by(Image.digest)
    for name, used in session.execute(built):
        _add(found, name, Use(used))
    audits = (
        select(Step.image, Task.created_at)
        .join(Task, (Task.subject == Step.id) & (Task.kind == "audit"))
        .where(Task.state.in_(("ready", "claimed")), Step.image.in_(names))
    )
    for name, used in session.execute(audits):
        _add(found, str(name), Use(used, AUDITED))
    return found


def _add(found: dict[str, Use], name: str, use: Use) -> None:
    before = found.get(name, use)
    # "an open run" is the strongest of the words.
    why = OPEN if OPEN in (before.why, use.why) else before.why or use.why
    found[name] = Use(max(before.used, use.used), why)


@dataclass(frozen=True)
class Disk:
    """What of Towpath's is on one engine."""

    database: Database
    stock: Stock
    #: Bytes that its images may take.
    limit: int
    held: Held
    retire: Retire
    #: Registry and prefix that builds push to; empty without one.
    registry: str = ""

    def clean(self) -> int:
        """Let go what is over the bound; how many images went."""
        images = self.stock.images()
        # What images share is counted several times here: when even this is within the bound, all is well.
        if sum(one.size for one in images) <= self.limit:
            return 0
        layers = {one.id: self.stock.layers(one.id) for one in images}
        in_use = self.stock.in_use()
        with self.database.write() as session:
            lock_events(session)  # as promotions do: none is opened of what goes meanwhile
            candidates = self._candidates(session, images, layers, in_use)
            gone = choose(candidates, foreign(candidates, layers), self.limit)
            self._forget(session, gone)
        removed = [one for one in gone if self.stock.remove(one.image)]
        if removed:
            log.info("images.removed", count=len(removed), ids=[one.image.id[:19] for one in removed])
        return len(removed)

    def look(self) -> tuple[list[Candidate], int]:
        """What of Towpath's is there, with the reasons why it stays, and the bytes that it takes."""
        images = self.stock.images()
        layers = {one.id: self.stock.layers(one.id) for one in images}
        in_use = self.stock.in_use()
        with self.database.read() as session:
            candidates = self._candidates(session, images, layers, in_use)
        return candidates, taken(candidates, foreign(candidates, layers))

    def _candidates(
        self, session: Session, images: Sequence[Stored], layers: Mapping[str, Mapping[str, int]], in_use: Set[str]
    ) -> list[Candidate]:
        names = {one.id: frozenset((one.id, *one.digests)) for one in images}
        known, held = uses(session, frozenset().union(*names.values())), self.held(session)
        slugs = frozenset(session.scalars(select(Project.slug)))
        beneath = {one.parent for one in images}
        found = []
        for one in images:
            if is_snapshot(one):
                found.append(Candidate(one, layers[one.id], one.created, FILES, names[one.id]))
                continue
            mine = [known[name] for name in names[one.id] if name in known]
            if not mine:
                continue
            reasons = [
                *(held[name] for name in names[one.id] if name in held),
                *(use.why for use in mine),
                CONTAINER if one.id in in_use else "",
                BENEATH if one.id in beneath else "",
                "" if all(self._ours(name, slugs) for name in (*one.tags, *one.digests)) else NAMED,
            ]
            why = next(filter(None, reasons), "")
            found.append(Candidate(one, layers[one.id], max(use.used for use in mine), why, names[one.id]))
        return found

    def _ours(self, name: str, slugs: Set[str]) -> bool:
        """Whether a tag or digest is one that this installation gives."""
        repository = name.partition("@")[0]
        if "@" not in name:
            repository = repository.rpartition(":")[0]
        prefix, _, slug = repository.rpartition("/")
        return prefix in ("towpath", self.registry.rstrip("/") or "towpath") and slug in slugs

    def _forget(self, session: Session, gone: Sequence[Candidate]) -> None:
        """What can't be fetched from a registry is not known any more, and releases of it are retired."""
        lost = {one.image.id for one in gone}
        if lost:
            session.execute(delete(Image).where(Image.digest.in_(lost)))
            self.retire(session, lost)


def foreign(candidates: Sequence[Candidate], layers: Mapping[str, Mapping[str, int]]) -> set[str]:
    """Layers of images that are not ours."""
    ours = {one.image.id for one in candidates}
    return {name for image, found in layers.items() if image not in ours for name in found}


def is_snapshot(image: Stored) -> bool:
    """Whether it holds the files of a failed stage."""
    return image.labels.get("towpath.kind") == "snapshot"
