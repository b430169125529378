"""Empties data directories while their server goes on: `gfs chunkd drain SERVER --dir PATH`.

That a directory is drained stands in it, so the mark outlives every process and goes with the
disk. It takes nothing new from then on. What it has is moved, one replica at a time and verified
on the way, to another directory of this server: the new files are durable before the old ones
go, so the master counts the copy all the while. chunkd.core.draining says what cannot be moved,
and the master, which is told, has copies made on other servers.
"""

from __future__ import annotations

import logging
import mmap
from collections.abc import Callable
from functools import partial
from typing import TypeVar

import trio

from chunkd.core.draining import Drain
from chunkd.core.replica import Replica
from chunkd.directory import DataDirectory
from chunkd.files import CopyFile, SealedFiles, read_meta
from chunkd.lanes import Lanes
from chunkd.orders import Orders
from chunkd.reading import Reading
from chunkd.store import Store, delete
from chunkd.sums import BlockSums
from gfs.errors import Corrupt, GfsError, NoSpace, NotFound, StorageFailed
from gfs.ids import MIB
from gfs.messages import DirectoriesDraining, DirectoryDrain, DrainDirectory

log = logging.getLogger(__name__)

LOOK_S = 0.25
PIECE_BYTES = MIB
_T = TypeVar("_T")


class Draining:
    """See the module's text. `on_change`: the master must hear of what is in a directory."""

    def __init__(
        self,
        store: Store,
        orders: Orders,
        reading: Reading,
        lanes: Lanes,
        on_change: Callable[[DataDirectory], None],
    ) -> None:
        self._store = store
        self._orders = orders
        self._reading = reading
        self._lanes = lanes
        self._on_change = on_change
        self._buffer = memoryview(mmap.mmap(-1, PIECE_BYTES))  # aligned, as reads aside need it
        self._marking = trio.Lock()
        orders.add(DrainDirectory, self._order)
        for directory in store.directories:
            if directory.drain is not None:
                self._look(directory, directory.drain)

    # --- the order

    async def _order(self, message: DrainDirectory) -> DirectoriesDraining:
        """Begin or end; answered when that is durable.

        Raises:
          NotFound: no such directory.
          StorageFailed: it does not work, so it is being emptied anyway.
        """
        directory = self._find(message.path)
        if directory.health.is_out:
            raise StorageFailed(
                f"{directory.path} is out of use ({directory.health.reason}): its replicas count no"
                " more and are copied elsewhere without being asked"
            )
        async with self._marking:
            if message.stop and directory.drain is not None:
                await self._mark(directory, draining=False)
                directory.drain = None
            elif not message.stop and directory.drain is None:
                directory.drain = Drain()  # nothing new goes there from now on
                await self._mark(directory, draining=True)
        if directory.drain is not None:
            self._look(directory, directory.drain)
        return DirectoriesDraining(self.report())

    async def _mark(self, directory: DataDirectory, *, draining: bool) -> None:
        mark = partial(directory.mark_draining, draining=draining)
        try:
            await self._lanes.of(directory).order.run(mark)
        except GfsError as error:
            directory.drain = None
            self._store.note_failure(directory, error)
            raise
        log.info("directory.%s path=%s", "drains" if draining else "kept", directory.path)
        self._on_change(directory)

    def _find(self, path: str) -> DataDirectory:
        for directory in self._store.directories:
            if str(directory.path) == path:
                return directory
        known = ", ".join(str(directory.path) for directory in self._store.directories)
        raise NotFound(f"{path} is no data directory in use by this server; there are: {known}")

    def report(self) -> list[DirectoryDrain]:
        """How far each has come."""
        return [
            DirectoryDrain(
                str(directory.path), drain.replicas_left, drain.bytes_left, len(drain.homeless)
            )
            for directory in self._store.directories
            if (drain := directory.drain) is not None
        ]

    # --- the work

    async def run(self) -> None:
        """Move what can be moved, for ever."""
        while True:
            for directory in self._store.directories:
                drain = directory.drain
                if drain is not None and directory.health.is_working:
                    await self._round(directory, drain)
                elif drain is not None:
                    self._look(directory, drain)
            await trio.sleep(LOOK_S)

    def _look(self, directory: DataDirectory, drain: Drain) -> list[Replica]:
        replicas = self._store.in_directory(directory)
        drain.look(replicas, self._store.arriving_at(directory))
        if drain.has_news(replicas, trio.current_time()):
            self._on_change(directory)
        return replicas

    async def _round(self, directory: DataDirectory, drain: Drain) -> None:
        replicas = self._look(directory, drain)
        looked_s = trio.current_time()
        told_of: dict[DataDirectory, None] = {}
        for replica in drain.to_move(replicas, looked_s):
            if directory.drain is not drain or not directory.health.is_working:
                break
            target = await self._move(directory, drain, replica)
            if target is not None:
                told_of[target] = None
            if trio.current_time() - looked_s >= LOOK_S:
                self._look(directory, drain)
                looked_s = trio.current_time()
        for target in told_of:
            self._on_change(target)
        if directory.drain is drain:
            self._look(directory, drain)

    async def _move(
        self, directory: DataDirectory, drain: Drain, replica: Replica
    ) -> DataDirectory | None:
        """To another directory; returns that if the master has to hear that it may stay."""
        no_room = False
        try:
            async with self._orders.alone(replica.handle):
                if self._store.machine.replicas.get(replica.handle) is not replica or replica.bad:
                    return None  # deleted, or made anew
                target = await self._carry(directory, replica)
            return target if drain.moved(replica) else None
        except NoSpace:
            no_room = True
        except GfsError as error:
            log.warning("replica.not-moved handle=%016x: %s", replica.handle, error)
        drain.not_moved(replica, trio.current_time(), no_room=no_room)
        return None

    async def _carry(self, source: DataDirectory, replica: Replica) -> DataDirectory:
        """Copy it, count the copy instead of it, delete it.

        Raises:
          NoSpace: no other directory has room.
          GfsError: it cannot be read, which is told, or not be written.
        """
        copy = self._store.begin_copy(replica.handle, replica.end)
        try:
            sums = await self._fill(copy, source, replica)
        except BaseException:
            self._store.abandon_copy(copy)
            raise
        self._store.finish_copy(copy, replica.version, sums)
        log.info("replica.moved handle=%016x to=%s", replica.handle, copy.directory.path)
        try:
            await self._lanes.of(source).order.run(
                lambda: delete(source, replica.handle, bad=False)
            )
        except GfsError as error:
            self._store.note_failure(source, error)
        return copy.directory

    async def _fill(self, copy: CopyFile, source: DataDirectory, replica: Replica) -> BlockSums:
        files, writers = await self._read(source, replica, partial(_open, source, replica.handle))
        try:
            for offset in range(0, replica.end, PIECE_BYTES):
                piece = self._buffer[: min(PIECE_BYTES, replica.end - offset)]
                verify = partial(files.sums.check_aside, files.data, offset, piece)
                await self._read(source, replica, verify)
                await self._write(copy, partial(copy.write_all, [piece]))
        finally:
            files.close()
        return await self._write(copy, partial(copy.finish, replica.version, writers))

    async def _read(self, source: DataDirectory, replica: Replica, job: Callable[[], _T]) -> _T:
        try:
            return await self._lanes.of(source).order.run(job)
        except GfsError as error:
            gone = isinstance(error, NotFound) and source.is_there
            self._reading.cannot_be_read(replica, Corrupt(str(error)) if gone else error)
            raise

    async def _write(self, copy: CopyFile, job: Callable[[], _T]) -> _T:
        try:
            return await self._lanes.of(copy.directory).order.run(job)
        except GfsError as error:
            self._store.note_failure(copy.directory, error)
            raise


def _open(directory: DataDirectory, handle: int) -> tuple[SealedFiles, dict[int, int]]:
    """A sealed replica's files, and the writers whose last sequences it knows."""
    writers = read_meta(directory, handle, "meta").writers
    return SealedFiles.open(directory, handle), writers
