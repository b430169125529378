"""What the master orders: fence, condense, copy, delete, verify.

Orders come on the connection that this server opened to the master, one task
each. Two orders about one chunk never overlap. A fence takes effect at once and
is answered when it is durable. Disk work runs in threads, a few at a time.

Source: GFS §4.3-4.5.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, TypeVar

import trio

from chunkd.copying import fill
from chunkd.core.machine import Machine
from chunkd.core.replica import Replica, ReplicaState
from chunkd.directory import DataDirectory
from chunkd.files import CopyFile
from chunkd.lanes import Lanes
from chunkd.links import Links
from chunkd.service import DataService
from chunkd.store import Store, delete
from chunkd.sums import BlockSums
from gfs import messages
from gfs.connection import Connection
from gfs.errors import (
    Corrupt,
    GfsError,
    NoSuchReplica,
    StaleVersion,
    StorageFailed,
)
from gfs.ids import BLOCK_BYTES, CHUNK_BYTES, MIB

log = logging.getLogger(__name__)

_LONG = messages.CopyReplica | messages.BuildReplica | messages.VerifyReplicas

_T = TypeVar("_T")

COPIES_MAX = 3  # at a time
VERIFY_BYTES_PER_S = 256 * MIB  # leaves the disk to those who wait for it


class Orders:
    """See the module's text."""

    def __init__(
        self, machine: Machine, store: Store, service: DataService, links: Links, lanes: Lanes
    ) -> None:
        self.machine = machine
        self.store = store
        self.service = service
        self.links = links
        self._lanes = lanes
        self._locks: dict[int, trio.Lock] = {}
        self._copies = trio.Semaphore(COPIES_MAX)
        self._obey: dict[type, Callable[[Any], Awaitable[messages.Message]]] = {
            messages.Fence: self._fence,
            messages.Condense: self._condense,
            messages.CopyReplica: self._copy,
            messages.BuildReplica: self._build,
            messages.DeleteReplicas: self._delete,
            messages.VerifyReplicas: self._verify,
            messages.ListQuarantine: self._list_quarantine,
            messages.EmptyQuarantine: self._empty_quarantine,
            messages.ReportGrowth: self._growth,
        }

    def add(self, kind: type[_T], obey: Callable[[_T], Awaitable[messages.Message]]) -> None:
        """Let another part obey orders of `kind`."""
        self._obey[kind] = obey

    def knows(self, message: messages.Message) -> bool:
        """Whether it is an order."""
        return type(message) in self._obey

    async def obey(self, connection: Connection, request: int, message: messages.Message) -> None:
        """Do it and answer.

        The master's connection may end meanwhile, and its successor asks for the same. A
        thread that seals or deletes cannot be called back, so what it does is waited for and
        written down; only what takes long without harm is given up.
        """
        gives_up = isinstance(message, _LONG)
        try:
            with trio.CancelScope(shield=not gives_up):
                answer = await self._obey[type(message)](message)
        except GfsError as error:
            log.info("order.refused %s: %s", message, error)
            connection.refuse(request, error)
            return
        connection.reply(request, answer)

    def _refuse_if_hung(self, handle: int) -> None:
        directory = self.store.places.get(handle)
        if directory is not None and directory.health.is_hung:
            raise StorageFailed(f"{directory.path} {directory.health.reason}")

    @asynccontextmanager
    async def alone(self, handle: int) -> AsyncIterator[None]:
        """Nothing else is done to this chunk's replica meanwhile."""
        lock = self._locks.setdefault(handle, trio.Lock())
        async with lock:
            yield
        if not lock.locked():
            self._locks.pop(handle, None)

    # --- fences

    async def _fence(self, message: messages.Fence) -> messages.Message:
        self.machine.refuse_old_epoch(message.epoch)
        handle, version = message.handle, message.version
        self._refuse_if_hung(handle)
        if handle not in self.machine.replicas:
            self.store.create(handle, version, tail=False, chunk_bytes=CHUNK_BYTES)
            self.machine.replica(handle).made_by_fence = True
        answer, work = self.machine.fence(message)
        self.service.perform(work)
        log.info("replica.fence handle=%016x version=%d end=%d", handle, version, answer.end)
        await self.service.landings.turns.quiet(handle)  # a seal may cut the file now
        await self._persist(handle, version)
        return answer

    async def _persist(self, handle: int, version: int) -> None:
        async with self.alone(handle):
            files = self.store.open.get(handle)
            if files is None:
                return  # sealed: nothing can be appended any more
            files.hold()
            try:
                await self._lanes.of(files.directory).order.run(
                    lambda: files.persist_fence(version)
                )
            except GfsError as error:
                self.store.note_failure(files.directory, error)
                raise
            finally:
                files.release()

    # --- seals

    async def _condense(self, message: messages.Condense) -> messages.Message:
        self.machine.refuse_old_epoch(message.epoch)
        self._refuse_if_hung(message.handle)
        async with self.alone(message.handle):
            replica = self.machine.replica(message.handle)
            sums = await self._seal_own(replica, message.version, message.length)
        return messages.Condensed(sums)

    async def _seal_own(self, replica: Replica, version: int, length: int) -> int:
        handle = replica.handle
        if replica.state is ReplicaState.SEALED:
            if (replica.version, replica.end) != (version, length):
                raise StaleVersion(f"{handle:016x} is sealed at {replica.version}, {replica.end}")
            return self.store.checksums[handle]
        if replica.version != version or replica.state is not ReplicaState.FENCED:
            raise StaleVersion(f"chunk {handle:016x} is not fenced at {version}")
        if replica.end < length:
            raise NoSuchReplica(f"chunk {handle:016x} ends at {replica.end}, before {length}")
        files, writers = self.store.open[handle], dict(replica.writers)
        files.hold()
        try:
            sums = await self._lanes.of(files.directory).order.run(
                lambda: files.condense(version, length, writers)
            )
        except GfsError as error:
            self.store.note_failure(files.directory, error)
            raise
        finally:
            files.release()
        self.store.sealed_now(replica, version, sums)
        return sums.checksum

    # --- copies

    async def _copy(self, message: messages.CopyReplica) -> messages.Message:
        self.machine.refuse_old_epoch(message.epoch)
        handle, version, length = message.handle, message.version, message.length
        async with self._copies, self.alone(handle):
            replica = self.machine.replicas.get(handle)
            out = replica is not None and self.store.places[handle].health.is_out
            if replica is not None and not out and _is_it(replica, version, length):
                return messages.Condensed(self.store.checksums[handle])
            if replica is not None and out:
                replica = None  # nothing of it is taken over
            elif replica is not None and replica.bad and handle in self.store.open:
                await self._remove(handle)
                replica = None
            copy = self.store.begin_copy(handle, length)
            try:
                sums = await self._fill(copy, replica, message)
            except BaseException:
                self.store.abandon_copy(copy)
                raise
            old, bad = self.store.places.get(handle), replica is not None and replica.bad
            self.store.finish_copy(copy, version, sums)
            if old is not None and old is not copy.directory and old.health.is_working:
                await self._clear(old, handle, bad=bad)
        log.info("replica.copied handle=%016x from=%d", handle, message.source.server)
        return messages.Condensed(sums.checksum)

    async def _fill(
        self, copy: CopyFile, replica: Replica | None, message: messages.CopyReplica
    ) -> BlockSums:
        version, length = message.version, message.length
        workers = self._lanes.of(copy.directory).order
        own = self.store.open.get(copy.handle)
        # Fenced for this seal: what we have is the beginning of what the others have.
        if own is not None and replica is not None and replica.version == version:
            own.hold()
            try:
                await workers.run(lambda: copy.take_from(own, length))
            finally:
                own.release()
        end = copy.sums.end
        rest = messages.Piece(message.source, copy.handle, version, end, length - end)
        await fill(copy, [rest], self.links, workers)
        writers = dict(replica.writers) if replica is not None else {}
        await trio.lowlevel.checkpoint_if_cancelled()  # from here on it is carried out whole
        if own is not None and copy.handle in self.store.open:
            if replica is not None and replica.state is ReplicaState.OPEN:
                # It was cut off when the others were fenced: its writer may still append here.
                fence = messages.Fence(copy.handle, version, message.epoch)
                self.service.perform(self.machine.fence(fence)[1])
            del self.store.open[copy.handle]
            own.retire()
        aside = replica is not None and replica.bad
        return await workers.run(lambda: copy.finish(version, writers, aside=aside))

    async def _build(self, message: messages.BuildReplica) -> messages.Message:
        self.machine.refuse_old_epoch(message.epoch)
        handle, length = message.handle, sum(piece.length for piece in message.pieces)
        async with self._copies, self.alone(handle):
            replica = self.machine.replicas.get(handle)
            if replica is not None:
                if not _is_it(replica, message.version, length):
                    raise StaleVersion(f"chunk {handle:016x} is here, and is another")
                return messages.Condensed(self.store.checksums[handle])
            copy = self.store.begin_copy(handle, length)
            workers = self._lanes.of(copy.directory).order
            try:
                await fill(copy, message.pieces, self.links, workers)
                sums = await workers.run(lambda: copy.finish(message.version, {}))
            except BaseException:
                self.store.abandon_copy(copy)
                raise
            self.store.finish_copy(copy, message.version, sums)
        log.info("replica.built handle=%016x pieces=%d", handle, len(message.pieces))
        return messages.Condensed(sums.checksum)

    # --- deletion and checks

    async def _delete(self, message: messages.DeleteReplicas) -> messages.Message:
        self.machine.refuse_old_epoch(message.epoch)
        first: GfsError | None = None
        for handle in message.handles:
            try:
                async with self.alone(handle):
                    await self._remove(handle)
            except GfsError as error:
                first = first or error
        if first is not None:
            raise first
        return messages.Ok()

    async def _remove(self, handle: int) -> None:
        replica = self.machine.replicas.get(handle)
        if replica is None:
            return
        bad, place = replica.bad, self.store.places.get(handle)
        if place is not None and place.health.is_hung:
            return  # it is reported again when the disk answers
        self.service.perform(self.machine.drop(handle))
        directory = self.store.forget(handle)
        if directory is not None:
            await self._clear(directory, handle, bad=bad)
            log.info("replica.%s handle=%016x", "quarantined" if bad else "deleted", handle)

    async def _clear(self, directory: DataDirectory, handle: int, *, bad: bool) -> None:
        try:
            await self._lanes.of(directory).order.run(lambda: delete(directory, handle, bad=bad))
        except GfsError as error:
            self.store.note_failure(directory, error)
            raise

    async def _list_quarantine(self, _: messages.ListQuarantine) -> messages.Message:
        found: set[int] = set()
        for directory in self.store.directories:
            if not directory.health.is_out:
                found |= await self._lanes.of(directory).order.run(directory.quarantined)
        return messages.Quarantined(sorted(found))

    async def _empty_quarantine(self, message: messages.EmptyQuarantine) -> messages.Message:
        self.machine.refuse_old_epoch(message.epoch)
        handles = set(message.handles)
        for directory in self.store.directories:
            if not directory.health.is_out:
                remove = partial(directory.empty_quarantine, handles)
                await self._lanes.of(directory).order.run(remove)
        return messages.Ok()

    async def _verify(self, message: messages.VerifyReplicas) -> messages.Message:
        bad: list[int] = []
        blocks = 0
        for handle in message.handles or list(self.machine.replicas):
            began = trio.current_time()
            found = await self._check(handle)
            if isinstance(found, int):
                blocks += found
                due = began + found * BLOCK_BYTES / VERIFY_BYTES_PER_S
                await trio.sleep_until(due)
            elif isinstance(found, Corrupt):
                bad.append(handle)
        return messages.Verified(bad, blocks)

    async def _check(self, handle: int) -> int | GfsError:
        done = trio.Event()
        box: list[int | GfsError] = []

        def on_done(result: int | GfsError) -> None:
            box.append(result)
            done.set()

        try:
            self.service.reading.check(self.machine.replica(handle), on_done)
        except GfsError as error:
            return error
        await done.wait()
        return box[0]

    async def _growth(self, message: messages.ReportGrowth) -> messages.Message:
        return messages.Growth(self.machine.growth(message.handles))


def _is_it(replica: Replica, version: int, length: int) -> bool:
    sound = replica.state is ReplicaState.SEALED and not replica.bad
    return sound and (replica.version, replica.end) == (version, length)
