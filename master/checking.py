"""Do the tables agree with each other? Counts everything once more, in memory that does not grow.

Names, extents and inodes are each read once in the order of one key, side by side, so a table
of a hundred million rows needs no more memory than a page of it. What disagrees is told with
the inode or chunk it is about. Reads through the port of the tables: `gfs fsck` on a copy of
the state (`python -m master.check`), the tests on what they have.
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterable, Iterator
from itertools import groupby
from operator import itemgetter
from typing import Any, Protocol

from msgspec import Struct

from gfs.ids import ROOT_INO, TRASH_INO
from gfs.items import (
    CHUNKS,
    DIRENTS,
    EXTENTS,
    EXTENTS_BY_HANDLE,
    INODES,
    LINKS_BY_INO,
    ORPHANS,
    Chunk,
    ChunkState,
    Inode,
    Key,
)
from master.core.realms import Realms, all_quotas
from master.core.tables import ReadTables

PAGE = 2000
QUOTA = "quota"
LOST = "lost"  # what was written, not synced, and then taken by a power loss

Pair = tuple[int, int]


class Problem(Struct, omit_defaults=True):
    """Something that is not as it should be. `ino` or `handle`: what it is about, if known."""

    kind: str
    text: str
    ino: int = 0
    handle: int = 0
    files: list[str] = []


class Walkable(ReadTables, Protocol):
    """Tables that can also be read in the order of an index."""

    def walk_index(self, index: str) -> Iterator[tuple[int, Key, Any]]:
        """Indexed value, key and item of each item that the index has, ascending."""
        ...


Tell = Callable[[Problem], None]


def check_tables(tables: Walkable, tell: Tell) -> dict[str, int]:
    """Call `tell` with whatever does not agree; returns how much was looked at."""
    checked = dict.fromkeys(("inodes", "names", "extents", "chunks"), 0)
    _check_inodes(tables, tell, checked)
    _check_chunks(tables, tell, checked)
    _check_quotas(tables, tell)
    return checked


def pages(tables: ReadTables, table: str) -> Iterator[tuple[Any, Any]]:
    """Every item of a table, a page at a time."""
    after = None
    while True:
        page = tables.scan(table, after=after, limit=PAGE)
        yield from page
        if len(page) < PAGE:
            return
        after = page[-1][0]


class _Sums:
    """Amounts by ascending key, asked for by ascending keys.

    `strange` is called with each key that nobody asks for.
    """

    def __init__(self, amounts: Iterable[Pair], strange: Callable[[int, int], None]) -> None:
        self._strange = strange
        self._groups = (
            (key, sum(amount for _, amount in group))
            for key, group in groupby(amounts, key=itemgetter(0))
        )
        self._next = next(self._groups, None)

    def of(self, key: int) -> int:
        """Sum of the amounts of `key`."""
        while self._next is not None and self._next[0] < key:
            self._strange(*self._next)
            self._next = next(self._groups, None)
        if self._next is None or self._next[0] != key:
            return 0
        found = self._next[1]
        self._next = next(self._groups, None)
        return found

    def finish(self) -> None:
        """Nobody asks any more."""
        while self._next is not None:
            self._strange(*self._next)
            self._next = next(self._groups, None)


# --- inodes


def _check_inodes(tables: Walkable, tell: Tell, checked: dict[str, int]) -> None:
    def no_inode(ino: int, _: int) -> None:
        for parent, name in tables.by_index(LINKS_BY_INO, ino):
            text = f"name {name!r} in directory {parent} leads to inode {ino}, not there"
            tell(Problem("dangling-name", text, ino=int(parent)))

    def no_directory(ino: int, _: int) -> None:
        tell(Problem("dangling-name", f"there are names in directory {ino}, not there", ino=ino))

    def no_file(ino: int, length: int) -> None:
        text = f"{length} bytes of extents belong to inode {ino}, not there"
        tell(Problem("dangling-extents", text, ino=ino))

    links = _Sums(((ino, 1) for ino, _, _ in tables.walk_index(LINKS_BY_INO)), no_inode)
    below = _Sums(_subdirectories(tables, checked), no_directory)
    stored = _Sums(_extents(tables, checked), no_file)
    for (ino,), inode in pages(tables, INODES):
        checked["inodes"] += 1
        _check_inode(tables, ino, inode, links.of(ino), below.of(ino), stored.of(ino), tell)
    for sums in (links, below, stored):
        sums.finish()


def _subdirectories(tables: Walkable, checked: dict[str, int]) -> Iterator[Pair]:
    for (parent, _), dirent in pages(tables, DIRENTS):
        checked["names"] += 1
        yield parent, int(stat.S_ISDIR(dirent.kind))


def _extents(tables: Walkable, checked: dict[str, int]) -> Iterator[Pair]:
    for (ino, _), extent in pages(tables, EXTENTS):
        checked["extents"] += 1
        yield ino, extent.length


def _check_inode(
    tables: ReadTables, ino: int, inode: Inode, links: int, below: int, stored: int, tell: Tell
) -> None:
    if inode.stored != stored:
        text = f"inode {ino} counts {inode.stored} stored bytes, extents hold {stored}"
        tell(Problem("stored", text, ino=ino))
    if ino in (ROOT_INO, TRASH_INO):
        return
    expected = 2 + below if inode.is_directory else links
    if inode.nlink != expected:
        text = f"inode {ino} counts {inode.nlink} links, {expected} lead to it"
        tell(Problem("links", text, ino=ino))
    if not links and tables.get(ORPHANS, (ino,)) is None:
        tell(Problem("no-name", f"inode {ino} has no name and is not open", ino=ino))
    if inode.is_directory and links:
        parents = {key[0] for key in tables.by_index(LINKS_BY_INO, ino, limit=2)}
        if parents != {inode.parent}:
            text = f"directory {ino} names {inode.parent} as its parent"
            tell(Problem("parent", text, ino=ino))


# --- chunks


def _check_chunks(tables: Walkable, tell: Tell, checked: dict[str, int]) -> None:
    def no_chunk(handle: int, length: int) -> None:
        text = f"{length} bytes of extents lead to chunk {handle:016x}, not there"
        tell(Problem("no-chunk", text, handle=handle))

    ends: dict[int, int] = {}  # of the chunks at which the walk is just now

    def lengths() -> Iterator[Pair]:
        for handle, _, extent in tables.walk_index(EXTENTS_BY_HANDLE):
            ends[handle] = max(ends.get(handle, 0), extent.chunk_offset + extent.length)
            yield handle, extent.length

    references = _Sums(lengths(), no_chunk)
    for (handle,), chunk in pages(tables, CHUNKS):
        checked["chunks"] += 1
        _check_chunk(handle, chunk, references.of(handle), ends.pop(handle, 0), tell)
    references.finish()


def _check_chunk(handle: int, chunk: Chunk, references: int, end: int, tell: Tell) -> None:
    if chunk.state is ChunkState.SEALED and end > chunk.length:
        text = (
            f"chunk {handle:016x} was sealed at {chunk.length} bytes, files refer to {end}:"
            " what was never synced went with the power of all its servers"
        )
        tell(Problem(LOST, text, handle=handle))
    if chunk.references != references:
        text = f"chunk {handle:016x} counts {chunk.references} referenced bytes, not {references}"
        tell(Problem("references", text, handle=handle))
    if chunk.state is ChunkState.CONDEMNED and references:
        text = f"chunk {handle:016x} is condemned, but {references} bytes of files lie in it"
        tell(Problem("condemned", text, handle=handle))


# --- quotas


def _check_quotas(tables: ReadTables, tell: Tell) -> None:
    """Count what each quota counts; of one that is being counted, what it has got to."""
    quotas = dict(all_quotas(tables))
    if not quotas:
        return
    for ino in quotas:
        inode: Inode | None = tables.get(INODES, (ino,))
        if inode is None or not inode.is_directory:
            text = f"there is a quota of inode {ino}, which is no directory"
            tell(Problem(QUOTA, text, ino=ino))
    realms = Realms(quotas.items())
    found = dict.fromkeys(quotas, (0, 0))
    for (ino,), inode in pages(tables, INODES):
        for one in realms.of_inode(tables, ino, inode):
            if quotas[one].has_counted(ino):
                stored, files = found[one]
                found[one] = stored + inode.stored, files + 1
    for ino, quota in quotas.items():
        counted = (
            (quota.counted_bytes, quota.counted_files)
            if quota.is_counting
            else (quota.used_bytes, quota.used_files)
        )
        if counted != found[ino]:
            text = "quota of inode {} counts {} bytes and {} files, there are {} and {}"
            tell(Problem(QUOTA, text.format(ino, *counted, *found[ino]), ino=ino))
