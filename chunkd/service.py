"""The data service: appends and syncs, from clients and along the chain.

Works in the callbacks of connections: a message in, the machine decides, the
bytes are written, what follows is forwarded or answered. No task and no thread a
frame: a write of a MiB into the page cache costs less than a thread's switch.
Only what waits for the disk (fdatasync, long reads) goes to a thread.

Limits: `IN_FLIGHT_BYTES_MAX` of appends unanswered on a client's connection; more is
refused as overload. Reads are answered by chunkd.reading.

Source: GFS §3.1-3.3, §5.2.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from chunkd.askers import Asker, Counters, Peer
from chunkd.core.appends import Landing
from chunkd.core.chain import Chain
from chunkd.core.machine import Forward, Machine, Reply, SyncFiles, Work
from chunkd.core.replica import Replica, ReplicaState
from chunkd.directory import DataDirectory
from chunkd.files import OpenFiles
from chunkd.gate import Gate
from chunkd.landings import Landings
from chunkd.lanes import Lanes
from chunkd.links import Links
from chunkd.reading import Reading
from chunkd.store import Store
from gfs import messages
from gfs.buffers import BufferPool
from gfs.connection import Connection, OnReply
from gfs.errors import (
    GfsError,
    InvalidArgument,
    Overloaded,
    RemoteProtocolError,
    StorageFailed,
)
from gfs.ids import CHUNK_BYTES, GIB, MIB

log = logging.getLogger(__name__)

IN_FLIGHT_BYTES_MAX = 64 * MIB
CHUNK_BYTES_MAX = max(GIB, CHUNK_BYTES)
_T = TypeVar("_T")


class DataService:
    """See the module's text. `on_message` is what connections call, each with its peer."""

    def __init__(
        self, machine: Machine, store: Store, links: Links, *, lanes: Lanes, pool: BufferPool
    ) -> None:
        self.machine = machine
        self.store = store
        self.links = links
        self.counters: Any = Counters()
        self.gate = Gate(store)
        self.landings = Landings(machine, store, lanes, self.counters, self)
        self._lanes = lanes
        self._pool = pool
        self._handlers: dict[type, Callable[[Asker, Any], None]] = {
            messages.Append: self._append,
            messages.RecordAppend: self._record_append,
            messages.Sync: self._sync,
            messages.TailEnds: self._tail_ends,
            messages.Join: self._join,
        }
        self.reading = Reading(self, lanes, pool)

    def add_handler(self, kind: type[_T], handler: Callable[[Asker, _T], None]) -> None:
        """Let another part answer messages of `kind`."""
        self._handlers[kind] = handler

    def on_message(
        self,
        peer: Peer,
        connection: Connection,
        request: int,
        message: messages.Message,
        payload: memoryview | None,
    ) -> None:
        """Answer now or later; raises the refusal."""
        handler = self._handlers.get(type(message))
        if handler is None:
            raise RemoteProtocolError(f"{type(message).__name__} is no question to a chunk server")
        try:
            gate, turns = self.gate, self.landings.turns
            if gate.is_needed or turns.is_needed:
                take_up = partial(self._take_up, peer, connection, request, message, payload)
                if gate.holds_back(message, payload, take_up) or turns.holds_back(message, take_up):
                    return
            handler(Asker(peer, connection, request, payload), message)
        except GfsError:
            self.counters.refused_total += 1
            raise

    def _take_up(
        self,
        peer: Peer,
        connection: Connection,
        request: int,
        message: messages.Message,
        payload: memoryview | None,
    ) -> None:
        """A message that was held back: as if it came now."""
        try:
            self.on_message(peer, connection, request, message, payload)
        except GfsError as error:
            connection.refuse(request, error)

    def directory_out(self, directory: DataDirectory) -> None:
        """It failed or hangs: chains through it end at once, not when each finds out."""
        error = StorageFailed(f"{directory.path}: {directory.health.reason}")
        for replica in self.store.in_directory(directory):
            if replica.state is not ReplicaState.SEALED:
                self.perform(self.machine.give_up(replica, error))

    # --- what the machine wants done

    def perform(self, work: list[Work]) -> None:
        """Do it, in order."""
        for item in work:
            kind = type(item)
            if kind is Reply:
                self._reply(item.asker, item.message)  # type: ignore[union-attr, arg-type]
            elif kind is Forward:
                self._forward(item)  # type: ignore[arg-type]
            elif kind is SyncFiles:
                self._sync_files(item.replica, item.chain)  # type: ignore[union-attr]
            else:
                self.refuse(item.asker, item.error)  # type: ignore[union-attr, arg-type]

    def _reply(self, asker: Asker, message: messages.Message) -> None:
        payload = asker.payload
        if payload is not None:
            asker.peer.in_flight -= len(payload)
            self._pool.give(payload)  # written here, received by the next: nobody needs it
            asker.payload = None
        asker.connection.reply(asker.request, message)

    def refuse(self, asker: Asker, error: GfsError) -> None:
        """Tell `asker` that it failed."""
        self.counters.refused_total += 1
        payload = asker.payload
        if payload is not None:  # not given back: it may still be queued for the next member
            asker.peer.in_flight -= len(payload)
            asker.payload = None
        asker.connection.refuse(asker.request, error)

    def _forward(self, work: Forward) -> None:
        asker = work.asker
        payload = asker.payload if isinstance(asker, Asker) else None
        link = self.links.get(work.member)
        link.request(work.message, self._chain_callback(work), payload)

    def _chain_callback(self, work: Forward) -> OnReply:
        machine, replica, chain, perform = self.machine, work.replica, work.chain, self.perform
        is_sync = type(work.message) is messages.Sync

        def on_reply(answer: messages.Message | GfsError, _: memoryview | None) -> None:
            kind = type(answer)
            if kind is messages.Appended:
                if is_sync:
                    perform(machine.round_part_done(replica, chain, local=False))
                else:
                    perform(machine.acknowledged(replica, chain, answer.end))  # type: ignore[union-attr]
            elif kind is messages.Joined:
                perform(machine.chain_joined(replica, chain, answer.boots))  # type: ignore[union-attr]
            else:
                self._chain_failed(replica, chain, answer)

        return on_reply

    def _chain_failed(
        self, replica: Replica, chain: Chain, answer: messages.Message | GfsError
    ) -> None:
        if not isinstance(answer, GfsError):
            answer = RemoteProtocolError(f"{type(answer).__name__} is no answer to that")
        if replica.chain is chain and replica.failed is None:
            log.warning("chain.failed handle=%016x: %s", replica.handle, answer)
        self.perform(self.machine.chain_failed(replica, chain, answer))

    def _sync_files(self, replica: Replica, chain: Chain) -> None:
        files = self.store.open[replica.handle]
        left = 2
        self.counters.syncs_total += 1

        def on_done(result: object) -> None:
            nonlocal left
            left -= 1
            files.release()
            if isinstance(result, GfsError):
                self._sync_failed(replica, chain, files, result)
            elif not left:
                self.perform(self.machine.round_part_done(replica, chain, local=True))

        sync = self._lanes.of(files.directory).sync
        for job in (files.sync_data, files.sync_side):
            files.hold()
            sync.submit(job, on_done)

    def _sync_failed(
        self, replica: Replica, chain: Chain, files: OpenFiles, error: GfsError
    ) -> None:
        log.error("sync.failed handle=%016x: %s", replica.handle, error)
        self.store.note_failure(files.directory, error)
        self.perform(self.machine.sync_failed(replica, chain, error))

    # --- chains and appends

    def _join(self, asker: Asker, message: messages.Join) -> None:
        self.machine.refuse_old_epoch(message.epoch)
        if not 0 < message.chunk_bytes <= CHUNK_BYTES_MAX:
            raise InvalidArgument(f"chunk of {message.chunk_bytes} bytes")
        if message.handle not in self.machine.replicas:
            self.machine.refuse_to_begin(message.handle)
            self.store.create(
                message.handle, message.version, tail=message.tail, chunk_bytes=message.chunk_bytes
            )
        self.perform(self.machine.join(asker, message, by_client=asker.peer.by_client))

    def _append(self, asker: Asker, message: messages.Append) -> None:
        payload = self._admitted(asker)
        self.landings.land(self.machine.append(asker, message, len(payload)), payload)

    def _record_append(self, asker: Asker, message: messages.RecordAppend) -> None:
        payload = self._admitted(asker)
        landing = self.machine.record_append(asker, message, len(payload))
        if isinstance(landing, Landing):
            self.landings.land(landing, payload)
        else:
            asker.count()
            self.perform(landing)

    def _admitted(self, asker: Asker) -> memoryview:
        payload = asker.payload
        if not payload:
            raise InvalidArgument("an append without bytes")
        peer = asker.peer
        if peer.by_client and peer.in_flight + len(payload) > IN_FLIGHT_BYTES_MAX:
            raise Overloaded(f"{IN_FLIGHT_BYTES_MAX} bytes in flight on this connection")
        return payload

    def _sync(self, asker: Asker, message: messages.Sync) -> None:
        self.perform(self.machine.sync(asker, message))

    def _tail_ends(self, asker: Asker, message: messages.TailEnds) -> None:
        found = [self.machine.tail_end(handle) for handle in message.handles]
        ends, times = [end for end, _ in found], [mtime_ns for _, mtime_ns in found]
        asker.connection.reply(asker.request, messages.TailEndsAre(ends, times))
