"""`gfs fsck --repair`: counts that are wrong are set right where that can lose nothing.

A count that is too low lets what is in use be given back, so it is raised. One that is too high
only keeps space, and what it counted may have vanished by a fault that an older checkpoint
could still make good: it is left and reported. A chunk that is condemned and in use is taken
back. Everything is counted anew here, in the very decision: what fsck saw may be long ago.
"""

from __future__ import annotations

from msgspec.structs import replace

from gfs.items import (
    CHUNKS,
    EXTENTS,
    EXTENTS_BY_HANDLE,
    INODES,
    LINKS_BY_INO,
    QUOTAS,
    Chunk,
    ChunkState,
    Extent,
    Inode,
    Quota,
)
from master.core.decision import Decision
from master.core.quota_counting import recounted


def recount_chunk(decision: Decision, handle: int) -> str:
    """Returns what was done, in words; "" for nothing."""
    chunk: Chunk | None = decision.tx.get(CHUNKS, (handle,))
    if chunk is None:
        return ""
    found: list[Extent] = [
        decision.tx.get(EXTENTS, key) for key in decision.tx.by_index(EXTENTS_BY_HANDLE, handle)
    ]
    references = sum(extent.length for extent in found)
    if references and chunk.state is ChunkState.CONDEMNED:
        kept = replace(
            chunk, state=ChunkState.SEALED, condemned_ns=0,
            references=max(references, chunk.references),
        )  # fmt: skip
        decision.tx.put(CHUNKS, (handle,), kept)
        return f"chunk {handle:016x}, in use, is not condemned any more"
    if references <= chunk.references:
        return ""
    decision.tx.put(CHUNKS, (handle,), replace(chunk, references=references))
    return f"chunk {handle:016x} counts {references} referenced bytes, as there are"


def recount_inode(decision: Decision, ino: int) -> str:
    """Returns what was done, in words; "" for nothing."""
    inode: Inode | None = decision.tx.get(INODES, (ino,))
    if inode is None:
        return ""
    stored = sum(extent.length for _, extent in decision.tx.range(EXTENTS, ino))
    links = len(decision.tx.by_index(LINKS_BY_INO, ino)) if inode.is_file else 0
    counted = replace(inode, stored=stored, nlink=max(links, inode.nlink))
    if counted == inode:
        return ""
    decision.put_inode(ino, replace(counted, version=inode.version + 1))
    return f"inode {ino} counts {stored} stored bytes and {counted.nlink} links"


def recount_quota(decision: Decision, ino: int) -> str:
    """Begins to count anew what lies below `ino`; returns that in words; "" for nothing."""
    quota: Quota | None = decision.tx.get(QUOTAS, (ino,))
    if quota is None:
        return ""
    decision.tx.put(QUOTAS, (ino,), recounted(decision, quota))
    return f"what lies below inode {ino} is being counted anew for its quota"
