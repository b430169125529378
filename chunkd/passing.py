"""Short-circuit reads: a caller on this host gets the file itself, with its checksums.

Only sealed replicas, only over the Unix socket, and only for reading: what is
passed never changes any more. The caller verifies what it reads.
"""

from __future__ import annotations

import os

import trio

from chunkd.askers import Asker
from chunkd.core.machine import Machine
from chunkd.core.replica import Replica, ReplicaState
from chunkd.files import OpenFiles, SealedFiles
from chunkd.reading import Reading
from chunkd.service import DataService
from chunkd.store import Store
from gfs.connection import Connection
from gfs.errors import GfsError, NoSuchReplica, StaleVersion, StorageFailed, Unsupported
from gfs.messages import PassReplica, ReplicaPassed


class ReplicaPasser:
    """Answers `PassReplica`."""

    def __init__(
        self, machine: Machine, store: Store, reading: Reading, nursery: trio.Nursery
    ) -> None:
        self._machine = machine
        self._store = store
        self._nursery = nursery
        self._reading = reading

    def attach(self, service: DataService) -> None:
        """Let `service` send us the question."""
        service.add_handler(PassReplica, self._pass)

    def _pass(self, asker: Asker, message: PassReplica) -> None:
        connection = asker.connection
        if not connection.is_unix:
            raise Unsupported("descriptors are passed over the Unix socket alone")
        replica = self._machine.replica(message.handle)
        if replica.version < message.version:
            raise StaleVersion(f"replica of {message.handle:016x} is at {replica.version}")
        if replica.state is not ReplicaState.SEALED or replica.bad:
            raise NoSuchReplica(f"replica of {message.handle:016x} is not sealed and sound")
        self._reading.with_files(
            replica,
            lambda files: self._send(asker, replica, files),
            lambda error: connection.refuse(asker.request, error),
        )

    def _send(self, asker: Asker, replica: Replica, files: OpenFiles | SealedFiles) -> None:
        """Called when nothing may be raised any more."""
        connection = asker.connection
        try:
            descriptor = self._open_to_read(replica)
        except GfsError as error:
            connection.refuse(asker.request, error)
            return
        connection.reply(
            asker.request, ReplicaPassed(replica.end), files.sums.to_bytes(), [descriptor]
        )
        if connection.queued_bytes:
            self._nursery.start_soon(_close_when_sent, connection, descriptor)
        else:
            os.close(descriptor)

    def _open_to_read(self, replica: Replica) -> int:
        path = self._store.places[replica.handle].file(replica.handle, "data")
        try:
            return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise StorageFailed(f"open {path}: {error.strerror}") from None


async def _close_when_sent(connection: Connection, descriptor: int) -> None:
    try:
        await connection.drain()
    finally:
        os.close(descriptor)
