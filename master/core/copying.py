"""Snapshots as the tables see them: a tree copied by sharing its extents (GFS §3.4).

`apply_copy` is the meaning of `gfs.records.Copy`: everybody who holds the source makes
the same rows of it, because new numbers follow the order of the old ones. Nothing is
read or copied of chunks; only their reference counts rise, so that a later write to
either side, which never changes bytes in place, leaves the other alone.
"""

from __future__ import annotations

import stat
from collections import defaultdict

from msgspec.structs import replace

from gfs.items import CHUNKS, DIRENTS, EXTENTS, INODES, Chunk, Dirent, Inode, Key
from gfs.records import Copy
from master.core.tables import ReadTables, Tables

PRIVILEGED = (b"trusted.", b"security.")  # attributes that only root may give


class Below:
    """What lies at and below an inode: all links, and all inodes in the order of their numbers.

    A file with several links below it is there once; links elsewhere do not count.
    """

    def __init__(self, tables: ReadTables, source: int, kind: int) -> None:
        self.links: list[tuple[Key, Dirent]] = []
        self.link_counts: defaultdict[int, int] = defaultdict(int, {source: 1})
        directories = [source] if stat.S_ISDIR(kind) else []
        self.directories = set(directories)
        for here in directories:  # grows meanwhile
            found = tables.range(DIRENTS, here)
            self.links += found
            for _, dirent in found:
                self.link_counts[dirent.ino] += 1
                if stat.S_ISDIR(dirent.kind):
                    directories.append(dirent.ino)
                    self.directories.add(dirent.ino)
        self.inos = sorted(self.link_counts)

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
    for ino, number in numbers.items():
        inode: Inode | None = tables.get(INODES, (ino,))
        assert inode is not None
        above = copy.parent if ino == copy.source else numbers.get(inode.parent, 0)
        links = below.link_counts[ino]
        tables.put(INODES, (number,), _copied(inode, copy, above, links, time_ns))
        if inode.stored:
            for key, extent in tables.range(EXTENTS, ino):
                tables.put(EXTENTS, (number, key[1]), extent)
                shared[extent.handle] += extent.length
    for key, dirent in below.links:
        link = replace(dirent, ino=numbers[dirent.ino], version=1)
        tables.put(DIRENTS, (numbers[int(key[0])], key[1]), link)
    for handle, length in shared.items():
        chunk: Chunk | None = tables.get(CHUNKS, (handle,))
        assert chunk is not None
        tables.put(CHUNKS, (handle,), replace(chunk, references=chunk.references + length))


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
