"""`bench/run [NAME…] [--write]`: measure, print the table, and with --write keep it in docs/figures.md."""

from __future__ import annotations

import importlib
import sys
from datetime import UTC, datetime
from pathlib import Path

from bench.table import HEAD, Figure, row

NAMES = (
    "probes",
    "paths",
    "decide",
    "latency",
    "stage",
    "width",
    "reuse",
    "webhooks",
    "chaos",
    "adoption",
    "idle",
    "board",
    "logs",
    "live",
    "secrets",
)
PAGE = Path(__file__).parent.parent / "docs" / "figures.md"
#: Around the table, with what the page says besides.
BEGIN, END = "<!-- begin -->\n", "<!-- end -->\n"


def main() -> int:
    """Measure the named ones, or all. Exit status 1 when a target was missed."""
    wanted = [name for name in sys.argv[1:] if name != "--write"] or list(NAMES)
    unknown = set(wanted) - set(NAMES)
    if unknown:
        print(f"no such measurement: {', '.join(unknown)}; known: {', '.join(NAMES)}", file=sys.stderr)
        return 2
    day = datetime.now(UTC).date().isoformat()
    rows: dict[str, list[str]] = {}
    missed = False
    for name in wanted:
        print(f"{name} …", file=sys.stderr)
        figures: list[Figure] = importlib.import_module(f"bench.{name}").measure()
        rows[name] = [row(name, figure, day) for figure in figures]
        missed = missed or not all(figure.reached for figure in figures)
        if "--write" in sys.argv:
            write(rows)
    print("\n".join([*HEAD, *(line for lines in rows.values() for line in lines)]))
    return 1 if missed else 0


def write(rows: dict[str, list[str]]) -> None:
    """Put these into the page; lines of other measurements stay, all in the order of NAMES."""
    page = PAGE.read_text()
    before, _, rest = page.partition(BEGIN)
    table, _, after = rest.partition(END)
    kept = [line for line in table.splitlines() if line.startswith("| ")][len(HEAD) :]
    known = {name: [line for line in kept if line.startswith(f"| {name} |")] for name in NAMES} | rows
    lines = [*HEAD, *(line for name in NAMES for line in known[name])]
    PAGE.write_text(f"{before}{BEGIN}{chr(10).join(lines)}\n{END}{after}")


if __name__ == "__main__":
    sys.exit(main())
