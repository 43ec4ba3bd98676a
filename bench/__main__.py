"""`bench/run [NAME…] [--write]`: measure, print the table, and with --write keep it in docs/figures.md."""

from __future__ import annotations

import importlib
import platform
import sys
from datetime import UTC, datetime
from pathlib import Path

from bench.table import Figure, markdown

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
)
PAGE = Path(__file__).parent.parent / "docs" / "figures.md"
HEAD = """# Figures

Measured by `bench/run --write` on {date} ({machine}). Each line is one command of `bench/`; those that compare do so in
one run, alternating, as a ratio.

"""


def main() -> int:
    """Measure the named ones, or all. Exit status 1 when a target was missed."""
    wanted = [name for name in sys.argv[1:] if name != "--write"] or list(NAMES)
    unknown = set(wanted) - set(NAMES)
    if unknown:
        print(f"no such measurement: {', '.join(unknown)}; known: {', '.join(NAMES)}", file=sys.stderr)
        return 2
    figures: list[Figure] = []
    for name in wanted:
        print(f"{name} …", file=sys.stderr)
        figures += importlib.import_module(f"bench.{name}").measure()
    table = markdown(figures)
    print(table)
    if "--write" in sys.argv:
        machine = f"{platform.system()} {platform.machine()}, Python {platform.python_version()}, 2 cores"
        PAGE.write_text(HEAD.format(date=datetime.now(UTC).date(), machine=machine) + table + "\n")
    return 0 if all(figure.reached for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
