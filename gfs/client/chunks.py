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
from collections import deque

import trio

from gfs.checksum import crc32c
from gfs.client.leasing import PAUSE_S, ChunkSource, OpenChunk
from gfs.client.parts import Frame, Part, Placed
from gfs.errors import GfsError, RemoteProtocolError, TimedOut
from gfs.ids import MIB
from gfs.messages import Append, Appended, Message, Sync

log = logging.getLogger(__name__)

WINDOW_BYTES = 8 * MIB  # sent and not acknowledged, per writer
AHEAD_BYTES = 16 * MIB  # so much before a chunk is full the next one is made ready
SLOW_S = 10.0  # a server that is alive but slow in disk gets so long


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
        self._queue: deque[Part] = deque()
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
        self._queue.append(Part(frame, 0, frame.payload))
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
                fits_whole = part.length <= chunk.lease.chunk_bytes
                if room < 1 or (fits_whole and not part.frame.divisible):
                    self._retire(chunk)
                    continue
                part = self._cut(part, room)
            self._queue.popleft()
            self._send(chunk, part)

    def _cut(self, part: Part, room: int) -> Part:
        whole = memoryview(part.buffer)
        rest = Part(part.frame, part.start + room, whole[room:])
        self._queue[0] = rest
        self._queue.appendleft(head := Part(part.frame, part.start, whole[:room]))
        return head

    def _send(self, chunk: OpenChunk, part: Part) -> None:
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

    def _landed(self, chunk: OpenChunk, part: Part) -> None:
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

    def _place(self, chunk: OpenChunk, part: Part) -> None:
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

    def _give_up(self, part: Part, error: GfsError) -> None:
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
        again: list[Part] = []
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
