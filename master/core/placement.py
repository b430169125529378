"""Which chunk servers get a new chunk (GFS §4.2).

Free space decides how often a server is chosen, racks spread the members, and
recent placements weigh so that an empty server is not buried under writes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gfs.errors import TooFewServers

if TYPE_CHECKING:
    from random import Random


@dataclass(frozen=True)
class Candidate:
    """A live server as placement sees it."""

    server: int
    rack: str
    free_bytes: int
    open_chunks: int


def members_needed(goal: int, write_min: int, known_servers: int) -> int:
    """A new chunk needs this many: min(goal, write_min), 1 in a cluster of one."""
    return 1 if known_servers <= 1 else min(goal, write_min, known_servers)


def choose(
    candidates: Iterable[Candidate],
    *,
    goal: int,
    needed: int,
    chunk_bytes: int,
    random: Random,
    local: int = 0,
) -> list[int]:
    """Up to `goal` servers, distinct racks first; the first is primary.

    `local` is preferred as primary when it is among the candidates.

    Raises:
      TooFewServers: fewer than `needed` have room.
    """
    room = [c for c in candidates if c.free_bytes >= chunk_bytes]
    if len(room) < needed:
        raise TooFewServers(f"{len(room)} chunk servers have room, {needed} are needed")
    order = sorted(room, key=lambda c: _rank(c, random), reverse=True)
    chosen: list[Candidate] = []
    racks: set[str] = set()
    for spread in (True, False):
        for candidate in order:
            if len(chosen) == goal:
                break
            if candidate in chosen or (spread and candidate.rack in racks):
                continue
            chosen.append(candidate)
            racks.add(candidate.rack)
    chosen.sort(key=lambda c: c.server != local)
    return [candidate.server for candidate in chosen]


def _rank(candidate: Candidate, random: Random) -> float:
    """Weighted draw without replacement: u ** (1 / weight) (Efraimidis and Spirakis)."""
    weight = candidate.free_bytes / (1 + candidate.open_chunks)
    return float(random.random() ** (1.0 / max(weight / (1 << 30), 1e-3)))
