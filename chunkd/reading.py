"""Reads of replicas, each block verified, and what follows if that fails.

A short read is done in the loop if all of it is in the page cache, since that costs less than a
thread's switch. What may wait for the disk, opening files too, is done in a thread.

Limit: `QUEUED_BYTES_MAX` of answers unread on a connection; more is refused as overload.

Source: GFS §5.2.
"""

from __future__ import annotations

import mmap
import typing
from collections.abc import Callable
from typing import Any, Protocol

from chunkd.askers import Asker
from chunkd.core.machine import Machine, Work
from chunkd.core.replica import Replica, ReplicaState
from chunkd.files import OpenFiles, SealedFiles
from chunkd.lanes import Lanes
from chunkd.store import Store
from gfs import messages
from gfs.buffers import BufferPool
from gfs.errors import (
    Corrupt,
    GfsError,
    InvalidArgument,
    NoSuchReplica,
    Overloaded,
    StaleVersion,
    StorageFailed,
)
from gfs.frames import PAYLOAD_BYTES_MAX
from gfs.ids import BLOCK_BYTES, KIB, MIB

INLINE_READ_BYTES = 256 * KIB  # copying more costs as much as a switch
QUEUED_BYTES_MAX = 32 * MIB


class Service(Protocol):
    """The data service, as its reads use it."""

    machine: Machine
    store: Store
    counters: Any

    def perform(self, work: list[Work]) -> None:
        """Do it, in order."""

    def refuse(self, asker: Asker, error: GfsError) -> None:
        """Answer with an error."""

    def add_handler(self, kind: type[Any], handler: Callable[[Asker, Any], None]) -> None:
        """Let another part answer messages of `kind`."""


class Reading:
    """See the module's text."""

    def __init__(self, service: Service, lanes: Lanes, pool: BufferPool) -> None:
        self._service = service
        self._machine = service.machine
        self._store = service.store
        self._lanes = lanes
        self._pool = pool
        service.add_handler(messages.Read, self._read)
        service.add_handler(messages.ReportBad, self._report_bad)

    def _read(self, asker: Asker, message: messages.Read) -> None:
        replica = self._machine.replica(message.handle)
        if replica.version < message.version:
            raise StaleVersion(f"replica of {message.handle:016x} is at {replica.version}")
        if message.offset < 0 or not 0 <= message.length <= PAYLOAD_BYTES_MAX:
            raise InvalidArgument(f"read of {message.length} bytes at {message.offset}")
        if asker.connection.queued_bytes > QUEUED_BYTES_MAX:
            raise Overloaded("answers wait to be read")
        length = min(message.length, replica.readable_end - message.offset)
        if length <= 0:
            asker.connection.reply(asker.request, messages.ReadData(0))
            return
        self.with_files(
            replica,
            lambda files: self._read_from(asker, replica, files, message.offset, length),
            lambda error: self._answer_read(asker, replica, error),
        )

    def with_files(
        self,
        replica: Replica,
        then: Callable[[OpenFiles | SealedFiles], None],
        failed: Callable[[GfsError], None],
    ) -> None:
        """Call `then` with the replica's files: at once, or when a thread has opened them."""
        files = self._store.files(replica)
        if files is not None:
            then(files)
            return

        def on_opened(found: SealedFiles | GfsError) -> None:
            try:
                if isinstance(found, GfsError):
                    raise found
                files = self._store.keep(replica, found)
            except NoSuchReplica as error:
                moved = self._machine.replicas.get(handle)
                if moved is None or moved is replica or moved.version != replica.version:
                    failed(error)
                else:  # to another directory meanwhile
                    self.with_files(moved, then, failed)
                return
            except GfsError as error:
                failed(error)
                return
            then(files)

        handle = replica.handle
        directory = self._store.places[handle]
        read = self._lanes.of(directory).read
        read.submit(lambda: self._store.open_sealed(directory, handle), on_opened)

    def _read_from(
        self,
        asker: Asker,
        replica: Replica,
        files: OpenFiles | SealedFiles,
        offset: int,
        length: int,
    ) -> None:
        buffer = self._pool.take(length + 2 * BLOCK_BYTES) if length > BLOCK_BYTES else None
        if length <= INLINE_READ_BYTES:
            found: object
            try:
                found = files.sums.read_cached(files.data, offset, length, buffer)
            except GfsError as error:
                found = error
            if found is not None:
                self._answer_read(asker, replica, found)
                return
        sums = files.sums.copy() if replica.state is not ReplicaState.SEALED else files.sums

        def on_done(result: object) -> None:
            files.release()
            self._answer_read(asker, replica, result)

        files.hold()
        read = self._lanes.of(self._store.places[replica.handle]).read
        read.submit(lambda: sums.read(files.data, offset, length, buffer), on_done)

    def _answer_read(self, asker: Asker, replica: Replica, found: object) -> None:
        if isinstance(found, GfsError):
            self.cannot_be_read(replica, found)
            self._service.refuse(asker, found)
            return
        part, checksum = typing.cast("tuple[memoryview, int]", found)
        self._service.counters.reads_total += 1
        self._service.counters.bytes_read_total += len(part)
        connection = asker.connection
        connection.reply(asker.request, messages.ReadData(checksum), part)
        if not connection.queued_bytes:  # it is sent: the buffer can serve the next read
            self._pool.give(part)

    def cannot_be_read(self, replica: Replica, error: GfsError) -> None:
        """A block of it does not match its checksum, or the disk does not give it."""
        if isinstance(error, Corrupt | StorageFailed):
            self.distrust(replica, error)
        if isinstance(error, StorageFailed):
            self._store.note_unreadable(replica, error)

    def distrust(self, replica: Replica, error: GfsError) -> None:
        """A block of a replica cannot be had: the master hears of it, appends end."""
        self._service.counters.corrupt_total += 1
        if self._machine.replicas.get(replica.handle) is not replica:
            return
        directory = self._store.places[replica.handle]
        if replica.state is not ReplicaState.SEALED:
            self._store.mark_bad(replica)
            self._service.perform(self._machine.distrust(replica, error))
        elif self._store.mark_bad(replica):

            def done(result: object) -> None:
                if isinstance(result, GfsError):
                    self._store.note_failure(directory, result)

            self._lanes.of(directory).order.submit(lambda: self._store.remember_bad(replica), done)

    def _report_bad(self, asker: Asker, message: messages.ReportBad) -> None:
        """A client says so; look ourselves."""
        self.check(self._machine.replica(message.handle), lambda _: None)
        asker.connection.reply(asker.request, messages.Ok())

    def check(self, replica: Replica, on_done: Callable[[int | GfsError], None]) -> None:
        """Read all of a replica in a thread; `on_done` gets the blocks checked, or the error.

        A replica that fails is distrusted before `on_done` is called.
        """

        def failed(error: GfsError) -> None:
            self.cannot_be_read(replica, error)
            on_done(error)

        self.with_files(replica, lambda files: self._check(replica, files, on_done), failed)

    def _check(
        self,
        replica: Replica,
        files: OpenFiles | SealedFiles,
        on_done: Callable[[int | GfsError], None],
    ) -> None:
        files.hold()
        sums = files.sums.copy()

        def job() -> int:
            buffer = memoryview(mmap.mmap(-1, MIB))  # aligned, as reads aside need it
            check = sums.check_aside if isinstance(files, SealedFiles) else sums.check_cached
            for offset in range(0, sums.end, MIB):
                check(files.data, offset, buffer[: min(MIB, sums.end - offset)])
            return len(sums.sums)

        def finish(result: int | GfsError) -> None:
            files.release()
            if isinstance(result, GfsError):
                self.cannot_be_read(replica, result)
            on_done(result)

        self._lanes.of(self._store.places[replica.handle]).check.submit(job, finish)
