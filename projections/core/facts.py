"""History that a batch of events adds: who deleted what, and growth by hour and owner.

Facts are append-only and come from events, not from state, so that a rebuild from a
checkpoint cannot make them again: they are kept in a file of their own, with a cursor
of its own. Times are those of the records.
"""

from __future__ import annotations

import stat
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from gfs.changes import Actor, Copied, Image, Keys, Line
from gfs.ids import TRASH_INO

HOUR_NS = 3600 * 1_000_000_000
_NOBODY = Actor()


class Deletion(NamedTuple):
    """A name that was removed, also one that only went to trash."""

    cursor: str
    time_ns: int
    parent: int
    name: str
    ino: int
    kind: int
    size: int  # of the inode if it went with this name, else 0
    to_trash: bool
    uid: int
    pid: int
    host: str
    mount: str


@dataclass
class Growth:
    """Sums of one hour and owner."""

    created: int = 0
    removed: int = 0
    bytes_added: int = 0
    bytes_removed: int = 0


@dataclass
class Facts:
    """What a batch adds to history."""

    deletions: list[Deletion] = field(default_factory=list)
    growth: dict[tuple[int, int], Growth] = field(default_factory=dict)  # (hour, uid)

    def add(self, lines: Sequence[Line]) -> None:
        """Facts of whole records, in order."""
        growth = self.growth
        begin, loses_name = 0, False  # of the record at hand
        for at, line in enumerate(lines):
            old, new = line.old, line.new
            if line.table == "dirents":
                loses_name = loses_name or old is not None
            elif old is None or new is None or old.size != new.size or old.uid != new.uid:
                if line.copy is not None:
                    _count_copy(growth, line.copy, line.time_ns // HOUR_NS)
                else:
                    _count(growth, line.time_ns // HOUR_NS, old, new)
            if not line.more:
                if loses_name:
                    self.deletions += _deletions(lines[begin : at + 1])
                begin, loses_name = at + 1, False

    def sums(self, time_ns: int, uid: int) -> Growth:
        """Those of an owner in the hour of a record."""
        return _sums(self.growth, time_ns // HOUR_NS, uid)


def facts_of(lines: Sequence[Line]) -> Facts:
    """Facts of whole records, in order."""
    found = Facts()
    found.add(lines)
    return found


def _count_copy(growth: dict[tuple[int, int], Growth], copy: Copied, hour: int) -> None:
    for one in copy.owners:
        sums = _sums(growth, hour, one.uid)
        sums.created += one.inodes
        sums.bytes_added += one.bytes


def _count(
    growth: dict[tuple[int, int], Growth], hour: int, old: Image | None, new: Image | None
) -> None:
    """An inode that came, went, or has another size or owner."""
    if old is not None and new is not None and old.uid == new.uid:
        sums = _sums(growth, hour, new.uid)
        if new.size > old.size:
            sums.bytes_added += new.size - old.size
        else:
            sums.bytes_removed += old.size - new.size
        return
    if old is not None:
        sums = _sums(growth, hour, old.uid)
        sums.removed += new is None
        sums.bytes_removed += old.size
    if new is not None:
        sums = _sums(growth, hour, new.uid)
        sums.created += old is None
        sums.bytes_added += new.size


def _sums(growth: dict[tuple[int, int], Growth], hour: int, uid: int) -> Growth:
    sums = growth.get((hour, uid))
    if sums is None:
        sums = growth[hour, uid] = Growth()
    return sums


def _deletions(record: Sequence[Line]) -> list[Deletion]:
    """Names of a record whose inode got no other name in it, or one in the trash."""
    named: dict[int, int] = {}  # inode -> parent of the name it got
    sizes: dict[int, int] = {}
    for line in record:
        if line.keys is None:
            continue
        if line.table == "dirents" and line.new is not None:
            named[line.new.ino] = line.keys.parent
        elif line.table == "inodes" and line.old is not None:
            sizes[line.keys.ino] = line.old.size
    found = []
    for line in record:
        keys, old = line.keys, line.old
        if line.table != "dirents" or old is None or keys is None or keys.parent == TRASH_INO:
            continue
        if line.new is not None and line.new.ino == old.ino:
            continue
        now_at = named.get(old.ino)
        if now_at is not None and now_at != TRASH_INO:
            continue
        size = sizes.get(old.ino, 0)
        found.append(deletion_of(line, keys, old, size, to_trash=now_at == TRASH_INO))
    return found


def deletion_of(line: Line, keys: Keys, old: Image, size: int, *, to_trash: bool) -> Deletion:
    """Of the line that takes a name, whose keys and old image these are."""
    actor = line.actor or _NOBODY
    return Deletion(
        line.cursor,
        line.time_ns,
        keys.parent,
        keys.name,
        old.ino,
        stat.S_IFMT(old.kind),
        size,
        to_trash,
        actor.uid,
        actor.pid,
        actor.host,
        actor.mount,
    )
