"""The kernel's caches follow the master: what is dropped, in which order, and how.

Before an invalidation is acknowledged: our own tables have dropped it (so replies on
their way are not kept), the kernel's attributes are dropped (that call never blocks),
and so are its names. Dropping a name takes the directory's lock, and that lock may be
held for a request of this very mount which waits at the master for *another* mount
that waits for us: two mounts that each create what the other has cached as absent.
So names are dropped in a thread, for 20 ms; then, or at once where a request of ours
is known to hold the directory, FUSE_NOTIFY_INC_EPOCH is written to the descriptor: it
takes no lock and makes the kernel look up every name again. Where the kernel has no
such notification, names are never given a timeout and there is nothing to drop.

Pages of open files are dropped in a thread. That call waits for reads and writes under
way, which may wait for us, so the acknowledgement waits for it 20 ms and no more. It
does wait, because the kernel throws away the reply to a getattr during which anything
of the inode was dropped: a read that follows the change would end at the old size.

The asynchronous call of pyfuse3 is never used: it returns before anything is dropped.
"""

from __future__ import annotations

import logging
import os
import struct
from collections.abc import Awaitable, Sequence

import pyfuse3
import trio

from gfs.messages import Invalidate, NamePair
from mount.answering import Tables

log = logging.getLogger(__name__)

NOTIFY_INC_EPOCH = 8
EPOCH_MESSAGE = struct.pack("<IiQ", 16, NOTIFY_INC_EPOCH, 0)  # struct fuse_out_header alone
ENTRY_S = 0.02  # a lock that is free is had in microseconds
PAGES_S = 0.02
THREADS_MAX = 32  # blocked ones; beyond them names go by the epoch


def fuse_descriptor() -> int:
    """The descriptor of this process's mount; pyfuse3 does not tell it.

    Raises:
      LookupError: nothing is mounted.
    """
    for name in os.listdir("/proc/self/fd"):
        try:
            if os.readlink(f"/proc/self/fd/{name}") == "/dev/fuse":
                return int(name)
        except OSError:
            continue  # the descriptor of the listing itself
    raise LookupError("this process has no /dev/fuse open")


class Invalidation:
    """Carries out the master's invalidations. `run` keeps its tasks."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        tables.forget_kernel_names = self.forget_names
        self._limiter = trio.CapacityLimiter(THREADS_MAX)
        self._descriptor = -1
        self._nursery: trio.Nursery | None = None
        self.entries_total = 0
        self.epochs_total = 0
        self.blocked_total = 0

    def probe(self) -> bool:
        """Find the descriptor and see whether the kernel knows the epoch (Linux 6.16)."""
        self._descriptor = fuse_descriptor()
        try:
            os.write(self._descriptor, EPOCH_MESSAGE)
        except OSError as error:
            log.info("epoch.unsupported %s: names are looked up each time", error.strerror)
            return False
        return True

    def end(self) -> None:
        """There is no kernel to tell any more: the descriptor may soon be another file's."""
        self._descriptor = -1
        self._nursery = None

    async def run(self) -> None:
        """Threads that drop pages live here; they are abandoned at the end."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            await trio.sleep_forever()

    def invalidate(self, message: Invalidate) -> Awaitable[None]:
        """What the master says has changed elsewhere; awaited, it may be acknowledged.

        Whatever never blocks is done at once, so before any answer that came later leaves:
        who is told that a name exists, and looks, finds it.
        """
        tables = self._tables
        if tables.is_subtree and self._moves_directory(message):
            tables.cache.outdate(message.position)
            self._forget_everything()
        tables.cache.invalidate(message.position, message.names, message.inos)
        if self._descriptor < 0:
            return self._dropped([], [])  # not mounted yet, or no more: the kernel has nothing
        for ino in message.inos:
            self.forget_attributes(ino)
        names = self._known(message.names) if tables.names_recallable else []
        if self._is_busy(names):
            self.forget_names()
            names = []
        return self._dropped(names, [self._content_changed(ino) for ino in message.contents])

    async def _dropped(
        self, names: Sequence[NamePair], dropping: Sequence[trio.Event | None]
    ) -> None:
        if names:
            await self._drop_names(names)
        with trio.move_on_after(PAGES_S):
            for dropped in dropping:
                if dropped is not None:
                    await dropped.wait()

    def _moves_directory(self, message: Invalidate) -> bool:
        """It may have left the subtree that is shown, and all below with it without a word."""
        cache = self._tables.cache
        parents = {pair.parent for pair in message.names}
        return bool(parents) and any(
            cache.knows_directory(ino) for ino in message.inos if ino not in parents
        )

    def forget_attributes(self, ino: int) -> None:
        """The kernel, if there is one, asks for this inode's attributes again. Never blocks."""
        if self._descriptor >= 0 and self._tables.inodes.distrusts(ino, trio.current_time()):
            try:
                pyfuse3.invalidate_inode(ino, attr_only=True)
            except OSError:
                pass  # the kernel has forgotten it, which is as good

    def _known(self, names: Sequence[NamePair]) -> list[NamePair]:
        """Those that the kernel may keep."""
        inodes = self._tables.inodes
        return [
            pair
            for pair in names
            if pair.parent == pyfuse3.ROOT_INODE or inodes.is_known(pair.parent)
        ]

    def _is_busy(self, names: Sequence[NamePair]) -> bool:
        """Whether a request of ours holds the lock of a directory of theirs."""
        busy = self._tables.busy
        return any(pair.parent in busy for pair in names)

    async def _drop_names(self, known: Sequence[NamePair]) -> None:
        if not self._is_busy(known) and self._limiter.available_tokens:
            with trio.move_on_after(ENTRY_S):
                await trio.to_thread.run_sync(
                    _drop_entries, known, abandon_on_cancel=True, limiter=self._limiter
                )
                self.entries_total += len(known)
                return
            self.blocked_total += 1
        self.forget_names()

    def forget_names(self) -> None:
        """Every name that the kernel keeps, if there is one that does, is looked up again.

        Never blocks.
        """
        if self._descriptor >= 0 and self._tables.names_recallable:
            self.epochs_total += 1
            os.write(self._descriptor, EPOCH_MESSAGE)

    def doubt(self, message: Invalidate) -> None:
        """An own mutation may yet change these: nobody keeps them until `settle`. Never blocks."""
        cache = self._tables.cache
        found = [cache.lookup(pair.parent, pair.name) for pair in message.names]
        cache.doubt(message.names, message.inos)
        self.forget_names()
        for ino in {*message.inos, *(ino for ino in found if ino > 0)}:
            cache.forget_attributes(ino)
            self.forget_attributes(ino)
        for ino in message.contents:
            self._content_changed(ino)

    def settle(self, message: Invalidate) -> None:
        """That mutation is known to have landed, or never to land."""
        self._tables.cache.settle(message.names, message.inos)

    def drop_everything(self) -> None:
        """Nothing that is cached here or in the kernel counts any more. Never blocks."""
        self._tables.cache.clear()
        self._forget_everything()

    def _forget_everything(self) -> None:
        """The kernel asks for every name and all attributes again. Never blocks."""
        if self._descriptor < 0:
            return
        self.forget_names()
        for ino in self._tables.inodes.known():
            self.forget_attributes(ino)
            self._tables.inodes.content_changed(ino)

    def _content_changed(self, ino: int) -> trio.Event | None:
        """Begin to drop the pages of an open file; the event says when they are gone."""
        inodes = self._tables.inodes
        inodes.content_changed(ino)
        if self._descriptor < 0 or not inodes.is_open(ino) or self._nursery is None:
            return None
        dropped = trio.Event()
        self._nursery.start_soon(self._drop_pages, ino, dropped)
        return dropped

    async def _drop_pages(self, ino: int, dropped: trio.Event) -> None:
        await trio.to_thread.run_sync(
            _drop_inode, ino, abandon_on_cancel=True, limiter=self._limiter
        )
        dropped.set()


def _drop_entries(names: Sequence[NamePair]) -> None:
    """In a thread: waits for the lock of each directory."""
    for pair in names:
        try:
            pyfuse3.invalidate_entry(pair.parent, pair.name)
        except OSError:
            pass  # the kernel does not have it


def _drop_inode(ino: int) -> None:
    """In a thread: waits for the pages that requests under way have locked."""
    try:
        pyfuse3.invalidate_inode(ino)
    except OSError:
        pass
