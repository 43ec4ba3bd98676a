"""Memory and CPU of an idle `towpath up` with 2 workers."""

from __future__ import annotations

import os
import time
from pathlib import Path

from bench.service import service
from bench.table import Figure

SETTLE, WATCH = 10.0, 60.0


def family(root: int) -> list[int]:
    """The process and all its descendants."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text()
            except OSError:
                continue  # it ended while we looked
            parents[int(entry.name)] = int(stat.rsplit(")", 1)[1].split()[1])
    found = [root]
    for pid in found:
        found += [child for child, parent in parents.items() if parent == pid]
    return found


def pss(pid: int) -> int:
    """Proportional set size in KiB."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1])
    return 0


def cpu(pid: int) -> float:
    """Seconds of CPU that the process and its ended children have used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return sum(int(fields[place]) for place in (11, 12, 13, 14)) / os.sysconf("SC_CLK_TCK")


def measure() -> list[Figure]:
    """Let it settle, watch the CPU for a minute, then weigh it."""
    with service() as running:
        time.sleep(SETTLE)
        root = running.process.pid
        before = sum(cpu(pid) for pid in family(root))
        time.sleep(WATCH)
        pids = family(root)
        used = (sum(cpu(pid) for pid in pids) - before) / WATCH * 100
        memory = sum(pss(pid) for pid in pids) / 1024
    return [
        Figure(
            "`towpath up` idle with 2 workers: memory of all its processes (PSS), CPU",
            "≤ 200 MB, ≤ 2 % of a core",
            f"{memory:.0f} MB, {used:.1f} %",
            f"{len(pids)} processes, {WATCH:.0f} s",
            memory <= 200 and used <= 2,
        )
    ]
