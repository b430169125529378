"""CPU time and memory of a target's daemons, read from /proc."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
PARENT, USER, SYSTEM, CHILDREN_USER, CHILDREN_SYSTEM = 1, 11, 12, 13, 14  # after "comm)"


def cpu_seconds(pids: Iterable[int]) -> float:
    """User and system time of these processes and of what they have started.

    Descendants that have ended count once their parent has waited for them.
    """
    stats = _stats()
    total = 0
    for pid in _family(set(pids), stats):
        fields = stats[pid]
        total += sum(fields[i] for i in (USER, SYSTEM, CHILDREN_USER, CHILDREN_SYSTEM))
    return total / TICKS_PER_S


def memory_bytes(pids: Iterable[int]) -> int:
    """Proportional set size of these processes and their descendants.

    Pages that several share are divided between them, so that processes of
    one program are not charged for its text once each.
    """
    return sum(_memory_of(pid) for pid in _family(set(pids), _stats()))


def _memory_of(pid: int) -> int:
    for name, row in (("smaps_rollup", "Pss:"), ("status", "VmRSS:")):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/{name}").read_text().splitlines():
                if line.startswith(row):
                    return int(line.split()[1]) * 1024
    return 0


def _stats() -> dict[int, list[int]]:
    """The numeric fields of every process's stat line from the state on (state is 0)."""
    found = {}
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                text = Path(f"/proc/{entry.name}/stat").read_text().rpartition(")")[2]
                found[int(entry.name)] = [0, *map(int, text.split()[1:16])]
    return found


def _family(pids: set[int], stats: dict[int, list[int]]) -> set[int]:
    family = pids & stats.keys()
    while more := {p for p, f in stats.items() if f[PARENT] in family} - family:
        family |= more
    return family
