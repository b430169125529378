"""Sealing an open chunk: the decision on its final length (protocols.md "Seal").

    begin --log v+1--> FENCING --answers--> decided --log seal--> told
                          ^  all answered; or one intact member and 500 ms, 10 s for
                          |  those whose heartbeats go on (their disk is slow);
                          |  or 30 s without an intact one and somebody answered

Theory. A member that has persisted v+1 takes, forwards and acknowledges
nothing of v any more. An acknowledgement needed every member, so one fenced
member stops a cut-off primary, and the greatest end of the fenced covers all
that was ever acknowledged; what nobody acknowledged does no harm. A member is
intact when its machine has not restarted since it joined: only then is its
unsynced data certain. Nor is a member intact that had no replica, unless its
server has been registered here since before the chunk was made: then it never
joined, else it may have lost it. A length below what the file refers to already
is not believed before all have answered. Nobody is told, and nothing is cut, before the seal is
in the log, so a master that dies simply starts again with v+2.

A member whose connection is down cannot answer and is not waited for, unless
so few were up at the beginning that several must be coming back (a cluster
that restarts): who misses the seal has a replica that does not count.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from msgspec.structs import replace

from gfs.checksum import DIGEST_UNKNOWN
from gfs.items import (
    CHUNKS,
    EXTENTS,
    EXTENTS_BY_HANDLE,
    INODES,
    WRITERS,
    Chunk,
    ChunkKind,
    ChunkState,
    Extent,
    Inode,
    Writers,
)
from gfs.messages import FencedAt
from master.core import extents
from master.core.decision import Decision
from master.core.tables import ReadTables

FIRST_VERSION = 1  # of a new chunk; each seal that is begun raises it
FENCE_WAIT_S = 0.5
NO_INTACT_WAIT_S = 30.0
SLOW_DISK_WAIT_S = 10.0  # else a slow disk would make every seal a copy of the chunk
ASK_AGAIN_S = 0.3


@dataclass
class Seal:
    """One seal under way.

    Invariant: `version` was logged before any fence was sent.
    """

    handle: int
    version: int
    members: dict[int, str]  # server -> boot id when it joined
    began_s: float
    referenced: int = 0  # bytes that are known to have been acknowledged
    never_away: frozenset[int] = frozenset()  # registered since before the chunk was made
    ask_again_s: float = 0.0
    awaited: set[int] = field(default_factory=set)
    answers: dict[int, FencedAt] = field(default_factory=dict)
    looked_closer: bool = False
    returning: bool = False  # fewer than two members, and not all, were up when it began

    def answered(self, server: int, answer: FencedAt | None) -> None:
        """None: the member cannot answer (refused, or its connection ended)."""
        self.awaited.discard(server)
        if answer is not None:
            self.answers[server] = answer

    def is_intact(self, server: int) -> bool:
        """Does it certainly have all it ever acknowledged?"""
        answer = self.answers[server]
        if answer.created and server not in self.never_away:
            return False
        return answer.boot == self.members[server]

    def is_decidable(self, now_s: float, responsive: frozenset[int] = frozenset()) -> bool:
        """May the length be decided now? `responsive`: servers whose heartbeats go on."""
        waited = now_s - self.began_s
        if len(self.answers) == len(self.members):
            return True
        if self._is_certain():
            at_once = not self.awaited and not self.returning
            return at_once or waited >= self._intact_wait_s(responsive)
        return bool(self.answers) and waited >= NO_INTACT_WAIT_S

    def look_closer(self, tables: ReadTables) -> None:
        """Shared bytes are counted once for each file that has them: see how far they reach."""
        if self.looked_closer or not self.answers or self.length() >= self.referenced:
            return
        self.looked_closer = True
        end = 0
        for key in tables.by_index(EXTENTS_BY_HANDLE, self.handle):
            extent: Extent | None = tables.get(EXTENTS, key)
            end = max(end, extent.chunk_offset + extent.length if extent is not None else 0)
        self.referenced = min(self.referenced, end)

    def _is_certain(self) -> bool:
        intact = any(self.is_intact(server) for server in self.answers)
        return intact and self.length() >= self.referenced

    def _intact_wait_s(self, responsive: frozenset[int] = frozenset()) -> float:
        return SLOW_DISK_WAIT_S if self.awaited & responsive else FENCE_WAIT_S

    def next_look_s(self) -> float:
        """When `is_decidable` may turn without a new answer."""
        return self.began_s + (self._intact_wait_s() if self._is_certain() else NO_INTACT_WAIT_S)

    def length(self) -> int:
        """The greatest end (see theory)."""
        return max(answer.end for answer in self.answers.values())

    def complete_members(self) -> list[int]:
        """Those that hold all of it."""
        length = self.length()
        return [server for server, answer in self.answers.items() if answer.end == length]

    def short_members(self) -> list[int]:
        """Those that must copy the missing end before they count."""
        length = self.length()
        return [server for server, answer in self.answers.items() if answer.end < length]

    def mtime_ns(self) -> int:
        """When the last append landed at the first who knows; 0 if nobody does.

        That is the primary, if it has answered, so this is what stat has shown.
        """
        length = self.length()
        times = [answer.mtime_ns for answer in self.answers.values() if answer.end == length]
        return min((time_ns for time_ns in times if time_ns), default=0)

    def writers(self) -> dict[int, int]:
        """Dedup facts of the longest member: what landed, writer by writer."""
        best = max(self.answers.values(), key=lambda answer: answer.end)
        return best.writers


def is_begun(chunk: Chunk) -> bool:
    """Is it to be sealed? Readers ask for the raised version, which members may not know of."""
    return chunk.state is ChunkState.OPEN and chunk.version > FIRST_VERSION


def begin(decision: Decision, handle: int, chunk: Chunk, now_s: float) -> Seal:
    """Raise the version; the fences go out once this is logged."""
    raised = replace(chunk, version=chunk.version + 1)
    decision.tx.put(CHUNKS, (handle,), raised)
    members = {member.server: member.boot for member in chunk.members}
    return Seal(handle, raised.version, members, now_s, referenced=chunk.references)


def finish(decision: Decision, seal: Seal) -> Chunk:
    """The one record: final length, and for a tail the writer table and the file's size."""
    tx = decision.tx
    chunk: Chunk = tx.get(CHUNKS, (seal.handle,))
    assert chunk.state is ChunkState.OPEN
    assert chunk.version == seal.version
    length = seal.length()
    sealed = replace(
        chunk,
        state=ChunkState.SEALED,
        length=length,
        sealed_ns=decision.now_ns,
        members=[],
    )
    tx.put(CHUNKS, (seal.handle,), sealed)
    if chunk.kind is ChunkKind.TAIL:
        tx.put(WRITERS, (seal.handle,), Writers(seal.writers(), decision.now_ns))
        _attach_tail(decision, seal.handle, chunk.ino, length, seal.mtime_ns())
    after: Chunk = tx.get(CHUNKS, (seal.handle,))
    if not after.length and not after.references:
        tx.put(CHUNKS, (seal.handle,), extents.condemned(after, decision.now_ns))
    return sealed


def _attach_tail(decision: Decision, handle: int, ino: int, length: int, mtime_ns: int) -> None:
    """The sealed tail becomes ordinary content of its file."""
    inode: Inode | None = decision.tx.get(INODES, (ino,))
    if inode is None or inode.tail != handle:
        return  # the file went away meanwhile, and the chunk is condemned with it
    known: Extent | None = decision.tx.get(EXTENTS, (ino, inode.tail_offset))
    if known is not None and known.length > length:
        inode = _shrink(decision, ino, inode, length)
    grown = grow(decision, ino, inode, length, mtime_ns)
    decision.put_inode(ino, replace(grown, tail=0, tail_offset=0))


def _shrink(decision: Decision, ino: int, inode: Inode, end: int) -> Inode:
    """A power loss took appended bytes, not synced, that the log had counted already."""
    return replace(
        extents.truncate(decision, ino, inode, inode.tail_offset + end),
        mtime_ns=inode.written_at(decision.now_ns),
        ctime_ns=decision.now_ns,
        data_version=inode.data_version + 1,
    )


def grow(decision: Decision, ino: int, inode: Inode, end: int, mtime_ns: int = 0) -> Inode:
    """The file with its tail chunk `end` bytes long; extent and references follow.

    `mtime_ns`: when the last of it was written, as the primary tells; 0 = not known, so now.
    `data_version` rises only if bytes came.
    """
    offset, handle = inode.tail_offset, inode.tail
    known: Extent | None = decision.tx.get(EXTENTS, (ino, offset))
    had = known.length if known is not None else 0
    if end <= had:
        return replace(inode, version=inode.version + 1)
    references = extents.References(decision)
    references.add(handle, end - had)
    references.settle()
    decision.tx.put(EXTENTS, (ino, offset), Extent(end, handle, 0))
    mtime_ns = inode.written_at(mtime_ns or decision.now_ns)
    return replace(
        inode,
        size=max(inode.size, offset + end),
        stored=inode.stored + end - had,
        digest=DIGEST_UNKNOWN,  # records come from many, and only the servers have all bytes
        mtime_ns=mtime_ns,
        ctime_ns=max(inode.ctime_ns, mtime_ns),
        data_version=inode.data_version + 1,
        version=inode.version + 1,
    )
