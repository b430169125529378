"""Record append at the master: tails opened, in doubt, growing (GFS §3.3).

Departs from GFS §3.3: a record never straddles chunks and needs no padding,
because a tail chunk is cut where its last record ends; and each record stands
exactly once, because the writer table of a sealed tail says what landed.
"""

from __future__ import annotations

from collections.abc import Iterable

from msgspec.structs import replace

from gfs.errors import InvalidArgument, NotFound, NotPermitted, QuotaExceeded, Refused
from gfs.items import CHUNKS, INODES, WRITERS, Chunk, ChunkKind, ChunkState, Inode, Writers
from gfs.messages import Done, Lease, OpenTail, ResolveTail, Tail, TailGrowth
from master.core import quotas, sealing
from master.core.chunks import Chunks
from master.core.decision import Decision, NeedsSeal


def open_tail(decision: Decision, chunks: Chunks, op: OpenTail) -> Done:
    """Lease of the file's tail; made when there is none. Opening one is a mutation."""
    inode = _appendable(decision, op.ino)
    room = _room(decision, op.ino, inode)
    return replace(_with_tail(decision, chunks, op.ino, inode, last=0), room=room)


def _room(decision: Decision, ino: int, inode: Inode) -> int:
    """Bytes that may be appended, by what is known: a tail grows for seconds untold.

    Raises:
      QuotaExceeded: none.
    """
    chain = decision.realms.of_inode(decision.tx.before, ino, inode) if decision.realms else ()
    room = quotas.room_for(decision, chain)
    if not room:
        quotas.require_room(decision, chain, more_bytes=1)
    return room


def resolve_tail(decision: Decision, chunks: Chunks, op: ResolveTail) -> Done:
    """What of `writer` landed in the doubtful chunk, and where to go on.

    Raises:
      NeedsSeal: it is open; only a seal can tell.
      Refused: its writer table is gone: nobody can tell any more (EIO).
    """
    inode = _appendable(decision, op.ino)
    chunk: Chunk | None = decision.tx.get(CHUNKS, (op.handle,))
    if chunk is not None and chunk.state is ChunkState.OPEN:
        if chunk.kind is not ChunkKind.TAIL or chunk.ino != op.ino:
            raise InvalidArgument(f"chunk {op.handle:016x} is no tail of inode {op.ino}")
        raise NeedsSeal(op.handle, tuple(op.suspects))
    facts: Writers | None = decision.tx.get(WRITERS, (op.handle,))
    if facts is None:
        raise Refused("too late: it is not known any more which records landed")
    last = facts.last.get(op.writer, 0)
    try:
        room = _room(decision, op.ino, inode)
    except QuotaExceeded as error:
        nowhere = Lease(0, 0, decision.epoch, decision.policy.chunk_bytes, [])
        return replace(decision.done(op.ino), tail=Tail(last, nowhere, 0, error.code))
    return replace(_with_tail(decision, chunks, op.ino, inode, last=last), room=room)


def _appendable(decision: Decision, ino: int) -> Inode:
    inode = decision.inode(ino)
    if not inode.is_file:
        raise InvalidArgument("not a regular file")
    if decision.session not in decision.registry.writers.get(ino, ()):
        raise NotPermitted("the file is not open for writing in this session")
    return inode


def _with_tail(decision: Decision, chunks: Chunks, ino: int, inode: Inode, *, last: int) -> Done:
    if not inode.tail:
        inode = _make_tail(decision, chunks, ino, inode)
    chunk: Chunk | None = decision.tx.get(CHUNKS, (inode.tail,))
    if chunk is None:
        raise NotFound(f"tail chunk {inode.tail:016x} does not exist")
    lease = chunks.lease(decision, inode.tail, chunk)
    return replace(decision.done(ino), tail=Tail(last, lease, inode.tail_offset))


def _make_tail(decision: Decision, chunks: Chunks, ino: int, inode: Inode) -> Inode:
    """What other sessions hold back of the file lies before its first record."""
    decision.recall_others(ino)
    handle, chunk = chunks.new_chunk(decision, ChunkKind.TAIL, goal=0)
    decision.tx.create(CHUNKS, (handle,), replace(chunk, ino=ino))
    opened = replace(inode, tail=handle, tail_offset=inode.size, version=inode.version + 1)
    decision.put_inode(ino, opened)
    return opened


def grow(decision: Decision, growth: Iterable[TailGrowth]) -> None:
    """Log how far tails have come: for the views, and for stat after a restart."""
    for report in growth:
        chunk: Chunk | None = decision.tx.get(CHUNKS, (report.handle,))
        if chunk is None or chunk.state is not ChunkState.OPEN or chunk.version != report.version:
            continue
        inode: Inode | None = decision.tx.get(INODES, (chunk.ino,))
        if inode is not None and inode.tail == report.handle:
            grown = sealing.grow(decision, chunk.ino, inode, report.end, report.mtime_ns)
            if grown.size != inode.size:
                decision.put_inode(chunk.ino, grown)
