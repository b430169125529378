"""How long a reader waits for somebody who knows the end of a tail."""

from __future__ import annotations

from collections.abc import Callable
from stat import S_IFREG
from typing import cast

import pytest
import trio
from trio.testing import MockClock

from gfs.client.inodes import OpenInode
from gfs.client.layouts import LayoutCache
from gfs.client.metadata import MasterLink
from gfs.client.peers import ChunkServers
from gfs.client.tails import TailEnd, TailSizes
from gfs.errors import GfsError, NoReplica, Unreachable
from gfs.items import Inode
from gfs.messages import (
    END_NOT_BEGUN,
    END_UNKNOWN,
    Actor,
    ChainMember,
    Entries,
    Entry,
    Locate,
    Located,
    Locations,
    Message,
    TailEnds,
    TailEndsAre,
)

TAIL = 7
Reply = Callable[[Message | GfsError, memoryview | None], None]


class Cluster:
    """A master and the tail's only server, each there from a moment on (virtual seconds)."""

    def __init__(self, *, master_s: float, server_s: float, end: int = 500) -> None:
        self._master_s, self._server_s = master_s, server_s
        self._end = end

    async def ask(self, _question: Message, _kind: type[Message]) -> Locations:
        await trio.sleep(max(0.0, self._master_s - trio.current_time()))
        return Locations([Located(TAIL, 1, False, 0, [ChainMember(1, "a:1")])])

    async def get(self, _member: ChainMember) -> Cluster:
        if trio.current_time() < self._server_s:
            raise Unreachable("not yet")
        return self

    def request(self, question: Message, on_reply: Reply) -> None:
        assert isinstance(question, TailEnds)
        on_reply(TailEndsAre([self._end], [1]), None)


def sizes(cluster: Cluster) -> TailSizes:
    link, servers = cast(MasterLink, cluster), cast(ChunkServers, cluster)
    return TailSizes(link, servers, LayoutCache())


async def test_a_master_that_is_away_does_not_shorten_the_file(autojump_clock: MockClock) -> None:
    """Once a reader who had waited for it was told the end that the log knew: acknowledged
    records were missing."""
    found = await sizes(Cluster(master_s=100, server_s=150)).end(TAIL)
    assert found == TailEnd(500, 1)


async def test_an_end_that_nobody_can_tell_is_an_error(autojump_clock: MockClock) -> None:
    with pytest.raises(NoReplica, match="no server knows"):
        await sizes(Cluster(master_s=100, server_s=1000)).end(TAIL)
    assert trio.current_time() < 200


async def test_a_tail_that_nobody_has_begun_is_empty_at_once(autojump_clock: MockClock) -> None:
    """Whoever opened it died before its first record: every reader once waited for ten seconds."""
    found = await sizes(Cluster(master_s=0, server_s=0, end=END_NOT_BEGUN)).end(TAIL)
    assert found == TailEnd(0, 0)
    assert trio.current_time() < 1


async def test_a_server_that_does_not_know_the_end_is_not_believed_to_have_nothing(
    autojump_clock: MockClock,
) -> None:
    """It restarted, and is the first that a new master knows: acknowledged records were missing."""
    with pytest.raises(NoReplica, match="no server knows"):
        await sizes(Cluster(master_s=0, server_s=0, end=END_UNKNOWN)).end(TAIL)


class Sealed:
    """A master that has sealed tail 7 of a file and opened 8, which its reader has missed."""

    def __init__(self) -> None:
        self.asked = 0

    async def ask(self, question: Message, _kind: type[Message]) -> Message:
        if isinstance(question, Locate):
            [handle] = question.handles
            member = ChainMember(1, "a:1")
            return Locations([Located(handle, 1, handle == TAIL, 500, [member])])
        self.asked += 1
        tail, offset = (TAIL, 1000) if self.asked == 1 else (8, 1500)
        inode = Inode(S_IFREG, 0, 0, 1, offset, 0, 0, 0, tail=tail, tail_offset=offset)
        return Entries(self.asked, [Entry(self.asked, 5, inode)])

    async def get(self, _member: ChainMember) -> Sealed:
        return self

    def request(self, question: Message, on_reply: Reply) -> None:
        on_reply(TailEndsAre([30], [1]), None)


async def test_a_file_does_not_end_with_a_tail_that_was_sealed() -> None:
    """A reader that had been stopped took the end of the tail it knew for that of the file, and
    missed what others had appended to the next one."""
    master = Sealed()
    link, servers = cast(MasterLink, master), cast(ChunkServers, master)
    tails = TailSizes(link, servers, LayoutCache())
    assert await OpenInode(5).acknowledged_size(link, tails, Actor(0, 0)) == 1530
