"""How much lies below a directory: at once if it is little, else bit by bit while work goes on.

Counting bit by bit goes through all inodes in the order of their numbers. Those below
`Quota.next_ino` are in what has been counted, and so is what is made from then on, which has
numbers from `end_ino`; a change of an inode counts for `counted_*` if the inode does. Each
piece is decided like any mutation and logged, so it is exact whatever happens in between,
and a master that starts goes on where the last one was.
"""

from __future__ import annotations

import stat
from collections import defaultdict
from typing import NamedTuple

from msgspec.structs import replace

from gfs.items import (
    DIRENTS,
    INODES,
    LINKS_BY_INO,
    ORPHANS,
    QUOTAS,
    Dirent,
    Inode,
    Key,
    Orphan,
    Quota,
)
from master.core.decision import Decision
from master.core.realms import Realms
from master.core.tables import ReadTables

WALKED_MAX = 100_000  # names gone through within a decision, 2 us each; nothing else is decided
COUNTED_AT_ONCE = 1000  # inodes in one piece, about 10 us each
ORPHANS_AT_ONCE = 1000


class Amount(NamedTuple):
    """What lies below a directory."""

    stored: int
    files: int


def amount_below(tables: ReadTables, realms: Realms, top: int) -> Amount | None:
    """Bytes and files below `top`; None if it is too much to be counted now.

    A quota on the way tells what is below it. A file counts here if its least name is here.
    """
    stored = files = walked = 0
    directories = [top]
    while directories:
        here = directories.pop()
        if here in realms:
            quota: Quota | None = tables.get(QUOTAS, (here,))
            if quota is None or quota.is_counting:
                return None
            stored, files = stored + quota.used_bytes, files + quota.used_files
            continue
        found = tables.range(DIRENTS, here, limit=WALKED_MAX - walked + 1)
        walked += len(found)
        if walked > WALKED_MAX:
            return None
        below = [dirent.ino for _, dirent in found if stat.S_ISDIR(dirent.kind)]
        directories += below
        leaves = _leaves(tables, found)
        stored += sum(inode.stored for inode in leaves)
        files += len(below) + len(leaves)
    return Amount(stored, files)


def _leaves(tables: ReadTables, found: list[tuple[Key, Dirent]]) -> list[Inode]:
    """What is no directory and counts in the one listed."""
    names: dict[int, Key] = {}
    for key, dirent in found:
        if not stat.S_ISDIR(dirent.kind):
            names.setdefault(dirent.ino, key)
    return [
        inode
        for ino, inode in tables.get_many(INODES, names)
        if inode.nlink <= 1 or tables.by_index(LINKS_BY_INO, ino, limit=1)[0] == names[ino]
    ]


def recounted(decision: Decision, quota: Quota) -> Quota:
    """The quota about to be counted from the beginning; `used_*` stay what they are till then."""
    return replace(
        quota, next_ino=0, end_ino=decision.draw_ino(1), counted_bytes=0, counted_files=0
    )


def judged(quota: Quota, now_ns: int) -> Quota:
    """The quota with the grace periods that what is used now begins or ends."""
    bytes_over = bool(quota.bytes_soft) and quota.bytes > quota.bytes_soft
    files_over = bool(quota.files_soft) and quota.files > quota.files_soft
    return replace(
        quota,
        bytes_over_ns=(quota.bytes_over_ns or now_ns) if bytes_over else 0,
        files_over_ns=(quota.files_over_ns or now_ns) if files_over else 0,
    )


def count_some(decision: Decision) -> None:
    """Count the next inodes for all quotas that have not counted them yet."""
    tables, realms = decision.tx.before, decision.realms
    counting: dict[int, Quota] = {ino: decision.tx.get(QUOTAS, (ino,)) for ino in realms.counting}
    if not counting:
        return
    start = min(quota.next_ino for quota in counting.values())
    after = (start - 1,) if start else None
    page = tables.scan(INODES, after=after, limit=COUNTED_AT_ONCE)
    last = max(quota.end_ino for quota in counting.values())
    reached = int(page[-1][0][0]) + 1 if len(page) == COUNTED_AT_ONCE else last
    sums: defaultdict[int, list[int]] = defaultdict(lambda: [0, 0])
    for (ino,), inode in page:
        for one in realms.of_inode(tables, ino, inode):
            quota = counting.get(one)
            if quota is not None and not quota.has_counted(ino):
                sums[one][0] += inode.stored
                sums[one][1] += 1
    for one, quota in counting.items():
        if quota.next_ino < reached:
            stored, files = sums[one]
            counted = _further(quota, stored, files, min(reached, quota.end_ino))
            decision.tx.put(QUOTAS, (one,), judged(counted, decision.now_ns))


def _further(quota: Quota, stored: int, files: int, reached: int) -> Quota:
    stored, files = quota.counted_bytes + stored, quota.counted_files + files
    if reached < quota.end_ino:
        return replace(quota, next_ino=reached, counted_bytes=stored, counted_files=files)
    return replace(
        quota, used_bytes=stored, used_files=files,
        next_ino=0, end_ino=0, counted_bytes=0, counted_files=0,
    )  # fmt: skip


def let_orphans_go(decision: Decision, ino: int, above: int) -> None:
    """The quota of `ino` goes: files without a name that it counts are `above`'s (0: nobody's)."""
    tables = decision.tx.before
    after: Key | None = None
    while True:
        page = tables.scan(ORPHANS, after=after, limit=ORPHANS_AT_ONCE)
        for key, _ in page:
            orphan: Orphan | None = decision.tx.get(ORPHANS, key)
            if orphan is not None and orphan.quota == ino:
                decision.tx.put(ORPHANS, key, replace(orphan, quota=above))
        if len(page) < ORPHANS_AT_ONCE:
            return
        after = page[-1][0]
