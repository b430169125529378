"""Where a file's bytes lie: extents, and the reference counts of chunks.

A file is a sorted list of extents; what none covers is a hole. Chunk bytes
are never overwritten: new content is a new extent that cuts old ones away.

Invariant: `chunk.references` = sum of the lengths of the extents into it;
`inode.stored` = sum of the lengths of the inode's extents. A digest of an extent or of
an inode is that of its bytes, or unknown: never that of others.

Departs from GFS §2.6.1, where a file offset names a chunk by arithmetic: see
docs/departures.md.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any, Protocol

from msgspec.structs import replace

from gfs.checksum import DIGEST_OF_NOTHING, DIGEST_UNKNOWN, is_digest, joined_digest
from gfs.errors import InvalidArgument, Misplaced, TooLarge
from gfs.ids import SIZE_MAX
from gfs.items import CHUNKS, EXTENTS, INODES, Chunk, ChunkState, Extent, Inode, Key
from gfs.messages import LaidOut
from master.core.decision import Decision, NeedsCuts
from master.core.transaction import Transaction

EXTENTS_AT_ONCE = 100  # of one file among hundreds in a record; more are given back by themselves
DIGESTED_EXTENTS = 16  # of a file rewritten in its middle: looked at to know its digest again
CUT_AT_ONCE = 5000  # by a truncation; more are cut in records before its own


class References:
    """Gathers changes of reference counts and writes each chunk once."""

    def __init__(self, decision: Decision) -> None:
        self._decision = decision
        self._delta: defaultdict[int, int] = defaultdict(int)

    def add(self, handle: int, length: int) -> None:
        self._delta[handle] += length

    def settle(self) -> None:
        """Put the chunks; one that lost its last reference while sealed is condemned."""
        tx, now_ns = self._decision.tx, self._decision.now_ns
        for handle, delta in self._delta.items():
            chunk: Chunk | None = tx.get(CHUNKS, (handle,))
            if chunk is None or not delta:
                continue
            references = chunk.references + delta
            assert references >= 0, f"chunk {handle:016x} has {references} references"
            chunk = replace(chunk, references=references)
            if not references and chunk.state is ChunkState.SEALED:
                chunk = condemned(chunk, now_ns)
            tx.put(CHUNKS, (handle,), chunk)


def condemned(chunk: Chunk, now_ns: int) -> Chunk:
    """The chunk on its way out; its replicas go after a pause (GFS §4.4).

    One that was open keeps its members: nobody has reported these replicas.
    """
    return replace(chunk, state=ChunkState.CONDEMNED, condemned_ns=now_ns)


class Ranges(Protocol):
    """What `overlapping` needs: a transaction or the tables."""

    def range(
        self, table: str, partition: int, *, after: Any, before: Any, limit: int | None
    ) -> list[tuple[Key, Any]]: ...

    def floor(self, table: str, key: Key) -> tuple[Key, Any] | None: ...


def overlapping(
    tables: Ranges, ino: int, begin: int, end: int, *, limit: int | None = None
) -> list[tuple[int, Extent]]:
    """Extents that touch [begin, end), by file offset; at most about `limit`.

    Extents never overlap, so at most one begins at or before `begin` and reaches it.
    """
    found = tables.range(EXTENTS, ino, after=begin, before=end, limit=limit)
    first = tables.floor(EXTENTS, (ino, begin)) if begin < end else None
    if first is not None and first[0][1] + first[1].length > begin:
        found = [first, *found]
    return [(key[1], extent) for key, extent in found]


def punch(tx: Transaction, ino: int, begin: int, end: int, references: References) -> int:
    """Cut [begin, end) out of the file's extents; returns how many bytes went."""
    gone = 0
    for offset, extent in overlapping(tx, ino, begin, end):
        stop = offset + extent.length
        left, right = max(begin - offset, 0), max(stop - end, 0)
        tx.delete(EXTENTS, (ino, offset))
        if left:
            tx.put(EXTENTS, (ino, offset), replace(extent, length=left, digest=0))
        if right:
            tx.put(
                EXTENTS,
                (ino, end),
                Extent(right, extent.handle, extent.chunk_offset + extent.length - right),
            )
        cut = extent.length - left - right
        references.add(extent.handle, -cut)
        gone += cut
    return gone


def joined_extents(first: Extent, second: Extent) -> Extent:
    """One extent of two that lie behind each other in the file and in the chunk."""
    digest = joined_digest(first.digest, second.digest, second.length)
    return replace(first, length=first.length + second.length, digest=digest)


def insert(
    tx: Transaction, ino: int, laid_out: LaidOut, references: References, *, stored: int
) -> int:
    """Make [offset, offset + length) the given extent; returns growth of `stored`.

    Joins the extent before it when both the file and the chunk go on there, so
    that a file streamed in has one extent a chunk. A file that has `stored` nothing
    has no extent to look for: of small files that is most.
    """
    offset, extent = laid_out.file_offset, laid_out.extent
    gone = punch(tx, ino, offset, offset + extent.length, references) if stored else 0
    references.add(extent.handle, extent.length)
    before = overlapping(tx, ino, offset - 1, offset) if stored and offset else []
    if before:
        start, left = before[0]
        if left.handle == extent.handle and left.chunk_offset + left.length == extent.chunk_offset:
            tx.put(EXTENTS, (ino, start), joined_extents(left, extent))
            return extent.length - gone
    tx.put(EXTENTS, (ino, offset), extent)
    return extent.length - gone


def growth(tx: Transaction, ino: int, ranges: list[LaidOut]) -> int:
    """How many bytes `commit` would add to what the file has stored."""
    added, reached = 0, 0
    for begin, end in sorted((r.file_offset, r.file_offset + r.extent.length) for r in ranges):
        begin = max(begin, reached)
        if begin >= end:
            continue
        covered = sum(
            min(end, offset + extent.length) - max(begin, offset)
            for offset, extent in overlapping(tx, ino, begin, end)
        )
        added += end - begin - covered
        reached = end
    return added


def commit(decision: Decision, ino: int, inode: Inode, ranges: list[LaidOut]) -> Inode:
    """The inode after these ranges became its content, in order; size only grows.

    Raises:
      Misplaced: a range lies in a chunk that may not be referenced (any more), so
        the writer must write the bytes elsewhere.
      TooLarge: beyond the largest file.
      InvalidArgument: what is said to be a digest is none.
    """
    tx, references = decision.tx, References(decision)
    stored, size = inode.stored, inode.size
    digest = inode.digest if size else DIGEST_OF_NOTHING
    for laid_out in ranges:  # all checks first: a refusal must leave no trace in the batch
        end = laid_out.file_offset + laid_out.extent.length
        if laid_out.file_offset < 0 or end > SIZE_MAX or laid_out.extent.length <= 0:
            raise TooLarge(f"range up to {end}")
        if not is_digest(laid_out.extent.digest):
            raise InvalidArgument(f"digest {laid_out.extent.digest:x}")
        _check_target(decision, laid_out.extent)
    for laid_out in ranges:
        stored += insert(tx, ino, laid_out, references, stored=stored)
        digest = _continued(digest, size, laid_out)
        size = max(size, laid_out.file_offset + laid_out.extent.length)
    references.settle()
    if not digest and stored == size:
        digest = _digest_of_extents(tx, ino)
    return replace(inode, size=size, stored=stored, digest=digest if size else DIGEST_UNKNOWN)


def _continued(digest: int, size: int, laid_out: LaidOut) -> int:
    """Digest of a file of `size` bytes that had `digest`, once this is part of it."""
    extent = laid_out.extent
    if laid_out.file_offset == size:
        return joined_digest(digest, extent.digest, extent.length)
    whole = laid_out.file_offset == 0 and extent.length >= size
    return extent.digest if whole else DIGEST_UNKNOWN


def _digest_of_extents(tx: Transaction, ino: int) -> int:
    """Of a file without holes; unknown if it has many extents, or one whose digest is unknown."""
    found = tx.range(EXTENTS, ino, limit=DIGESTED_EXTENTS + 1)
    digest = DIGEST_OF_NOTHING if len(found) <= DIGESTED_EXTENTS else DIGEST_UNKNOWN
    for _, extent in found:
        digest = joined_digest(digest, extent.digest, extent.length)
    return digest


def _check_target(decision: Decision, extent: Extent) -> None:
    chunk: Chunk | None = decision.tx.get(CHUNKS, (extent.handle,))
    if chunk is None or chunk.state is ChunkState.CONDEMNED:
        raise Misplaced(f"chunk {extent.handle:016x} is gone: write it elsewhere")
    if chunk.session != decision.session:
        raise Misplaced(f"chunk {extent.handle:016x} is not leased to this session")
    limit = chunk.length if chunk.state is ChunkState.SEALED else decision.policy.chunk_bytes
    if extent.chunk_offset < 0 or extent.chunk_offset + extent.length > limit:
        raise Misplaced(f"range ends past the chunk's {limit} bytes: write it elsewhere")


def require_few(decision: Decision, ino: int, size: int) -> None:
    """Raises NeedsCuts when too much lies beyond `size` for one record."""
    beyond = decision.tx.range(EXTENTS, ino, after=size - 1, limit=CUT_AT_ONCE + 1)
    if len(beyond) > CUT_AT_ONCE:
        raise NeedsCuts(ino, size)


def cut_some(decision: Decision, ino: int, size: int) -> None:
    """Make a file that is being truncated to `size` shorter by a bounded number of extents.

    From the end: who looks meanwhile, or after a crash, sees a truncation half done.
    """
    inode: Inode | None = decision.tx.get(INODES, (ino,))
    at = SIZE_MAX
    for _ in range(CUT_AT_ONCE):
        found = decision.tx.floor(EXTENTS, (ino, at - 1))
        if found is None or found[0][1] < size:
            break
        at = int(found[0][1])
    if inode is not None and at < inode.size:
        shorter = truncate(decision, ino, inode, at)
        decision.put_inode(
            ino,
            replace(
                shorter,
                mtime_ns=inode.written_at(decision.now_ns),
                ctime_ns=decision.now_ns,
                data_version=inode.data_version + 1,
                version=inode.version + 1,
            ),
        )


def truncate(decision: Decision, ino: int, inode: Inode, size: int) -> Inode:
    """The inode at `size` bytes: cut off, or a hole at the end."""
    if not 0 <= size <= SIZE_MAX:
        raise TooLarge(f"size {size}")
    stored = inode.stored
    if size < inode.size:
        references = References(decision)
        stored -= punch(decision.tx, ino, size, SIZE_MAX, references)
        references.settle()
    digest = inode.digest if size == inode.size else DIGEST_UNKNOWN
    return replace(inode, size=size, stored=stored, digest=digest)


def is_scattered(tx: Transaction, ino: int, inode: Inode) -> bool:
    """Too many extents to give back beside other files in one record?"""
    if inode.stored <= EXTENTS_AT_ONCE:
        return False
    return len(tx.range(EXTENTS, ino, limit=EXTENTS_AT_ONCE + 1)) > EXTENTS_AT_ONCE


def release_some(decision: Decision, ino: int, inode: Inode, limit: int) -> int:
    """Give back the first `limit` extents of a file on its way out; returns how many there were."""
    found = decision.tx.range(EXTENTS, ino, limit=limit)
    if found:
        references = References(decision)
        key, last = found[-1]
        gone = punch(decision.tx, ino, 0, key[1] + last.length, references)
        references.settle()
        decision.put_inode(
            ino, replace(inode, stored=inode.stored - gone, version=inode.version + 1)
        )
    return len(found)


def release(decision: Decision, ino: int, inode: Inode) -> None:
    """Give back all content of a file that goes away; its tail needs no seal any more."""
    tx, references = decision.tx, References(decision)
    for key, extent in tx.range(EXTENTS, ino):
        references.add(extent.handle, -extent.length)
        tx.delete(EXTENTS, key)
    references.settle()
    if inode.tail:
        chunk: Chunk | None = tx.get(CHUNKS, (inode.tail,))
        if chunk is not None and chunk.state is not ChunkState.CONDEMNED:
            tx.put(CHUNKS, (inode.tail,), condemned(chunk, decision.now_ns))
