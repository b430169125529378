"""Bytes into private chunks: leased from the master, streamed to a chain, never lost.

A `ChunkWriter` is a stream of frames over successive chunks. Each chunk has one
lease and one chain (client -> first -> second -> third, GFS §3.2); up to 8 MiB
are in flight. Steady state costs no task: frames leave in `submit` or when an
acknowledgement makes room.

A chunk ends in one of two ways. Full: it is sealed in the background. Failed
(a member is gone, fenced, silent, slow): it is sealed at the master, which
answers the sealed length; frames that lie below it have landed, all others are
written again into a new chunk. Writing again is always safe, because nothing
refers to bytes before they are committed; so any doubt ends in writing again.

Departs from GFS §3.3: chunks of private data are append-only and have one writer.
"""

from __future__ import annotations

import logging
import re
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

import trio

from gfs.checksum import Buffer, crc32c
from gfs.client.metadata import MasterLink
from gfs.client.peers import ChunkServers
from gfs.connection import Connection
from gfs.errors import (
    DeadSession,
    GfsError,
    MemberFailed,
    RemoteProtocolError,
    TimedOut,
    Unreachable,
)
from gfs.ids import MIB
from gfs.messages import (
    Actor,
    Allocate,
    Append,
    Appended,
    Join,
    Lease,
    Message,
    SealChunk,
    Sync,
)

log = logging.getLogger(__name__)

WINDOW_BYTES = 8 * MIB  # sent and not acknowledged, per writer
AHEAD_BYTES = 16 * MIB  # so much before a chunk is full the next one is made ready
SLOW_S = 10.0  # a server that is alive but slow in disk gets so long
PAUSE_S = 0.2  # between attempts to find a chain that works


class Placed(NamedTuple):
    """Where bytes of a frame landed: [start, start + length) of its payload."""

    start: int
    length: int
    handle: int
    chunk_offset: int


OnPlaced = Callable[["Frame", Placed], None]
OnFailed = Callable[["Frame", GfsError], None]


class Frame:
    """Bytes for one append. A divisible one may be cut where a chunk ends."""

    __slots__ = (
        "born",
        "divisible",
        "failed",
        "missing",
        "on_failed",
        "on_placed",
        "payload",
        "serial",
    )

    def __init__(
        self, payload: Buffer, on_placed: OnPlaced, on_failed: OnFailed, *, divisible: bool
    ) -> None:
        self.payload = payload
        self.missing = len(payload)
        self.on_placed = on_placed
        self.on_failed = on_failed
        self.divisible = divisible
        self.serial = 0
        self.failed = False
        self.born = trio.current_time()


class _Part:
    """What of a frame goes into one chunk."""

    __slots__ = ("buffer", "frame", "length", "offset", "sent_at", "start")

    def __init__(self, frame: Frame, start: int, buffer: Buffer) -> None:
        self.frame = frame
        self.start = start
        self.buffer = buffer
        self.length = len(buffer)
        self.offset = 0
        self.sent_at = 0.0


class OpenChunk:
    """A leased chunk whose chain was asked to join."""

    __slots__ = ("connection", "end", "error", "in_flight", "lease", "on_error")

    def __init__(self, lease: Lease, connection: Connection) -> None:
        self.lease = lease
        self.connection = connection
        self.end = 0
        self.in_flight: deque[_Part] = deque()
        self.error: GfsError | None = None
        self.on_error: Callable[[OpenChunk, GfsError], None] | None = None

    def fail(self, error: GfsError) -> None:
        """The chunk takes no more; the owner is told once."""
        if self.error is None:
            self.error = error
            if self.on_error is not None:
                self.on_error(self, error)

    def suspects(self) -> list[int]:
        """Servers that seem to have failed, for the master."""
        return suspects_of(self.error, self.lease, self.connection)


def suspects_of(error: GfsError | None, lease: Lease, connection: Connection | None) -> list[int]:
    """Which members of the chain an error speaks against."""
    members = [member.server for member in lease.members]
    if isinstance(error, MemberFailed):
        named = re.search(r"server (\d+)", str(error))
        return [server for server in members if named and server == int(named[1])]
    if isinstance(error, Unreachable) and (connection is None or connection.closed is not None):
        return members[:1]
    return []


class ChunkSource:
    """Leases new private chunks and seals old ones; keeps one spare ready when asked to."""

    def __init__(
        self,
        link: MasterLink,
        servers: ChunkServers,
        nursery: trio.Nursery,
        actor: Actor,
        *,
        goal: int = 0,
        timeout_s: float = 80.0,
    ) -> None:
        self.nursery = nursery
        self.timeout_s = timeout_s
        self._link = link
        self._servers = servers
        self._actor = actor
        self._goal = goal
        self._spare: OpenChunk | None = None
        self._making_spare = False

    def make_ready(self) -> None:
        """Have a spare chunk soon; no-op when there is one."""
        if self._spare is None and not self._making_spare:
            self._making_spare = True
            self.nursery.start_soon(self._make_spare)

    async def _make_spare(self) -> None:
        try:
            self._spare = await self._new()
        except GfsError as error:
            log.info("spare.none why=%s", error)
        finally:
            self._making_spare = False

    async def take(self) -> OpenChunk:
        """An open chunk with nothing in it.

        Raises:
          GfsError: the master refuses (no space), or no chain worked in time.
        """
        spare, self._spare = self._spare, None
        if spare is not None:
            if spare.error is None and spare.connection.closed is None:
                return spare
            self.nursery.start_soon(self.seal, spare)
        deadline = trio.current_time() + self.timeout_s
        while True:
            try:
                return await self._new()
            except (Unreachable, MemberFailed, DeadSession):  # a dead one may be opened anew
                if trio.current_time() + PAUSE_S > deadline:
                    raise
            await trio.sleep(PAUSE_S)

    async def _new(self) -> OpenChunk:
        done = await self._link.mutate(Allocate(self._goal), self._actor, timeout_s=self.timeout_s)
        lease = done.lease
        if lease is None or not lease.members:
            raise RemoteProtocolError("the master gave a chunk without a chain")
        try:
            connection = await self._servers.get(lease.members[0])
        except GfsError as error:
            suspects = [lease.members[0].server]
            await self._seal_lease(lease, suspects)
            raise Unreachable(str(error)) from error
        chunk = OpenChunk(lease, connection)

        def on_joined(answer: Message | GfsError, _: memoryview | None) -> None:
            if isinstance(answer, GfsError):
                chunk.fail(answer)

        connection.request(join(lease, tail=False), on_joined)
        return chunk

    async def seal(self, chunk: OpenChunk) -> int:
        """Seal at the master; what lies below the length returned has landed (0 in doubt)."""
        return await self._seal_lease(chunk.lease, chunk.suspects())

    async def _seal_lease(self, lease: Lease, suspects: Sequence[int]) -> int:
        operation = SealChunk(lease.handle, lease.version, list(suspects))
        if suspects:
            spare, self._spare = self._spare, None
            if spare is not None and not any(
                member.server in suspects for member in spare.lease.members
            ):
                self._spare = spare
            elif spare is not None:
                self.nursery.start_soon(self.seal, spare)
        try:
            done = await self._link.mutate(operation, self._actor, timeout_s=self.timeout_s)
        except GfsError as error:
            log.info("chunk.seal handle=%016x failed: %s", lease.handle, error)
            return 0
        if done.sealed is None or done.sealed.handle != lease.handle:
            return 0
        return done.sealed.length

    def forget_spare(self) -> None:
        """The session that leased it is dead."""
        self._spare = None


def join(lease: Lease, *, tail: bool) -> Join:
    """The message that makes the chain of a lease."""
    return Join(
        handle=lease.handle,
        version=lease.version,
        epoch=lease.epoch,
        tail=tail,
        chunk_bytes=lease.chunk_bytes,
        chain=lease.members[1:],
    )


class ChunkWriter:
    """See the module's text. Frames are acknowledged in order within a chunk.

    Attributes:
      last_serial: serial of the frame submitted last.
      outstanding_bytes: submitted and neither placed nor failed.
    """

    def __init__(self, source: ChunkSource, name: str = "") -> None:
        self.name = name
        self.last_serial = 0
        self.outstanding_bytes = 0
        self._source = source
        self._chunk: OpenChunk | None = None
        self._queue: deque[_Part] = deque()
        self._in_flight_bytes = 0
        self._unplaced: dict[int, Frame] = {}  # by serial, ascending
        self._synced = 0
        self._unsealed: dict[int, OpenChunk] = {}  # being sealed or recovered
        self._holds = 0  # reasons not to lease another chunk just now
        self._failures = 0
        self._syncing = False
        self._changed = trio.Event()

    def submit(self, frame: Frame) -> int:
        """Send soon; returns the frame's serial, for `sync`."""
        self.last_serial += 1
        frame.serial = self.last_serial
        self._unplaced[frame.serial] = frame
        self.outstanding_bytes += frame.missing
        self._queue.append(_Part(frame, 0, frame.payload))
        self._pump()
        return frame.serial

    def _pump(self) -> None:
        while self._queue and self._in_flight_bytes < WINDOW_BYTES:
            chunk = self._chunk
            if chunk is None:
                self._get_chunk()
                return
            part = self._queue[0]
            room = chunk.lease.chunk_bytes - chunk.end
            if part.length > room:
                if not part.frame.divisible or room < 1:
                    self._retire(chunk)
                    continue
                part = self._cut(part, room)
            self._queue.popleft()
            self._send(chunk, part)

    def _cut(self, part: _Part, room: int) -> _Part:
        whole = memoryview(part.buffer)
        rest = _Part(part.frame, part.start + room, whole[room:])
        self._queue[0] = rest
        self._queue.appendleft(head := _Part(part.frame, part.start, whole[:room]))
        return head

    def _send(self, chunk: OpenChunk, part: _Part) -> None:
        part.offset = chunk.end
        part.sent_at = trio.current_time()
        chunk.end += part.length
        chunk.in_flight.append(part)
        self._in_flight_bytes += part.length
        lease = chunk.lease
        message = Append(lease.handle, lease.version, part.offset, crc32c(part.buffer))

        def on_reply(answer: Message | GfsError, _: memoryview | None) -> None:
            if isinstance(answer, Appended):
                self._landed(chunk, part)
            elif isinstance(answer, GfsError):
                chunk.fail(answer)
            else:
                chunk.fail(RemoteProtocolError(f"{type(answer).__name__} answers no Append"))

        chunk.connection.request(message, on_reply, part.buffer)
        if lease.chunk_bytes - chunk.end < min(AHEAD_BYTES, lease.chunk_bytes // 4):
            self._source.make_ready()

    def _landed(self, chunk: OpenChunk, part: _Part) -> None:
        in_flight = chunk.in_flight
        if chunk.error is not None or not in_flight or in_flight[0] is not part:
            if chunk.error is None:
                chunk.fail(RemoteProtocolError("appends acknowledged out of order"))
            return
        in_flight.popleft()
        self._in_flight_bytes -= part.length
        self._place(chunk, part)
        if chunk is not self._chunk and not in_flight:
            self._source.nursery.start_soon(self._seal_full, chunk)
        self._pump()
        self._tell()

    def _place(self, chunk: OpenChunk, part: _Part) -> None:
        frame = part.frame
        self.outstanding_bytes -= part.length
        frame.missing -= part.length
        if not frame.missing:
            self._unplaced.pop(frame.serial, None)
        if not frame.failed:
            placed = Placed(part.start, part.length, chunk.lease.handle, part.offset)
            frame.on_placed(frame, placed)

    def _tell(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    # --- chunks come and go

    def _get_chunk(self) -> None:
        if not self._holds:
            self._holds += 1
            self._source.nursery.start_soon(self._get_chunk_soon)

    async def _get_chunk_soon(self) -> None:
        try:
            chunk = await self._source.take()
        except GfsError as error:
            self._fail_queue(error)
        else:
            self._use(chunk)
        finally:
            self._holds -= 1
        self._pump()
        self._tell()

    def _use(self, chunk: OpenChunk) -> None:
        assert self._chunk is None
        self._chunk = chunk
        chunk.on_error = self._failed
        if chunk.error is not None:
            self._failed(chunk, chunk.error)

    def _fail_queue(self, error: GfsError) -> None:
        parts = list(self._queue)
        self._queue.clear()
        for part in parts:
            self._give_up(part, error)

    def _give_up(self, part: _Part, error: GfsError) -> None:
        self.outstanding_bytes -= part.length
        frame = part.frame
        self._unplaced.pop(frame.serial, None)
        if not frame.failed:
            frame.failed = True
            frame.on_failed(frame, error)

    def _retire(self, chunk: OpenChunk) -> None:
        """Full, or no longer wanted: no more goes in; sealed once all of it has landed."""
        self._chunk = None
        self._unsealed[chunk.lease.handle] = chunk
        if not chunk.in_flight:
            self._source.nursery.start_soon(self._seal_full, chunk)

    async def _seal_full(self, chunk: OpenChunk) -> None:
        # A sealed chunk cannot be synced any more, and a later fsync must find it durable.
        try:
            if chunk.end:
                await chunk.connection.call(
                    Sync(chunk.lease.handle, chunk.lease.version), timeout_s=2 * SLOW_S
                )
        except GfsError as error:
            chunk.fail(error)
        if chunk.error is not None:
            return  # recovery seals it
        await self._source.seal(chunk)
        self._unsealed.pop(chunk.lease.handle, None)
        self._tell()

    def _failed(self, chunk: OpenChunk, error: GfsError) -> None:
        log.info("chunk.failed handle=%016x why=%s: %s", chunk.lease.handle, error.code, error)
        if self._chunk is chunk:
            self._chunk = None
        self._unsealed[chunk.lease.handle] = chunk
        self._failures += 1
        self._holds += 1  # the master hears of suspects before it builds the next chain
        self._source.nursery.start_soon(self._recover, chunk)

    async def _recover(self, chunk: OpenChunk) -> None:
        sealed = await self._source.seal(chunk)
        again: list[_Part] = []
        too_old = trio.current_time() - self._source.timeout_s
        while chunk.in_flight:
            part = chunk.in_flight.popleft()
            self._in_flight_bytes -= part.length
            if part.offset + part.length <= sealed:
                self._place(chunk, part)
            elif part.frame.born > too_old:
                again.append(part)
            else:
                self._give_up(part, chunk.error or TimedOut("no chain worked"))
        self._queue.extendleft(reversed(again))
        self._unsealed.pop(chunk.lease.handle, None)
        if not sealed:
            await trio.sleep(PAUSE_S)  # a chain that never worked: do not spin
        self._holds -= 1
        self._pump()
        self._tell()

    # --- what the owner asks

    def check(self, now: float) -> None:
        """Give up a chain that lives but has not answered an append for long."""
        for chunk in (self._chunk, *self._unsealed.values()):
            if chunk is not None and chunk.in_flight and now - chunk.in_flight[0].sent_at > SLOW_S:
                chunk.fail(TimedOut(f"no acknowledgement for {SLOW_S} s"))

    def is_durable(self, serial: int) -> bool:
        """Whether `sync(serial)` has nothing to do."""
        return self._synced >= serial

    async def sync(self, serial: int) -> None:
        """Wait until all frames up to `serial` are on the disks of their chains.

        Frames that failed count as done: their owner was told. A sealed chunk is durable.
        """
        while self._synced < serial:
            if self._syncing:
                await self._changed.wait()
                continue
            self._syncing = True
            try:
                await self._sync_once()
            finally:
                self._syncing = False
                self._tell()

    async def _sync_once(self) -> None:
        mark = self.last_serial
        while self._queue and self._queue[0].frame.serial <= mark:
            await self._changed.wait()
        chunk, sealing, failures = self._chunk, set(self._unsealed), self._failures
        if chunk is not None and chunk.end:
            # Sent behind the appends, not after their acknowledgement: a round trip less.
            try:
                await chunk.connection.call(
                    Sync(chunk.lease.handle, chunk.lease.version), timeout_s=2 * SLOW_S
                )
            except GfsError as error:
                chunk.fail(error)
                return
        while sealing & self._unsealed.keys():
            await self._changed.wait()
        while next(iter(self._unplaced), mark + 1) <= mark:
            await self._changed.wait()
        if failures == self._failures:  # else some were written again, behind our sync
            self._synced = max(self._synced, mark)

    async def finish(self) -> None:
        """Wait until everything submitted is placed, then seal the chunk."""
        while self._unplaced:
            await self._changed.wait()
        chunk = self._chunk
        if chunk is not None and chunk.error is None:
            self._chunk = None
            self._unsealed[chunk.lease.handle] = chunk
            await self._seal_full(chunk)
        while self._unsealed:
            await self._changed.wait()
        self._synced = self.last_serial

    def session_lost(self) -> None:
        """Leases are void: write what is in flight again elsewhere."""
        if self._chunk is not None:
            self._chunk.fail(GfsError("the session that leased the chunk is dead"))
