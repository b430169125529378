"""Snapshots as the tables see them: a tree copied by sharing its extents (GFS §3.4).

`apply_copy` is the meaning of `gfs.records.Copy`: everybody who holds the source makes
the same rows of it, because new numbers follow the order of the old ones. Nothing is
read or copied of chunks; only their reference counts rise, so that a later write to
either side, which never changes bytes in place, leaves the other alone.
"""

from __future__ import annotations

import stat
from collections import defaultdict
from collections.abc import Iterator
from operator import itemgetter

from msgspec.structs import replace

from gfs.items import CHUNKS, DIRENTS, EXTENTS, INODES, Dirent, Inode, Key
from gfs.records import Copy
from master.core.tables import ReadTables, Tables

PRIVILEGED = (b"trusted.", b"security.")  # attributes that only root may give
TOGETHER = 4096  # rows read and written by one call: the least time a row, and little memory


class Below:
    """What lies at and below an inode: all links, and all inodes in the order of their numbers.

    A file with several links below it is there once; links elsewhere do not count.
    """

    def __init__(self, tables: ReadTables, source: int, kind: int) -> None:
        self.links: list[tuple[Key, Dirent]] = []
        self.link_counts: defaultdict[int, int] = defaultdict(int, {source: 1})
        level = [source] if stat.S_ISDIR(kind) else []
        self.directories = set(level)
        while level:
            found = tables.range_many(DIRENTS, level)
            self.links += found
            for _, dirent in found:
                self.link_counts[dirent.ino] += 1
            level = [dirent.ino for _, dirent in found if stat.S_ISDIR(dirent.kind)]
            self.directories.update(level)
        self.inos = sorted(self.link_counts)

    def inodes(self, tables: ReadTables) -> Iterator[list[tuple[int, Inode]]]:
        """All of them with their numbers, some thousands at a time."""
        for start in range(0, len(self.inos), TOGETHER):
            inos = self.inos[start : start + TOGETHER]
            found = tables.get_many(INODES, inos)
            assert len(found) == len(inos)
            yield found

    def numbers(self, first: int) -> dict[int, int]:
        """The number that each inode's copy gets."""
        return {ino: first + rank for rank, ino in enumerate(self.inos)}


def owned(inode: Inode, copy: Copy) -> Inode:
    """The inode as the copy's owner has it: as it is for root, else as `cp -a` would do it.

    The group stays if the owner is in it; setuid and setgid go with the user and the
    group they were meant for, attributes only root may give are left out.
    """
    if copy.uid < 0:
        return inode
    gid = inode.gid if inode.gid in copy.groups else copy.gid
    mode = inode.mode
    if inode.uid != copy.uid:
        mode &= ~stat.S_ISUID
    if inode.gid != gid:
        mode &= ~stat.S_ISGID
    kept = {
        name: value for name, value in inode.attributes.items() if not name.startswith(PRIVILEGED)
    }
    return replace(inode, uid=copy.uid, gid=gid, mode=mode, attributes=kept)


def apply_copy(copy: Copy, time_ns: int, tables: Tables) -> None:
    """Make the copy's inodes, the links within it, and its share in the chunks.

    Args:
      time_ns: of the record.
    """
    source: Inode | None = tables.get(INODES, (copy.source,))
    assert source is not None
    below = Below(tables, copy.source, source.mode)
    assert len(below.inos) == copy.count, f"{len(below.inos)} inodes, {copy.count} logged"
    numbers = below.numbers(copy.first)
    shared: defaultdict[int, int] = defaultdict(int)
    for found in below.inodes(tables):
        tables.put_many(INODES, _copies(found, copy, below, numbers, time_ns))
        extents = tables.range_many(EXTENTS, [ino for ino, inode in found if inode.stored])
        for _, extent in extents:
            shared[extent.handle] += extent.length
        tables.put_many(
            EXTENTS, [((numbers[int(key[0])], key[1]), extent) for key, extent in extents]
        )
    links = sorted(below.links, key=itemgetter(0))  # new rows then come in order as well
    for start in range(0, len(links), TOGETHER):
        tables.put_many(DIRENTS, _copied_links(links[start : start + TOGETHER], numbers))
    chunks = tables.get_many(CHUNKS, sorted(shared))
    assert len(chunks) == len(shared)
    tables.put_many(
        CHUNKS,
        [
            ((handle,), replace(chunk, references=chunk.references + shared[handle]))
            for handle, chunk in chunks
        ],
    )


def _copies(
    found: list[tuple[int, Inode]], copy: Copy, below: Below, numbers: dict[int, int], time_ns: int
) -> Iterator[tuple[Key, Inode]]:
    for ino, inode in found:
        above = copy.parent if ino == copy.source else numbers.get(inode.parent, 0)
        yield (numbers[ino],), _copied(inode, copy, above, below.link_counts[ino], time_ns)


def _copied_links(
    links: list[tuple[Key, Dirent]], numbers: dict[int, int]
) -> list[tuple[Key, Dirent]]:
    return [
        ((numbers[int(key[0])], key[1]), Dirent(numbers[dirent.ino], dirent.kind))
        for key, dirent in links
    ]


def _copied(inode: Inode, copy: Copy, parent: int, links: int, time_ns: int) -> Inode:
    """Made now, otherwise as the original: content, times, mode."""
    return replace(
        owned(inode, copy),
        parent=parent if inode.is_directory else 0,
        nlink=inode.nlink if inode.is_directory else links,
        ctime_ns=time_ns,
        created_ns=time_ns,
        version=1,
        data_version=0,
    )
