"""What the history gets of records, in one pass: growth and deletions, and what happened.

Most records grow a file or make one. Of those both are told at once, at about half the price of
`Facts.add` and `Told.add`; it comes out the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from gfs.changes import Line
from projections.core.facts import Facts
from projections.core.happenings import (
    MADE,
    TYPE_BITS,
    WRITTEN,
    Happening,
    Told,
    new_happening,
    occasion_of,
    only_names,
)


@dataclass
class Recorded:
    """Facts of some records, and what happened in them."""

    facts: Facts = field(default_factory=Facts)
    told: Told = field(default_factory=Told)

    def add(self, lines: Sequence[Line]) -> None:
        """Take whole records, in order."""
        events = self.told.events
        begin = 0
        for at, line in enumerate(lines):
            if line.more:
                continue
            found = None
            if at == begin:
                found = self._written(line)
            elif at == begin + 2:
                found = self._made(lines[begin], lines[begin + 1], line)
            if found is not None:
                events.append(found)
            else:
                record = lines[begin : at + 1]
                self.facts.add(record)
                self.told.add(record)
            begin = at + 1

    def _written(self, line: Line) -> Happening | None:
        """Of a record of one inode that has another size, and else at most other times."""
        keys, old, new = line.keys, line.old, line.new
        if keys is None or old is None or new is None or line.table != "inodes":
            return None
        before, size, uid = old.size, new.size, new.uid
        if before == size or old.uid != uid or old.mode != new.mode or old.gid != new.gid:
            return None
        sums = self.facts.sums(line.time_ns, uid)
        if size > before:
            sums.bytes_added += size - before
        else:
            sums.bytes_removed += before - size
        kind = new.mode & TYPE_BITS
        return new_happening(
            (occasion_of(line), keys.ino, WRITTEN, kind, 0, "", 0, "", size, before, uid, "")
        )

    def _made(self, inode: Line, name: Line, parent: Line) -> Happening | None:
        """Of a record that makes an inode with a name; None if it is none of these."""
        new, link, keys, above = inode.new, name.new, name.keys, parent.keys
        if inode.old is not None or name.old is not None or new is None or link is None:
            return None
        if inode.table != "inodes" or name.table != "dirents" or parent.table != "inodes":
            return None
        if keys is None or inode.keys is None or above is None or above.ino != keys.parent:
            return None
        ino, old_parent, new_parent = link.ino, parent.old, parent.new
        if inode.keys.ino != ino or not only_names(old_parent, new_parent):
            return None
        if old_parent is None or new_parent is None or old_parent.size != new_parent.size:
            return None
        size, uid = new.size, new.uid
        sums = self.facts.sums(inode.time_ns, uid)
        sums.created += 1
        sums.bytes_added += size
        place = keys.parent, keys.name
        kind = new.mode & TYPE_BITS or link.kind
        return new_happening((occasion_of(inode), ino, MADE, kind, *place, 0, "", size, 0, uid, ""))
