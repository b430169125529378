"""Short-circuit reads: a caller on this host gets the file itself, with its checksums.

Only sealed replicas, only over the Unix socket, and only for reading: what is
passed never changes any more. The caller verifies what it reads.
"""

from __future__ import annotations

import os

import trio

from chunkd.core.machine import Machine
from chunkd.core.replica import ReplicaState
from chunkd.service import Asker, DataService
from chunkd.store import Store
from gfs.connection import Connection
from gfs.errors import NoSuchReplica, StaleVersion, StorageFailed, Unsupported
from gfs.messages import PassReplica, ReplicaPassed


class ReplicaPasser:
    """Answers `PassReplica`."""

    def __init__(self, machine: Machine, store: Store, nursery: trio.Nursery) -> None:
        self._machine = machine
        self._store = store
        self._nursery = nursery

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
        files = self._store.files(replica)
        path = self._store.places[message.handle].file(message.handle, "data")
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise StorageFailed(f"open {path}: {error.strerror}") from None
        sums = files.sums.to_bytes()
        connection.reply(asker.request, ReplicaPassed(replica.end), sums, [descriptor])
        if connection.queued_bytes:
            self._nursery.start_soon(_close_when_sent, connection, descriptor)
        else:
            os.close(descriptor)


async def _close_when_sent(connection: Connection, descriptor: int) -> None:
    try:
        await connection.drain()
    finally:
        os.close(descriptor)
