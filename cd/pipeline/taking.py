"""Going through the files that a stage left: which are reports, which are artifacts, which are neither."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from cd.errors import UserError
from cd.pipeline import globs, reports
from cd.pipeline.archive import Entry
from cd.pipeline.artifacts import ArtifactStore, Stored
from cd.pipeline.definition import StageSpec
from cd.pipeline.globs import Glob
from cd.pipeline.junit import BadReport, Reader, shortened
from cd.pipeline.masking import Masker

#: Largest report in bytes, most artifacts of one attempt, longest path of one in characters.
MAX_REPORT = 64 << 20
MAX_FILES = 5000
MAX_PATH = 1000
#: Remarks of one kind that are told one by one, and characters of what is said of one report.
MAX_NOTES = 5
MAX_SAID = 200


@dataclass
class Take:
    """One attempt's files as they come by. `secrets` are masked in all that is told and kept of them."""

    store: ArtifactStore
    blobs: str
    limit: int
    secrets: Sequence[str]
    reports: list[Glob] = field(default_factory=list)
    artifacts: list[Glob] = field(default_factory=list)
    #: By path.
    kept: dict[str, Stored] = field(default_factory=dict)
    _matched: set[str] = field(default_factory=set)
    _notes: dict[str, list[str]] = field(default_factory=dict)
    _lost: list[str] = field(default_factory=list)
    _used: int = 0

    def __post_init__(self) -> None:
        self.results = reports.Results(self._masked)
        self._masker = Masker(self.secrets)

    def want(self, spec: StageSpec) -> None:
        """Read the patterns; those that can't be are told of."""
        for texts, into in ((spec.reports.junit, self.reports), (spec.artifacts, self.artifacts)):
            for text in texts:
                try:
                    into.append(globs.glob(text))
                except UserError as error:
                    self.lose(str(error))

    def lose(self, why: str) -> None:
        """Artifacts that can't be kept."""
        self._lost.append(why)

    def entry(self, entry: Entry) -> None:
        """Look at one file."""
        as_report = self._wanted(self.reports, entry.path)
        as_artifact = self._wanted(self.artifacts, entry.path)
        if not as_report and not as_artifact:
            return
        if entry.refused:
            self._note(f"left out because {entry.refused}", entry.path)
            return
        pieces = entry.pieces()
        reading = None
        if as_report and entry.size > MAX_REPORT:
            self._note(f"no report: larger than {MAX_REPORT >> 20} MiB", entry.path)
        elif as_report:
            reading = _Reading()
            pieces = reading.through(pieces)
        if as_artifact and self._fits(entry):
            self._keep(entry.path, pieces)
        elif reading is not None:
            for _ in pieces:
                pass
        if reading is not None:
            self._add(entry.path, reading)

    def _wanted(self, patterns: Sequence[Glob], path: str) -> bool:
        matching = [one.text for one in patterns if one.matches(path)]
        self._matched.update(matching)
        return bool(matching)

    def _fits(self, entry: Entry) -> bool:
        if entry.path in self.kept:
            return False
        if self._masked(entry.path) != entry.path:
            self.lose(f"the name {entry.path} holds the value of a secret")
        elif len(entry.path) > MAX_PATH:
            self.lose(f"{entry.path[:100]}… has a path of more than {MAX_PATH} characters")
        elif len(self.kept) >= MAX_FILES:
            self._lose_once(f"more than {MAX_FILES} files match; pack them into one")
        elif self._used + entry.size > self.limit:
            self._lose_once(f"{entry.path} and what came before are more than {_size(self.limit)}")
        else:
            return True
        return False

    def _lose_once(self, why: str) -> None:
        if not self._lost:
            self.lose(why)

    def _keep(self, path: str, pieces: Iterator[bytes]) -> None:
        seen = _Seen(self.secrets)
        stored = self.store.write(f"{self.blobs}/{len(self.kept)}", seen.through(pieces))
        if seen.secret:
            self.store.remove(stored.blob)
            self.lose(f"{path} holds the value of a secret; leave it out of what is kept")
            return
        self._used += stored.size
        self.kept[path] = stored

    def _add(self, path: str, reading: _Reading) -> None:
        try:
            self.results.add(reading.report())
        except BadReport as error:
            # Masked before it is cut: half a secret would not be known as one.
            said = shortened(self._masked(error.message), MAX_SAID).replace("\n", " ")
            self._note("a report that can't be read", f"{path}: {said}")

    def _note(self, why: str, what: str) -> None:
        self._notes.setdefault(why, []).append(what)

    def _masked(self, text: str) -> str:
        if not self.secrets or not text:
            return text
        data = text.encode("utf-8", "replace")
        return (self._masker.feed(data) + self._masker.flush()).decode("utf-8", "replace")

    @property
    def lost(self) -> str:
        """Why artifacts can't be kept; empty when all are."""
        return self._masked(f"artifacts can't be kept: {'; '.join(self._lost[:MAX_NOTES])}") if self._lost else ""

    def notes(self) -> Iterator[str]:
        """Remarks, once everything has come by."""
        for kind, patterns in (("no report", self.reports), ("no file", self.artifacts)):
            missing = [one.text for one in patterns if one.text not in self._matched]
            if missing:
                yield f"{kind} at {_listed(missing)}"
        for why, what in self._notes.items():
            yield self._masked(f"{why}: {_listed(what)}")
        if self.results.note:
            yield self.results.note


class _Reading:
    """A report that is read while its bytes pass on to somebody else."""

    def __init__(self) -> None:
        self._reader = Reader()
        self._bad: BadReport | None = None

    def through(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        for piece in pieces:
            self._feed(piece)
            yield piece
        self._feed(b"", last=True)

    def _feed(self, piece: bytes, last: bool = False) -> None:
        if self._bad is None:
            try:
                self._reader.feed(piece, last)
            except BadReport as error:
                self._bad = error

    def report(self) -> Reader:
        """What was read. Raises BadReport."""
        if self._bad is not None:
            raise self._bad
        return self._reader


class _Seen:
    """Whether there was a secret in what passed: a file is kept as it is or not at all."""

    def __init__(self, secrets: Sequence[str]) -> None:
        self._masker = Masker(secrets) if secrets else None
        self.secret = False

    def through(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        masker = self._masker
        if masker is None:
            yield from pieces
            return
        plain, masked = hashlib.sha256(), hashlib.sha256()
        for piece in pieces:
            plain.update(piece)
            masked.update(masker.feed(piece))
            yield piece
        masked.update(masker.flush())
        self.secret = plain.digest() != masked.digest()


def _listed(what: Sequence[str]) -> str:
    more = f", and {len(what) - MAX_NOTES} more" if len(what) > MAX_NOTES else ""
    return ", ".join(what[:MAX_NOTES]) + more


def _size(value: int) -> str:
    return f"{value / (1 << 20):,.0f} MiB" if value >= 1 << 20 else f"{value:,} bytes"
