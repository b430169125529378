"""Which copy of a sealed chunk is made next, from where to where, and which one is too many.

Pure choices over what is known of the servers; repair.py and rebalancing.py drive them.

    endangered  fewer copies than the goal: fewest first, then what a client waits for, then
                what files refer to, then the rest
    target      a server that has no copy: no rack twice, emptiest first
    surplus     more copies than the goal: off what is being drained first, then out of racks
                that hold several, then off the fullest

Source: GFS §4.2 (placement), §4.3 (re-replication, rebalancing).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass


@dataclass
class Site:
    """A live server: `free_bytes` less what is on its way there; streams running now."""

    server: int
    rack: str
    free_bytes: int
    total_bytes: int
    draining: bool = False
    reading: int = 0  # copies made from here
    writing: int = 0  # copies made to here

    @property
    def free_share(self) -> float:
        return self.free_bytes / self.total_bytes if self.total_bytes else 0.0


Sites = Mapping[int, Site]
Failures = Mapping[int, int]  # server -> copies of this chunk that failed there
NO_FAILURES: Failures = {}

Rank = tuple[int, bool, bool]  # the lowest is copied first


def rank(copies: int, references: int, *, asked: bool) -> Rank:
    """How urgent a chunk is, with so many whole copies left."""
    return copies, not asked, not references


def staying(holders: Iterable[int], sites: Sites) -> list[int]:
    """Holders whose copies count toward the goal: live, and not being drained."""
    return [server for server in holders if server in sites and not sites[server].draining]


def choose_source(
    holders: Iterable[int], sites: Sites, *, streams: int, failures: Failures = NO_FAILURES
) -> int | None:
    """The least busy holder below `streams`, one that has not failed before; None: all busy."""
    free = [s for s in holders if s in sites and sites[s].reading < streams]
    return min(free, key=lambda s: (failures.get(s, 0), sites[s].reading, s), default=None)


def targets(
    holders: Collection[int], sites: Sites, *, length: int, without: Collection[int] = ()
) -> list[Site]:
    """Servers that could take one more copy at all, however busy they are now."""
    return [
        site
        for server, site in sites.items()
        if server not in holders
        and server not in without
        and not site.draining
        and site.free_bytes >= length
    ]


def choose_target(
    candidates: Iterable[Site],
    holders: Iterable[int],
    sites: Sites,
    *,
    streams: int,
    failures: Failures = NO_FAILURES,
    shunned: Collection[int] = (),
) -> int | None:
    """Of `targets` the best below `streams`; `shunned` ones last. None: all are busy."""
    racks = {sites[server].rack for server in staying(holders, sites)}
    free = [site for site in candidates if site.writing < streams]
    best = min(
        free,
        key=lambda site: (
            site.server in shunned,
            failures.get(site.server, 0),
            site.rack in racks,
            site.writing,
            -site.free_share,
            site.server,
        ),
        default=None,
    )
    return None if best is None else best.server


def choose_surplus(
    holders: Collection[int], sites: Sites, *, goal: int, leaving: int = 0,
    outgoing: Collection[int] = (),
) -> int | None:  # fmt: skip
    """The copy to give up next, None if none is too many. `leaving` was copied to be moved.

    `outgoing` ones lie in data directories that are drained. Copies that stay are never
    fewer than the goal afterwards.
    """
    keep = [server for server in staying(holders, sites) if server not in outgoing]
    if len(keep) < goal or len(holders) <= goal:
        return None
    drained = sorted(server for server in holders if server in sites and server not in keep)
    if drained:
        return drained[0]
    racks = Counter(sites[server].rack for server in keep)
    return min(
        keep,
        key=lambda s: (s != leaving, -racks[sites[s].rack], sites[s].free_share, s),
    )


def moves(sites: Sites, *, band: float) -> list[tuple[int, int]]:
    """(from, to), the most uneven pairs first: free shares at least `band` apart."""
    usable = [site for site in sites.values() if not site.draining and site.total_bytes]
    pairs = [
        (full.free_share - empty.free_share, full.server, empty.server)
        for full in usable
        for empty in usable
        if empty.free_share - full.free_share >= band
    ]
    return [(source, target) for _, source, target in sorted(pairs)]


def may_move(holders: Collection[int], source: int, target: int, sites: Sites) -> bool:
    """Does moving a copy keep its chunk on as many servers and racks?"""
    if source not in holders or target in holders:
        return False
    others = {sites[s].rack for s in holders if s != source and s in sites}
    rack = sites[target].rack
    return rack == sites[source].rack or rack not in others or sites[source].rack in others
