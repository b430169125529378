"""The client of one cluster: link, servers, reader, write-back, appenders, open files.

All state is the owner's one task group. A mount calls by inode; programs use
`gfs.client.filesystem` on top.
"""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator, Awaitable, Iterable, Sequence
from contextlib import asynccontextmanager
from functools import partial

import trio

from gfs.client.appending import Appender
from gfs.client.closing import Closing
from gfs.client.dirty import Pending
from gfs.client.files import OpenFile
from gfs.client.inodes import OpenInode
from gfs.client.keeping import Keeping
from gfs.client.late import LateAnswers
from gfs.client.leasing import ChunkSource
from gfs.client.locks import Locks
from gfs.client.metadata import Declared, MasterLink
from gfs.client.peers import ChunkServers
from gfs.client.reading import Reader
from gfs.client.settings import Callbacks, ClientSettings
from gfs.client.tails import Grown, TailSizes
from gfs.client.writing import WriteBack
from gfs.errors import GfsError, IsADirectory, RemoteProtocolError, StaleInode
from gfs.messages import (
    Actor,
    Barrier,
    BarrierDone,
    Create,
    Done,
    Entry,
    Invalidate,
    LaidOut,
    Lease,
    Located,
    Open,
    Opened,
    SetAttributes,
)
from gfs.open_flags import writes
from gfs.running import only_of

log = logging.getLogger(__name__)

TICK_S = 0.25
CLOSE_LIMIT_S = 20.0
RECALLS_AT_ONCE = 64


class Client:
    """See the module's text; made by `open_client`.

    Attributes:
      link: the master (read, ask, mutate, lease, epoch, session, dead).
      servers, reader, writeback, tails, locks: the parts.
    """

    def __init__(
        self, nursery: trio.Nursery, settings: ClientSettings, callbacks: Callbacks
    ) -> None:
        self.actor = Actor(os.getuid(), os.getgid(), os.getpid())
        self.callbacks = callbacks
        self.settings = settings
        self.nursery = nursery
        self.link = link = MasterLink(settings)
        link.declare = self._declare
        link.orders.on_invalidate = self._invalidate
        link.orders.on_recall = self.recall
        link.on_dead = self._session_lost
        link.on_reconnected = self.distrust
        link.on_new_epoch = callbacks.on_new_epoch
        link.on_resumed = self._resumed
        link.groups_of = callbacks.groups_of
        LateAnswers(
            link, nursery, callbacks, invalidated=self.invalidated, invalidate=self._invalidate,
            unopened=self._opened_for_nobody,
        )  # fmt: skip
        self.servers = ChunkServers(nursery, key=settings.key, cluster=settings.cluster)
        self._source = ChunkSource(
            link, self.servers, nursery, self.actor, timeout_s=settings.mutation_timeout_s
        )
        self.reader = Reader(nursery, link, self.servers, self._source.has_open)
        self.tails = TailSizes(link, self.servers, self.reader.layouts)
        self.writeback = WriteBack(
            link,
            self._source,
            self.actor,
            limit_bytes=settings.write_back_bytes,
            flush_after_s=settings.flush_after_s,
        )
        self.writeback.on_committed = self._committed
        self._inodes: dict[int, OpenInode] = {}
        self._closing = Closing(link)
        self._keeping = Keeping(
            link, self._closing, callbacks, self.reader.layouts, self.writeback.pending
        )
        link.before_mutation = self._keeping.before
        self.writeback.on_idle = self._idle
        self.locks = Locks(link, nursery, partial(self.flush_all, durable=False))

    # --- opening and closing

    async def open(self, ino: int | Entry, flags: int, actor: Actor) -> OpenFile:
        """Open a regular file that exists; O_TRUNC is acted on.

        Raises:
          Refused: it does not exist, or the actor may not.
        """
        number = ino.ino if isinstance(ino, Entry) else ino
        if (again := self.reopen(number, flags, actor)) is not None:
            return again
        inode = self._hold(number, flags)
        distrusts, clears = inode.distrusts, self.reader.layouts.clears
        try:
            opened = await self.link.ask(Open(number, flags, actor), Opened)
            entry = opened.entry
            if entry.inode is None:
                raise StaleInode(f"inode {number} is gone")
            if entry.inode.is_directory:
                raise IsADirectory("is a directory")
            inode.registered = True
            inode.learn(entry, asked=distrusts)
            inode.shared = inode.shared or opened.shared
            self.reader.seed(number, opened, asked=clears)
            file = self._open_file(inode, entry, flags, actor, opened.room)
        except BaseException:
            self.released(inode, writing=writes(flags))
            if writes(flags) and self.writeback.pending(number) is None:
                self._idle(number)
            raise
        if flags & os.O_TRUNC:  # of an empty file too: its times move
            try:  # as Linux does, also for who only reads: the permission was checked
                done = await self.truncate(number, 0, actor, opened=True)
                file.entry = done.entry or entry
            except BaseException:
                file.release()
                raise
        return file

    def reopen(self, ino: int, flags: int, actor: Actor) -> OpenFile | None:
        """`open` where the master need not be asked; None: nothing was done, call `open`."""
        inode = self._inodes.get(ino)
        is_open = inode is not None and inode.registered and inode.appender is None
        entry = self._keeping.entry(ino, flags, actor, is_open=is_open)
        if entry is None:
            return None
        inode = self._hold(ino, flags)
        inode.registered = True
        inode.learn(entry)
        return OpenFile(self, inode, entry, flags, actor)

    async def create(
        self, parent: int, name: bytes, mode: int, flags: int, actor: Actor
    ) -> tuple[OpenFile, Done]:
        """Create (or, without O_EXCL, open) a file; `Done.entry` and `Done.parents` for caches.

        Raises:
          Refused: AlreadyExists with O_EXCL, no permission, ...
        """
        clears = self.reader.layouts.clears
        done = await self.link.mutate(Create(parent, name, mode, flags), actor)
        entry = done.entry
        if entry is None or entry.inode is None:
            raise RemoteProtocolError("the master created a file without telling which")
        if not done.created:
            return await self.open(entry, flags, actor), done
        inode = self._hold(entry.ino, flags)
        inode.registered = True
        inode.learn(entry)
        self.reader.seed_empty(entry.ino, entry, asked=clears)
        if clears != self.reader.layouts.clears:
            inode.distrust()
        return self._open_file(inode, entry, flags, actor, done.room), done

    def _hold(self, ino: int, flags: int) -> OpenInode:
        """Count the handle before asking, so that no close of another one overtakes it."""
        inode = self._inodes.get(ino)
        if inode is None:
            inode = self._inodes[ino] = OpenInode(ino)
        inode.handles += 1
        inode.writing += writes(flags)
        self._keeping.opened(ino)
        self._closing.opened(ino, writing=writes(flags))
        return inode

    def _open_file(
        self, inode: OpenInode, entry: Entry, flags: int, actor: Actor, room: int
    ) -> OpenFile:
        if writes(flags):
            version = entry.inode.data_version if entry.inode is not None else -1
            if inode.dirty is None:  # one attachment an inode, however many handles
                inode.dirty = self.writeback.attach(inode.ino, version)
            inode.dirty.allow(room)
        return OpenFile(self, inode, entry, flags, actor)

    def released(self, inode: OpenInode, *, writing: bool) -> None:
        """A handle is closed."""
        inode.handles -= 1
        inode.writing -= writing
        if inode.busy_appending and not inode.writing:
            self.nursery.start_soon(self._after_appends, inode)
        else:
            self._let_go(inode, keep=inode.registered and not writing)

    async def _after_appends(self, inode: OpenInode) -> None:
        await inode.wait_for_appends()
        self._let_go(inode, keep=False)

    def _let_go(self, inode: OpenInode, *, keep: bool) -> None:
        ino = inode.ino
        if not inode.writing and not inode.busy_appending:
            inode.appender = None
            dirty, inode.dirty = inode.dirty, None
            if dirty is not None:
                self.writeback.detach(dirty)  # says `_written` when nothing waits
        if not inode.handles and self._inodes.get(ino) is inode:
            del self._inodes[ino]
            self._keeping.closed(ino, keep=keep)

    def _idle(self, ino: int) -> None:
        """Nothing waits. The session stays a writer for a handle whose open is on its way."""
        inode = self._inodes.get(ino)
        if inode is None or not (inode.writing or inode.busy_appending):
            self._closing.written(ino)

    def appender(self, inode: OpenInode, actor: Actor) -> Appender:
        """The appender of all this process's handles on an inode; a new one after a failure."""
        appender = inode.appender
        if appender is not None and appender.error is None:
            return appender
        appender = Appender(inode.ino, self.link, self.servers, self.nursery, actor)

        def on_tail(lease: Lease, file_offset: int) -> None:
            self.reader.layouts.learn(
                [Located(lease.handle, lease.version, False, 0, lease.members)]
            )
            if inode.tail is None or inode.tail.handle != lease.handle:
                inode.stale = True  # sealed tails are extents now; sizes moved
                self.reader.layouts.drop(inode.ino, -1)
            inode.set_tail(lease.handle, file_offset)

        def on_room(room: int) -> None:
            if inode.dirty is not None:
                inode.dirty.allow(room)

        appender.on_tail, appender.on_room = on_tail, on_room
        inode.appender = appender
        return appender

    # --- what a mount asks for attributes

    def pending(self, ino: int) -> Pending | None:
        """What there is of this client's uncommitted writes to the file."""
        return self.writeback.pending(ino)

    def utimens(self, ino: int) -> None:
        """A utimens is about to be sent: later commits of earlier writes leave mtime alone."""
        self.writeback.keep_mtime(ino)

    async def settle(self, ino: int) -> None:
        """Flush and commit one file and wait for its appends (before SETATTR, link, rename)."""
        await self._wait_for_appends(ino)
        await self.writeback.flush(ino, durable=False)

    async def grown(self, entries: Sequence[Entry]) -> list[Grown]:
        """Each file as a reader must see it now, but for what `pending` tells: tails are asked.

        A tail that nobody can tell the length of counts with what the master knows.
        """
        return await self.tails.grown(entries, self._wait_for_appends)

    async def _wait_for_appends(self, ino: int) -> None:
        inode = self._inodes.get(ino)
        if inode is not None:
            await inode.wait_for_appends()

    async def truncate(self, ino: int, size: int, actor: Actor, *, opened: bool = False) -> Done:
        """truncate(2); `opened`: ftruncate, whose permission was checked at open.

        Raises:
          Refused: not allowed, too large.
        """
        await self.settle(ino)
        operation = SetAttributes(ino, size=size, handle_open_for_write=opened)
        done = await self.link.mutate(operation, actor)
        self.reader.drop(ino, done.position)
        inode = self._inodes.get(ino)
        if inode is not None and done.entry is not None:
            inode.invalidate(done.position)
            inode.learn(done.entry)
        return done

    def give_up(self, ino: int) -> None:
        """The file has lost a name, or more: it is not kept open, whoever has read it just now."""
        self._keeping.give_up([ino])

    def discard(self, ino: int) -> None:
        """The file has no name and no handle any more: drop its uncommitted bytes."""
        self.writeback.discard(ino)

    # --- coherence

    def _invalidate(self, message: Invalidate) -> Awaitable[None]:
        self._keeping.give_up([*message.inos, *message.contents])
        for ino in {*message.contents, *message.moved}:
            self.reader.drop(ino, message.position)
        for ino in {*message.inos, *message.contents}:
            inode = self._inodes.get(ino)
            if inode is not None:
                inode.invalidate(message.position)
        return self.callbacks.on_invalidate(message)

    def invalidated(self, inos: Iterable[int]) -> None:
        """Forget layouts and attributes kept for these files."""
        for ino in inos:
            self.reader.drop(ino, -1)
            inode = self._inodes.get(ino)
            if inode is not None:
                inode.stale = True

    def _opened_for_nobody(self, ino: int) -> None:
        """Whoever asked for it has gone; the master counts this session as a holder."""
        if ino not in self._inodes and ino not in self._keeping.kept:
            self._closing.closed(ino)
        if self.writeback.pending(ino) is None:
            self._idle(ino)

    def _committed(self, ino: int, entry: Entry, ranges: Sequence[LaidOut] | None) -> None:
        self.reader.committed(ino, ranges, entry)
        inode = self._inodes.get(ino)
        if inode is not None:
            inode.learn(entry)
        self.callbacks.on_entry(entry)

    async def recall(self, inos: Sequence[int], kept: bool = False) -> None:
        """Flush and commit; errors stay the handles'. `kept`: tell which are closed instead.

        Records on their way are waited for only with no inode named (a barrier): nobody
        else was promised them, and two mounts that resolve a tail would wait for each other.
        """
        if kept:
            self._keeping.broken(inos)
            return
        for ino in inos:
            inode = self._inodes.get(ino)
            if inode is not None:
                inode.shared = True
        if not inos:
            await self.flush_all(durable=False)
            await self.callbacks.on_barrier()
        for start in range(0, len(inos), RECALLS_AT_ONCE):
            async with trio.open_nursery() as nursery:
                for ino in inos[start : start + RECALLS_AT_ONCE]:
                    nursery.start_soon(partial(self.writeback.flush, ino, durable=False))

    async def flush_all(self, durable: bool) -> None:
        """Everything pending is committed (durable: and synced)."""
        for inode in list(self._inodes.values()):
            await inode.wait_for_appends()
            if durable and inode.appender is not None and inode.appender.error is None:
                await inode.appender.sync()
        await self.writeback.flush_all(durable=durable)

    async def barrier(self) -> BarrierDone:
        """What anybody was told before now lies at or below the position returned."""
        return await self.link.ask(Barrier(), BarrierDone)

    # --- the session

    def _declare(self) -> Declared:
        self._keeping.superseded()
        inodes = self._inodes.values()
        writing = (inode.ino for inode in inodes if inode.writing or inode.busy_appending)
        writers = {*self.writeback.inodes(), *writing}
        return self.callbacks.directories(), list(self._inodes), list(writers)

    def distrust(self) -> None:
        """What changed while nobody could tell us is not known: ask anew."""
        self.reader.layouts.clear()
        for inode in self._inodes.values():
            inode.distrust()

    def _resumed(self) -> None:
        self.distrust()
        self.callbacks.on_resumed()

    def _session_lost(self) -> None:
        self.distrust()
        self.callbacks.on_session_lost()
        self.link.reopen()
        self.writeback.session_lost(under_lock=bool(self.locks.held))

    async def run(self) -> None:
        """Time limits and batched closes. Never returns."""
        self.nursery.start_soon(self.writeback.run)
        while True:
            await trio.sleep(TICK_S)
            now = trio.current_time()
            self._keeping.tick()
            self._closing.send()
            for inode in self._inodes.values():
                if inode.appender is not None:
                    inode.appender.check(now)

    async def aclose(self) -> None:
        """Flush everything (at most 20 s) and close the session. Never raises."""
        with trio.move_on_after(CLOSE_LIMIT_S) as limit:
            try:
                await self.flush_all(durable=True)
            except GfsError as error:
                log.error("close.lost why=%s", error)
        if limit.cancelled_caught:
            log.error("close.lost bytes=%d: not written in time", self.writeback.dirty_bytes)
        self._closing.send()
        await self.link.close()
        self.reader.close()
        self.servers.close()


@asynccontextmanager
async def open_client(
    settings: ClientSettings, *, callbacks: Callbacks | None = None
) -> AsyncIterator[Client]:
    """A connected client; leaving the block flushes (at most 20 s) and closes the session.

    Raises:
      GfsError, UsageError: the master refuses us, or `connect_timeout_s` has passed.
    """
    try:
        async with trio.open_nursery() as nursery:
            client = Client(nursery, settings, callbacks or Callbacks())
            await nursery.start(client.link.run)
            client.servers.cluster = client.link.cluster
            nursery.start_soon(client.run)
            try:
                yield client
            finally:
                with trio.CancelScope(shield=True):
                    await client.aclose()
                nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        raise only_of(group) from None
