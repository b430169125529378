"""What each call of the kernel costs at the master, and what the kernel may keep.

Handlers are called directly, on a real client that talks to a made-up master.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pyfuse3
import pytest
import trio

from gfs import messages as m
from gfs.client.client import open_client
from gfs.client.settings import Callbacks, ClientSettings
from gfs.errors import StaleInode, TimedOut
from gfs.items import Inode
from gfs.messages import Message, NamePair
from mount import answering
from mount.answering import Answering, Tables
from mount.core.hidden import is_hidden
from mount.handlers import Handlers
from mount.invalidation import Invalidation
from tests.logcheck import ExpectLog
from tests.shell.client_fakes import KEY, FakeChunkServer, FakeMaster

CTX: Any = SimpleNamespace(uid=0, gid=0, pid=1, umask=0)
ROOT = 1
BACKGROUND = (m.Allocate, m.Commit, m.SealChunk)  # what closes leave behind
WRITE_ONLY, READ_ONLY, READ_WRITE = os.O_WRONLY, os.O_RDONLY, os.O_RDWR


class NamingMaster(FakeMaster):
    """A made-up master with names. `before_answer` runs when a lookup has been decided."""

    def __init__(self, servers: list[FakeChunkServer]) -> None:
        super().__init__(servers)
        self.names: dict[int, dict[bytes, int]] = {ROOT: {}}
        self.before_answer: Callable[[], None] = lambda: None
        self.xattrs: dict[bytes, bytes] = {}
        self.stale: set[int] = set()  # inodes that are gone

    def entry(self, ino: int) -> m.Entry:
        if ino in self.names:
            inode = Inode(stat.S_IFDIR | 0o755, 0, 0, 2, 0, 0, 0, 0, parent=ROOT)
            return m.Entry(self.position, ino, inode)
        if ino not in self.files:
            return m.Entry(self.position, 0, None)
        found = super().entry(ino)
        assert found.inode is not None
        found.inode.attributes = dict(self.xattrs)
        return found

    def answer(
        self, message: Message, payload: memoryview | None
    ) -> Message | tuple[Message, bytes]:
        if isinstance(message, m.Open) and message.ino in self.stale:
            raise StaleInode("gone")
        if isinstance(message, m.Lookup):
            found = self.entry(self.names[message.parent].get(message.name, 0))
            self.before_answer()
            return found
        if isinstance(message, m.ReadDirectory):
            names = sorted(self.names[message.ino].items())
            listed = [m.ListedName(n, i, 0, self.entry(i).inode) for n, i in names]
            return m.Listing(self.position, listed, False)
        return super().answer(message, payload)

    def _mutate(self, operation: Message) -> m.Done:
        if isinstance(operation, m.MakeNode):
            self._next_ino += 1
            self.names[self._next_ino] = {}
            self.names[operation.parent][operation.name] = self._next_ino
            return self._done(self._next_ino, operation.parent)
        if isinstance(operation, m.Unlink):
            ino = self.names[operation.parent].pop(operation.name)
            return self._done(ino, operation.parent)
        if isinstance(operation, m.Rename):
            ino = self.names[operation.parent].pop(operation.name)
            self.names[operation.new_parent][operation.new_name] = ino
            return self._done(ino, operation.parent)
        done = super()._mutate(operation)
        if isinstance(operation, m.Create) and done.entry is not None:
            self.names[operation.parent][operation.name] = done.entry.ino
            return self._done(done.entry.ino, operation.parent)
        return done

    def _done(self, ino: int, parent: int) -> m.Done:
        return m.Done(self.position, entry=self.entry(ino), parents=[self.entry(parent)])

    def asked(self) -> list[type[Message]]:
        """Kinds of requests seen since the last call, but for what runs in the background."""
        kinds: list[type[Message]] = []
        for message in self.seen:
            if isinstance(message, m.Mutate):
                kinds.append(type(message.operation))
            elif isinstance(message, m.Lookup | m.GetAttributes | m.ReadDirectory | m.Open):
                kinds.append(type(message))
        self.seen.clear()
        return [kind for kind in kinds if kind not in BACKGROUND]


class Kernel:
    """The handlers, the tables behind them, and the master they ask."""

    def __init__(self, handlers: Handlers, tables: Tables, master: NamingMaster) -> None:
        self.call = handlers
        self.tables = tables
        self.master = master

    async def make_directory(self, name: bytes = b"d") -> int:
        return (await self.call.mkdir(ROOT, name, 0o755, CTX)).st_ino

    async def write_file(self, parent: int, name: bytes, data: bytes) -> int:
        info, entry = await self.call.create(parent, name, 0o644, WRITE_ONLY, CTX)
        await self.call.write(info.fh, 0, data)
        await self.call.flush(info.fh)
        await self.call.release(info.fh)
        return entry.st_ino


@asynccontextmanager
async def kernel() -> AsyncIterator[Kernel]:
    async with trio.open_nursery() as nursery:
        server = FakeChunkServer(1)
        master = NamingMaster([server])
        nursery.start_soon(server.run)
        nursery.start_soon(master.run)
        tables = Tables()
        tables.names_recallable = True
        settings = ClientSettings(master=master.address, key=KEY, connect_timeout_s=5)
        invalidation = Invalidation(tables)

        def committed(entry: m.Entry) -> None:
            tables.cache.learn(entry)

        callbacks = Callbacks(
            directories=tables.cache.directories,
            on_invalidate=invalidation.invalidate,
            on_doubt=invalidation.doubt,
            on_known=invalidation.settle,
            on_entry=committed,
            known=tables.known,
            leads_to=tables.cache.lookup,
            on_resumed=invalidation.drop_everything,
        )
        async with open_client(settings, callbacks=callbacks) as client:
            tables.client = client
            yield Kernel(Handlers(tables, lambda: None), tables, master)
        nursery.cancel_scope.cancel()


async def test_small_file_costs_one_request_from_create_to_close() -> None:
    async with kernel() as k:
        directory = await k.make_directory()
        k.master.asked()
        absent = await k.call.lookup(directory, b"f", CTX)
        assert absent.st_ino == 0
        await k.write_file(directory, b"f", b"x" * 4096)
        found = await k.call.lookup(directory, b"f", CTX)
        assert found.st_size == 4096
        assert k.master.asked() == [m.Create]


async def test_directory_made_here_answers_for_itself() -> None:
    async with kernel() as k:
        directory = await k.make_directory()
        k.master.asked()
        for name in (b"a", b"b"):
            answer = await k.call.lookup(directory, name, CTX)
            assert answer.st_ino == 0
            assert answer.entry_timeout > 0
        assert k.master.asked() == []


async def test_looked_up_name_and_its_attributes_are_asked_once() -> None:
    async with kernel() as k:
        k.master.names[ROOT][b"f"] = ino = k.master.new_file()
        first = await k.call.lookup(ROOT, b"f", CTX)
        assert 0 < first.entry_timeout <= 20
        assert 0 < first.attr_timeout <= 20
        await k.call.lookup(ROOT, b"f", CTX)
        await k.call.getattr(ino, CTX)
        with pytest.raises(pyfuse3.FUSEError) as refused:
            await k.call.getxattr(ino, b"security.capability", CTX)
        assert refused.value.errno == pyfuse3.ENOATTR
        assert k.master.asked() == [m.Lookup]


async def test_name_of_a_file_found_gone_is_asked_anew() -> None:
    """Another mount has renamed over it, and this one has not heard of it yet."""
    async with kernel() as k:
        k.master.names[ROOT][b"f"] = gone = k.master.new_file()
        await k.call.lookup(ROOT, b"f", CTX)
        k.master.names[ROOT][b"f"] = new = k.master.new_file()
        k.master.stale.add(gone)
        with pytest.raises(pyfuse3.FUSEError) as refused:
            await k.call.open(gone, READ_ONLY, CTX)
        assert refused.value.errno == errno.ESTALE  # and the kernel looks the name up again
        assert (await k.call.lookup(ROOT, b"f", CTX)).st_ino == new


async def test_foreign_attributes_of_the_kernel_are_refused_unasked() -> None:
    async with kernel() as k:
        with pytest.raises(pyfuse3.FUSEError) as refused:
            await k.call.getxattr(99, b"system.posix_acl_access", CTX)
        assert refused.value.errno == errno.ENOTSUP
        assert k.master.asked() == []


async def test_reply_that_an_invalidation_overtook_is_given_no_timeout() -> None:
    async with kernel() as k:
        k.master.names[ROOT][b"f"] = ino = k.master.new_file()

        def overtake() -> None:
            k.tables.cache.invalidate(k.master.position + 1, [NamePair(ROOT, b"f")], [ino])

        k.master.before_answer = overtake
        late = await k.call.lookup(ROOT, b"f", CTX)
        assert late.st_ino == ino
        assert late.entry_timeout == late.attr_timeout == 0
        k.master.before_answer = lambda: None
        k.master.position += 1
        fresh = await k.call.lookup(ROOT, b"f", CTX)
        assert fresh.entry_timeout > 0
        assert fresh.attr_timeout > 0
        assert k.master.asked() == [m.Lookup, m.Lookup]


async def test_names_get_no_timeout_where_the_kernel_cannot_be_told() -> None:
    async with kernel() as k:
        k.tables.names_recallable = False
        k.master.names[ROOT][b"f"] = k.master.new_file()
        found = await k.call.lookup(ROOT, b"f", CTX)
        assert found.entry_timeout == 0
        assert found.attr_timeout > 0
        assert (await k.call.lookup(ROOT, b"none", CTX)).entry_timeout == 0


async def test_own_removal_and_rename_are_known_without_asking() -> None:
    async with kernel() as k:
        directory = await k.make_directory()
        await k.write_file(directory, b"a", b"x")
        await k.write_file(directory, b"b", b"x")
        await k.call.unlink(directory, b"a", CTX)
        await k.call.rename(directory, b"b", directory, b"c", 0, CTX)
        k.master.asked()
        for name, there in ((b"a", False), (b"b", False), (b"c", True)):
            assert bool((await k.call.lookup(directory, name, CTX)).st_ino) == there
        assert k.master.asked() == []


async def kept_as_absent(k: Kernel, parent: int, name: bytes) -> bool:
    try:
        found = await k.call.lookup(parent, name, CTX)
    except pyfuse3.FUSEError:  # absent, and not to be kept
        return False
    return bool(found.entry_timeout) and not found.st_ino


async def test_nothing_is_kept_of_what_a_mutation_without_an_answer_may_change() -> None:
    async with kernel() as k:
        directory = await k.make_directory()
        ino = await k.write_file(directory, b"f", b"x")
        link = k.tables.client.link
        k.master.hold = m.Unlink
        with pytest.raises(TimedOut):
            await link.mutate(m.Unlink(directory, b"f"), k.tables.client.actor, timeout_s=0.0)
        k.master.asked()
        for _ in range(2):
            found = await k.call.lookup(directory, b"f", CTX)
            assert (found.st_ino, found.entry_timeout) == (ino, 0)
        assert (await k.call.getattr(directory, CTX)).attr_timeout == 0
        assert k.master.asked() == [m.Lookup, m.Lookup, m.GetAttributes]
        k.master.let_go()
        with trio.fail_after(5):
            while not await kept_as_absent(k, directory, b"f"):
                await trio.lowlevel.checkpoint()
        k.master.asked()
        assert (await k.call.lookup(directory, b"f", CTX)).st_ino == 0
        assert k.master.asked() == []


async def test_nothing_cached_is_trusted_after_the_machine_has_slept() -> None:
    async with kernel() as k:
        k.master.names[ROOT][b"f"] = ino = k.master.new_file()
        await k.call.lookup(ROOT, b"f", CTX)
        lease = k.tables.client.link.lease
        k.master.hold = m.Renew
        slept = lease.suspended() + 5.0
        lease.suspended = lambda: slept
        k.master.asked()
        for _ in range(2):
            found = await k.call.lookup(ROOT, b"f", CTX)
            assert found.entry_timeout == found.attr_timeout == 0
        assert k.master.asked() == [m.Lookup, m.Lookup]
        k.master.let_go()
        with trio.fail_after(5):
            while not (await k.call.getattr(ino, CTX)).attr_timeout:
                await trio.lowlevel.checkpoint()


async def test_rename_believes_the_master_about_what_has_moved() -> None:
    """Another mount replaced the source in the same group; its invalidation comes late."""
    async with kernel() as k:
        forgotten: list[int] = []
        k.tables.forget_kernel_names = lambda: forgotten.append(k.master.position)
        directory = await k.make_directory()
        await k.write_file(directory, b"x", b"old")
        newer = k.master.new_file()
        k.master.names[directory][b"x"] = newer
        await k.call.rename(directory, b"x", directory, b"y", 0, CTX)
        assert forgotten == [k.master.position]
        k.tables.cache.invalidate(k.master.position, [NamePair(directory, b"x")], [])
        assert (await k.call.lookup(directory, b"y", CTX)).st_ino == newer
        assert (await k.call.lookup(directory, b"x", CTX)).st_ino == 0


async def test_exchange_of_what_was_replaced_meanwhile_leaves_the_other_name_in_doubt() -> None:
    async with kernel() as k:
        directory = await k.make_directory()
        await k.write_file(directory, b"x", b"1")
        other = await k.write_file(directory, b"y", b"2")
        k.master.names[directory][b"x"] = newer = k.master.new_file()
        flags = pyfuse3.RENAME_EXCHANGE
        await k.call.rename(directory, b"x", directory, b"y", flags, CTX)
        k.master.names[directory][b"x"] = other  # the fake master knows no exchange
        k.master.asked()
        assert (await k.call.lookup(directory, b"y", CTX)).st_ino == newer
        assert (await k.call.lookup(directory, b"x", CTX)).st_ino == other
        assert k.master.asked() == [m.Lookup]


@pytest.mark.parametrize("moved_away", [True, False])
async def test_bytes_of_what_a_rename_replaced_are_dropped_only_if_it_is_gone(
    moved_away: bool,
) -> None:
    async with kernel() as k:
        directory = await k.make_directory()
        ino = await k.write_file(directory, b"x", b"new")
        await k.tables.client.flush_all(durable=False)
        info, entry = await k.call.create(directory, b"y", 0o644, WRITE_ONLY, CTX)
        await k.call.write(info.fh, 0, b"kept")
        if moved_away:
            k.master.names[directory][b"z"] = entry.st_ino
        else:
            file = k.master.files.pop(entry.st_ino)
        await k.call.rename(directory, b"x", directory, b"y", 0, CTX)
        assert (await k.call.lookup(directory, b"y", CTX)).st_ino == ino
        await k.call.release(info.fh)
        assert (k.tables.client.pending(entry.st_ino) is not None) == moved_away
        if moved_away:
            await k.tables.client.flush_all(durable=False)
            assert k.master.content(entry.st_ino) == b"kept"
        else:
            assert not file.size


@pytest.mark.parametrize(
    ("flags", "direct"),
    [
        (WRITE_ONLY, True),
        (WRITE_ONLY | os.O_APPEND, True),
        (READ_WRITE | os.O_APPEND, True),
        (READ_WRITE, False),
        (READ_ONLY, False),
    ],
)
async def test_page_cache_is_passed_by_for_appends_and_write_only(flags: int, direct: bool) -> None:
    async with kernel() as k:
        info, _ = await k.call.create(ROOT, b"f", 0o644, flags, CTX)
        assert bool(info.direct_io) == direct
        await k.call.release(info.fh)


async def test_pages_are_kept_only_while_the_content_is_the_same() -> None:
    async with kernel() as k:
        k.master.names[ROOT][b"f"] = ino = k.master.new_file()
        await k.call.lookup(ROOT, b"f", CTX)
        kept = []
        for change in (0, 0, 1, 0):
            if change:
                k.master.files[ino].version += 1
                k.master.position += 1
                told = m.Invalidate(k.master.position, [], [ino], [ino])
                await k.master.connections[-1].call(told)
            info = await k.call.open(ino, READ_ONLY, CTX)
            kept.append(bool(info.keep_cache))
            await k.call.release(info.fh)
        assert kept == [False, True, False, True]


async def test_unknown_rename_flags_are_refused_unasked() -> None:
    async with kernel() as k:
        for flags in (4, 3, 8):
            with pytest.raises(pyfuse3.FUSEError) as refused:
                await k.call.rename(ROOT, b"a", ROOT, b"b", flags, CTX)
            assert refused.value.errno == errno.EINVAL
        assert k.master.asked() == []


async def test_directories_are_counted_as_held_while_a_call_is_under_way() -> None:
    async with kernel() as k:
        seen: list[dict[int, int]] = []
        k.master.before_answer = lambda: seen.append(dict(k.tables.busy))
        await k.call.lookup(ROOT, b"f", CTX)
        assert seen == [{ROOT: 1}]
        assert k.tables.busy == {}


class Odd(Answering):
    """Handlers that go wrong."""

    @answering.answer()
    async def getattr(self, inode: int, ctx: Any) -> Any:
        raise KeyError(inode)

    @answering.answer(0)
    async def rmdir(self, parent_inode: int, name: bytes, ctx: Any) -> None:
        await trio.sleep(10_000)

    @answering.answer()
    async def readlink(self, inode: int, ctx: Any) -> bytes:
        async with trio.open_nursery():
            raise pyfuse3.FUSEError(errno.EXDEV)


async def test_unforeseen_error_is_eio_and_logged(expect_log: ExpectLog) -> None:
    expect_log("call.failed getattr", times=1)
    tables = Tables()
    with pytest.raises(pyfuse3.FUSEError) as failed:
        await Odd(tables).getattr(5, CTX)
    assert failed.value.errno == errno.EIO
    assert tables.unforeseen == 1


async def test_call_that_never_ends_is_ended(autojump_clock: Any, expect_log: ExpectLog) -> None:
    expect_log("call.error rmdir.*TimedOut", times=1)
    tables = Tables()
    with pytest.raises(pyfuse3.FUSEError) as failed:
        await Odd(tables).rmdir(5, b"d", CTX)
    assert failed.value.errno == errno.ETIMEDOUT
    assert tables.busy == {}


async def test_errno_survives_a_nursery() -> None:
    with pytest.raises(pyfuse3.FUSEError) as failed:
        await Odd(Tables()).readlink(5, CTX)
    assert failed.value.errno == errno.EXDEV


async def test_dot_gfs_is_ours_where_a_cluster_has_none_and_keeps_no_name_in_the_kernel() -> None:
    async with kernel() as k:
        for _ in range(2):
            top = await k.call.lookup(ROOT, b".gfs", CTX)
            assert is_hidden(top.st_ino)
            assert top.entry_timeout == top.attr_timeout == 0
        inner = await k.call.lookup(top.st_ino, b"trash", CTX)
        assert is_hidden(inner.st_ino)
        assert (await k.call.lookup(inner.st_ino, b"..", CTX)).st_ino == top.st_ino
        assert (await k.call.lookup(top.st_ino, b"..", CTX)).st_ino == ROOT
        assert k.master.asked().count(m.Lookup) == 1


async def test_a_file_that_was_called_dot_gfs_before_stays_reachable(expect_log: ExpectLog) -> None:
    expect_log("mount.taken")
    async with kernel() as k:
        k.master.names[ROOT][b".gfs"] = old = k.master.new_file()
        assert (await k.call.lookup(ROOT, b".gfs", CTX)).st_ino == old
        await k.call.rename(ROOT, b".gfs", ROOT, b"other", 0, CTX)
        assert (await k.call.lookup(ROOT, b"other", CTX)).st_ino == old
        assert is_hidden((await k.call.lookup(ROOT, b".gfs", CTX)).st_ino)
