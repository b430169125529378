"""Record append, exactly once: one appender a process and file.

A record is one write(2). The first goes to the primary at once; what comes
while its round trip is out gathers (at most 1 MiB waits) and goes together,
landing whole. The writer is 64 random bits; sequences count from 1 within one
chunk and the primary takes only the next, so nothing lands twice or out of
order. In any doubt - an error, silence, a fence, a full chunk - the master is
asked (`ResolveTail`): what it says has landed has landed, the rest is numbered
anew for the tail it names.

A record that fails fails all behind it: the appender is then finished, and
`error` says why. So does one that was acknowledged and is gone, because every member
lost its memory before an fsync: nothing is appended behind a gap.

Source: GFS §3.3. Departs: exactly once instead of at least once; no padding.
"""

from __future__ import annotations

import logging
import secrets
from collections import deque
from collections.abc import Callable

import trio

from gfs.checksum import Buffer, crc32c
from gfs.client.leasing import join, suspects_of
from gfs.client.metadata import MasterLink
from gfs.client.peers import ChunkServers
from gfs.connection import Connection
from gfs.errors import (
    DeadSession,
    GfsError,
    QuotaExceeded,
    Refused,
    RemoteProtocolError,
    TimedOut,
    TooFewServers,
    TryAgain,
    Unreachable,
    from_wire,
)
from gfs.ids import FRAME_BYTES, MIB
from gfs.messages import (
    Actor,
    Done,
    Lease,
    Message,
    OpenTail,
    RecordAppend,
    RecordsAppended,
    ResolveTail,
    Sync,
    Tail,
)

log = logging.getLogger(__name__)

WINDOW_BYTES = 1 * MIB
SLOW_S = 10.0
GIVE_UP_S = 80.0
PAUSE_S, PAUSE_MAX_S = 0.05, 1.0


class _Batch:
    """Records that travel together; `first` is the sequence of the first one."""

    __slots__ = ("bytes", "first", "records", "sent_at", "sync")

    def __init__(self) -> None:
        self.records: list[Buffer] = []
        self.bytes = 0
        self.first = 0
        self.sync = False
        self.sent_at = 0.0

    def add(self, data: Buffer, sync: bool) -> None:
        self.records.append(data)
        self.bytes += len(data)
        self.sync = self.sync or sync

    def cut(self, count: int) -> int:
        """Forget the first `count` records; returns their bytes."""
        freed = sum(len(record) for record in self.records[:count])
        del self.records[:count]
        self.bytes -= freed
        return freed


class Appender:
    """See the module's text. Serials number this appender's records over all chunks.

    Attributes:
      error: why it is finished, or None.
      acknowledged_end: file offset that is known to be acknowledged by all members.
      on_tail: called with (lease, file offset) when a tail is taken up.
      on_room: called with the bytes that quotas then allow to be appended; -1: any number.
    """

    def __init__(
        self,
        ino: int,
        link: MasterLink,
        servers: ChunkServers,
        nursery: trio.Nursery,
        actor: Actor,
    ) -> None:
        self.ino = ino
        self.writer = secrets.randbits(63) | 1
        self.error: GfsError | None = None
        self.acknowledged_end = 0
        self.on_tail: Callable[[Lease, int], None] = _no_tail
        self.on_room: Callable[[int], None] = _no_room
        self._link = link
        self._servers = servers
        self._nursery = nursery
        self._actor = actor
        self._lease: Lease | None = None
        self._file_offset = 0
        self._connection: Connection | None = None
        self._next = 1
        self._queue: deque[_Batch] = deque()
        self._sent: _Batch | None = None
        self._waiting_bytes = 0
        self._appended = self._acked = self._synced = 0
        self._busy = False  # opening, joining or resolving
        self._syncing = False
        self._generation = 0
        self._changed = trio.Event()

    @property
    def idle(self) -> bool:
        """Everything appended has been acknowledged (or has failed)."""
        return self._acked == self._appended or self.error is not None

    async def append(self, data: Buffer, *, sync: bool = False) -> None:
        """Queue one record; with `sync`, wait until it is on the disks of all members.

        Raises:
          GfsError: this record, or one before it, cannot land. Empty data is no record.
        """
        if not len(data):
            return
        while self._waiting_bytes + len(data) > WINDOW_BYTES and self._waiting_bytes:
            if self.error is not None:
                raise self.error
            await self._changed.wait()
        if self.error is not None:
            raise self.error
        self._appended += 1
        serial = self._appended
        self._waiting_bytes += len(data)
        last = self._queue[-1] if self._queue else None
        if last is None or last.bytes + len(data) > FRAME_BYTES:
            last = _Batch()
            self._queue.append(last)
        last.add(data, sync)
        self._pump()
        if sync:
            await self._wait_for(serial)
            await self.sync(serial)

    def _pump(self) -> None:
        if self._busy or self._sent is not None or not self._queue or self.error is not None:
            return
        connection = self._connection
        if self._lease is None or connection is None or connection.closed is not None:
            self._busy = True
            self._nursery.start_soon(self._take_up)
            return
        self._send(self._queue.popleft(), self._lease, connection)

    def _send(self, batch: _Batch, lease: Lease, connection: Connection) -> None:
        batch.first = self._next
        self._next += len(batch.records)
        batch.sent_at = trio.current_time()
        self._sent = batch
        payload = batch.records[0] if len(batch.records) == 1 else b"".join(batch.records)
        message = RecordAppend(
            lease.handle,
            lease.version,
            self.writer,
            batch.first,
            len(batch.records),
            crc32c(payload),
            batch.sync,
        )

        def on_reply(answer: Message | GfsError, _: memoryview | None) -> None:
            if self._sent is not batch or self._busy:
                return  # given up before; the master was asked instead
            if isinstance(answer, RecordsAppended):
                self._landed(batch, answer.end)
            elif isinstance(answer, GfsError):
                self._doubt(answer)
            else:
                self._doubt(RemoteProtocolError(f"{type(answer).__name__} to a RecordAppend"))

        connection.request(message, on_reply, payload)

    def _landed(self, batch: _Batch, end: int) -> None:
        self._sent = None
        self._acked += len(batch.records)
        self._waiting_bytes -= batch.bytes
        self.acknowledged_end = max(self.acknowledged_end, self._file_offset + end)
        if batch.sync:
            self._synced = self._acked
        self._pump()
        self._tell()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    # --- tails: the first, the next, and what landed in the last

    def _doubt(self, error: GfsError) -> None:
        """Whether what is out has landed is not known: ask the master."""
        log.info(
            "append.doubt ino=%d writer=%x why=%s: %s", self.ino, self.writer, error.code, error
        )
        self._busy = True
        self._generation += 1
        self._nursery.start_soon(self._resolve, error)

    async def _take_up(self) -> None:
        """A tail when there is none yet; the known one anew after an idle connection ended."""
        try:
            if self._lease is None:
                self._adopt(await self._open_tail(), same=True)
            await self._join()
        except (Unreachable, TryAgain) as error:
            self._generation += 1
            if self._lease is None:
                self._fail(error)
            else:
                await self._resolve(error)
        except GfsError as error:
            self._fail(error)
        else:
            self._go_on()

    async def _open_tail(self) -> Tail:
        """The file's tail, once the master and its servers allow it.

        Raises:
          GfsError: they did not within 80 s, or never will.
        """
        deadline = trio.current_time() + GIVE_UP_S
        while True:
            try:
                question = OpenTail(self.ino, self.writer)
                done = await self._link.mutate(question, self._actor)
                self.on_room(done.room)
                return _tail_of(done)
            except (TryAgain, DeadSession) as error:
                if self._is_final(error) or trio.current_time() + PAUSE_S > deadline:
                    raise
            await trio.sleep(PAUSE_S)

    def _is_final(self, error: GfsError) -> bool:
        """Nothing to try again: no session, or the master has waited for servers already."""
        dead = isinstance(error, DeadSession) and self._link.dead is not None
        return dead or isinstance(error, TooFewServers)

    async def _join(self) -> None:
        """Ask the chain to take part; appends may follow at once.

        Raises:
          Unreachable: the primary cannot be reached.
        """
        lease = self._lease
        assert lease is not None
        connection = await self._servers.get(lease.members[0])
        generation = self._generation

        def on_joined(answer: Message | GfsError, _: memoryview | None) -> None:
            if isinstance(answer, GfsError) and generation == self._generation and not self._busy:
                self._doubt(answer)

        connection.request(join(lease, tail=True), on_joined)
        self._connection = connection

    async def _resolve(self, error: GfsError) -> None:
        """Ask the master what landed and where to go on, until a tail can be joined."""
        deadline = trio.current_time() + GIVE_UP_S
        pause_s = 0.0
        while True:
            lease = self._lease
            assert lease is not None
            suspects = suspects_of(error, lease, self._connection)
            question = ResolveTail(self.ino, self.writer, lease.handle, lease.version, suspects)
            try:
                limit_s = deadline - trio.current_time()
                done = await self._link.mutate(question, self._actor, timeout_s=limit_s)
                tail = _tail_of(done)
                self.on_room(done.room if not tail.refused else 0)
                self._settle(tail.last)
                if tail.refused:
                    self._end(from_wire(tail.refused, ""))
                    return
                self._adopt(tail, same=tail.lease.handle == lease.handle)
                await self._join()
            except (TryAgain, Unreachable, DeadSession) as again:
                error = again
                if self._is_final(again) or trio.current_time() + pause_s > deadline:
                    self._fail(again)
                    return
            except GfsError as final:
                self._fail(final)
                return
            else:
                break
            self._connection = None
            pause_s = min(max(pause_s * 2, PAUSE_S), PAUSE_MAX_S)
            await trio.sleep(pause_s)
        self._go_on()

    def _settle(self, last: int) -> None:
        """Records of the batch that is out, up to sequence `last`, have landed.

        Raises:
          Refused: not even all that were acknowledged. What comes behind would leave a gap.
        """
        batch, self._sent = self._sent, None
        acknowledged = (batch.first if batch is not None else self._next) - 1
        if last < acknowledged:
            raise Refused("all members have lost records that no fsync had made durable")
        if batch is None:
            return
        landed = min(max(last - batch.first + 1, 0), len(batch.records))
        self._waiting_bytes -= batch.cut(landed)
        self._acked += landed
        if batch.records:
            self._queue.appendleft(batch)

    def _end(self, error: GfsError) -> None:
        """Nothing may be appended any more, but what has landed has."""
        if self._queue:
            self._fail(error)
            return
        self._synced = self._acked  # a fence makes durable what it finds landed
        self._lease = self._connection = None  # who appends again asks for a tail
        self._go_on()

    def _adopt(self, tail: Tail, *, same: bool) -> None:
        """Go on with the tail the master named; in the same chunk sequences go on too."""
        self._lease = tail.lease
        self._file_offset = tail.file_offset
        self._next = tail.last + 1 if same else 1
        self.on_tail(tail.lease, tail.file_offset)

    def _go_on(self) -> None:
        self._busy = False
        self._pump()
        self._tell()

    def _fail(self, error: GfsError) -> None:
        level = logging.INFO if isinstance(error, QuotaExceeded) else logging.ERROR  # all are told
        lost = self._waiting_bytes
        log.log(level, "append.failed ino=%d bytes=%d why=%s", self.ino, lost, error)
        self.error = error
        self._busy = False
        self._queue.clear()
        self._sent = None
        self._waiting_bytes = 0
        self._tell()

    def check(self, now: float) -> None:
        """Doubt a primary that lives but has not answered for long."""
        sent = self._sent
        if sent is not None and not self._busy and now - sent.sent_at > SLOW_S:
            self._doubt(TimedOut(f"no acknowledgement for {SLOW_S} s"))

    # --- waiting

    async def wait(self) -> None:
        """Until everything appended so far is acknowledged by all members.

        Raises:
          GfsError: it, or something before it, failed.
        """
        await self._wait_for(self._appended)

    async def _wait_for(self, serial: int) -> None:
        while self._acked < serial:
            if self.error is not None:
                raise self.error
            await self._changed.wait()

    async def sync(self, serial: int | None = None) -> None:
        """`wait`, and fdatasync at all members."""
        target = self._appended if serial is None else serial
        while self._synced < target:
            if self.error is not None:
                raise self.error
            if self._syncing:
                await self._changed.wait()
                continue
            self._syncing = True
            try:
                await self._sync_once(target)
            finally:
                self._syncing = False
                self._tell()

    async def _sync_once(self, target: int) -> None:
        out = len(self._sent.records) if self._sent is not None else 0
        if self._busy or self._acked + out < target:
            if self._queue:
                self._queue[-1].sync = True  # goes out with the flag instead
            await self._changed.wait()
            return
        mark, lease, connection = self._acked + out, self._lease, self._connection
        generation = self._generation
        assert lease is not None
        assert connection is not None
        try:
            # Sent behind the records, not after their acknowledgement: a round trip less.
            await connection.call(Sync(lease.handle, lease.version), timeout_s=2 * SLOW_S)
            await self._wait_for(mark)
        except GfsError as error:
            if self.error is None and generation == self._generation and not self._busy:
                self._doubt(error)
            return
        if generation == self._generation:
            self._synced = max(self._synced, mark)


def _tail_of(done: Done) -> Tail:
    if done.tail is None or not (done.tail.lease.members or done.tail.refused):
        raise RemoteProtocolError("the master named no tail")
    return done.tail


def _no_tail(_lease: Lease, _file_offset: int) -> None:
    return None


def _no_room(_room: int) -> None:
    return None
