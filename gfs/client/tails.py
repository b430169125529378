"""How long tails are now: asked of their primaries, many in one question.

A file with an open tail grows without the master. The primary knows the length
that all members have acknowledged; no reader is given more. While a question
to a server is out, others gather, so readdirplus costs one a primary.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

import trio
from msgspec.structs import replace

from gfs.client.layouts import LayoutCache
from gfs.client.locating import learn, locate
from gfs.client.metadata import MasterLink
from gfs.client.peers import ChunkServers
from gfs.connection import Connection
from gfs.errors import GfsError, NoReplica
from gfs.items import Inode
from gfs.messages import (
    END_NOT_BEGUN,
    ChainMember,
    Entry,
    Message,
    TailEnds,
    TailEndsAre,
)

log = logging.getLogger(__name__)

ASK_S = 2.0
SIZE_GIVE_UP_S = 10.0  # a seal takes 2 s at the worst of ordinary times
READ_GIVE_UP_S = 60.0  # as with replicas; an end of file too early would be a lie
PAUSE_S = 0.05


class TailEnd(NamedTuple):
    """Acknowledged length of a tail chunk; time of its last append (0 = unknown).

    `is_sealed`: it is no tail any more, and the file may have another.
    """

    length: int
    mtime_ns: int
    is_sealed: bool = False


class Grown(NamedTuple):
    """A file as its tail has it: size, and time of the last append (0 = as the image says)."""

    size: int
    mtime_ns: int

    def image(self, inode: Inode) -> Inode:
        """`inode` as it must be shown."""
        growth = max(0, self.size - inode.size)
        if not growth and not self.mtime_ns:
            return inode
        mtime_ns = self.mtime_ns or inode.mtime_ns
        return replace(
            inode,
            size=self.size,
            stored=inode.stored + growth,
            mtime_ns=mtime_ns,
            ctime_ns=max(inode.ctime_ns, mtime_ns),
        )


class _Question:
    """Handles that gather for one server, and where their answers go."""

    def __init__(self) -> None:
        self.handles: dict[int, None] = {}
        self.ends: dict[int, TailEnd] = {}
        self.done = trio.Event()


class TailSizes:
    """See the module's text."""

    def __init__(self, link: MasterLink, servers: ChunkServers, layouts: LayoutCache) -> None:
        self._link = link
        self._servers = servers
        self._layouts = layouts
        self._gathering: dict[int, _Question] = {}
        self._out: set[int] = set()

    async def end(self, handle: int, *, give_up_s: float = READ_GIVE_UP_S) -> TailEnd:
        """Length of the tail chunk `handle` that all members have.

        Raises:
          NoReplica: no server could tell in `give_up_s`. A master that is away is waited for and
            does not count: when it is back it needs time to seal what others have lost.
        """
        left_s = give_up_s
        while True:
            located = await locate(self._link, self._layouts, handle)
            began_s = trio.current_time()
            if located is not None and located.sealed:
                return TailEnd(located.length, 0, is_sealed=True)
            begun = True
            for member in located.members if located is not None else ():
                found = await self._ask(member, handle)
                if found is not None and found.length >= 0:
                    return found
                begun = begun and (found is None or found.length != END_NOT_BEGUN)
            if not begun:
                return TailEnd(0, 0)  # whoever opened it has not sent a record yet, or died
            self._layouts.forget_chunk(handle)
            if left_s <= 0:
                raise NoReplica(f"tail {handle:016x}: no server knows how long it is")
            await trio.sleep(PAUSE_S)
            left_s -= trio.current_time() - began_s

    async def grown(
        self, entries: Sequence[Entry], before: Callable[[int], Awaitable[None]]
    ) -> list[Grown]:
        """Each entry's file with its tail; `before(ino)` is awaited before asking.

        A tail that nobody can tell the length of counts with what the master knows.
        """
        found = [Grown(e.inode.size if e.inode is not None else 0, 0) for e in entries]
        tailed = [(at, e.ino, e.inode) for at, e in enumerate(entries) if e.inode and e.inode.tail]
        unknown = [i.tail for _, _, i in tailed if self._layouts.locate(i.tail) is None]
        if unknown:
            await learn(self._link, self._layouts, unknown)

        async def ask(at: int, ino: int, inode: Inode) -> None:
            await before(ino)
            try:
                end = await self.end(inode.tail, give_up_s=SIZE_GIVE_UP_S)
            except GfsError as error:
                log.info("tail.unknown ino=%d why=%s", ino, error)
                return
            if end.length:
                size = max(inode.size, inode.tail_offset + end.length)
                found[at] = Grown(size, end.mtime_ns)

        if len(tailed) == 1:
            await ask(*tailed[0])
        elif tailed:
            async with trio.open_nursery() as nursery:
                for one in tailed:
                    nursery.start_soon(ask, *one)
        return found

    async def _ask(self, member: ChainMember, handle: int) -> TailEnd | None:
        server = member.server
        question = self._gathering.get(server)
        if question is None:
            question = self._gathering[server] = _Question()
        question.handles[handle] = None
        if server not in self._out:
            self._out.add(server)
            try:
                connection = await self._servers.get(member)
                self._send(server, connection)
            except GfsError:
                self._out.discard(server)
                self._gathering.pop(server, _Question()).done.set()
        with trio.move_on_after(ASK_S):
            await question.done.wait()
        return question.ends.get(handle)

    def _send(self, server: int, connection: Connection) -> None:
        question = self._gathering.pop(server, None)
        if question is None:
            self._out.discard(server)
            return
        handles = list(question.handles)

        def on_reply(answer: Message | GfsError, _: memoryview | None) -> None:
            if isinstance(answer, TailEndsAre):
                ends = map(TailEnd, answer.ends, answer.mtimes_ns)
                question.ends = dict(zip(handles, ends, strict=False))
            question.done.set()
            self._send(server, connection)

        connection.request(TailEnds(handles), on_reply)
