"""The master's side of a shadow's connection: the log handed on as it is committed (GFS §5.1.3).

A shadow asks for what comes behind a position, and by asking says that it has all up to
there on its disk. An ask is answered at once, or by the commit that has more, or after a
second with nothing. What is far back is read in a thread.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import trio

from gfs import messages as m
from gfs.checksum import crc32c
from gfs.connection import Connection
from gfs.errors import GfsError, NotFound, RemoteProtocolError
from gfs.ids import MIB
from gfs.logpart import pack
from gfs.messages import Message
from master.checkpoint import newest_whole
from master.connections import Peer
from master.core.shadows import Shadows
from master.ledger import Ledger
from master.log_reader import LogReader
from master.segments import LogRecord, Truncated

log = logging.getLogger(__name__)

PART_BYTES = 4 * MIB  # of payload; the frame's limit is twice that
READ_BYTES = MIB
POLL_S = 1.0
NEAR_RECORDS = 2000  # so far behind the end a read is quick
CHECKPOINT_PART_BYTES = MIB
_NOTHING = (-1, -1)


@dataclass
class _Reading:
    """One shadow's connection."""

    reader: LogReader
    shadow: int = 0
    given: tuple[int, int] = _NOTHING  # (epoch, position) of the last record handed out
    ask: m.FollowLog | None = None  # waits for more, since
    since_s: float = 0.0
    connection: Connection | None = None
    request: int = 0
    busy: bool = False  # a thread reads
    gone: bool = False


class Following:
    """All shadows' connections.

    Args:
      do: has something done in the next step.
      confirmed: called when a shadow has come further, or is gone.
    """

    def __init__(
        self,
        ledger: Ledger,
        shadows: Shadows,
        cluster: str,
        *,
        do: Callable[[Callable[[], None]], None],
        confirmed: Callable[[], None],
    ) -> None:
        self._ledger = ledger
        self._shadows = shadows
        self._cluster = cluster
        self._do = do
        self._confirmed = confirmed
        self._readings: dict[int, _Reading] = {}
        self.nursery: trio.Nursery | None = None

    def add(self, peer: Peer) -> None:
        """A shadow has connected."""
        ledger = self._ledger
        reader = LogReader(ledger.directory / "log", ledger.disk, self._cluster, ledger.committed)
        self._readings[peer.number] = _Reading(reader, connection=peer.connection)

    def remove(self, peer: Peer) -> None:
        """Its connection ended."""
        reading = self._readings.pop(peer.number)
        reading.gone = True
        if not reading.busy:
            reading.reader.close()
        shadow = reading.shadow
        if shadow and all(one.shadow != shadow for one in self._readings.values()):
            log.warning("shadow.gone shadow=%016x", shadow)
            self._shadows.gone(shadow)
            self._confirmed()

    def on_message(self, peer: Peer, request: int, message: Message) -> None:
        """A shadow asks."""
        reading = self._readings[peer.number]
        assert self.nursery is not None
        if isinstance(message, m.FollowLog):
            self._heard(reading, message)
            reading.ask, reading.request = message, request
            reading.since_s = trio.current_time()
            self._answer(reading, message)
        elif isinstance(message, m.ReadCheckpoint):
            self.nursery.start_soon(self._read_checkpoint, peer.connection, request, message)
        else:
            raise RemoteProtocolError(f"{type(message).__name__} from a shadow")

    def _heard(self, reading: _Reading, ask: m.FollowLog) -> None:
        shadows = self._shadows
        if not reading.shadow:
            reading.shadow = ask.shadow
            log.info("shadow.follows shadow=%016x from=%d", ask.shadow, ask.position)
            self._do(partial(shadows.register, ask.shadow, ask.address))
        if (ask.epoch, ask.position) == reading.given:  # else its history is not looked at yet
            shadows.heard(ask.shadow, ask.address, ask.position, trio.current_time())
            self._confirmed()

    def offer(self) -> None:
        """More is committed: whoever waits gets it."""
        for reading in self._readings.values():
            if reading.ask is not None:
                self._answer(reading, reading.ask)

    def tick(self) -> None:
        """An answer with nothing in it says that the master is there."""
        now_s = trio.current_time()
        for reading in self._readings.values():
            if reading.ask is not None and now_s - reading.since_s > POLL_S:
                self._reply(reading, b"", more=False)

    # --- answers

    def _answer(self, reading: _Reading, ask: m.FollowLog) -> None:
        committed = int(self._ledger.committed.read()[0])
        known = (ask.epoch, ask.position) == reading.given
        if known and ask.position >= committed:
            return  # with the next commit
        if known and committed - ask.position <= NEAR_RECORDS:
            try:
                self._hand_out(reading, ask, reading.reader.read(ask.position + 1))
            except Truncated:
                reading.given = _NOTHING
                self._answer(reading, ask)
            return
        reading.ask = None  # nobody else answers it meanwhile
        assert self.nursery is not None
        self.nursery.start_soon(self._answer_from_afar, reading, ask)

    async def _answer_from_afar(self, reading: _Reading, ask: m.FollowLog) -> None:
        assert reading.connection is not None
        reading.busy = True
        try:
            found = await trio.to_thread.run_sync(self._look_up, reading, ask)
        except GfsError as error:
            reading.connection.refuse(reading.request, error)
            return
        finally:
            reading.busy = False
            if reading.gone:
                reading.reader.close()
        if reading.gone:
            return
        reading.ask = ask
        if isinstance(found, m.LogReset):
            self._reset(reading, found)
            return
        if (ask.epoch, ask.position) != reading.given:
            reading.given = (ask.epoch, ask.position)
            self._heard(reading, ask)
        if found:
            self._hand_out(reading, ask, found)
        else:
            self._answer(reading, ask)  # something may have been committed since

    def _look_up(self, reading: _Reading, ask: m.FollowLog) -> list[LogRecord] | m.LogReset:
        """What comes behind, if the shadow's log is a prefix of ours. Blocks."""
        committed = int(self._ledger.committed.read()[0])
        try:
            if ask.position > committed:
                return self._begin_anew(f"it has {ask.position}, the log ends at {committed}")
            if ask.position and reading.reader.epoch_at(ask.position) != ask.epoch:
                return self._begin_anew(f"record {ask.position} is of another epoch")
            return reading.reader.read(ask.position + 1, limit_bytes=READ_BYTES)
        except Truncated as error:
            return self._begin_anew(str(error))

    def _begin_anew(self, why: str) -> m.LogReset:
        ledger = self._ledger
        found = next(iter(newest_whole(ledger.disk, ledger.checkpoints)), None)
        log.warning("shadow.reset why=%s checkpoint=%s", why, found.path.name if found else "none")
        if found is None:
            return m.LogReset("", 0)
        file = ledger.disk.open(found.path)
        try:
            return m.LogReset(found.path.name, file.size())
        finally:
            file.close()

    def _reset(self, reading: _Reading, reset: m.LogReset) -> None:
        reading.ask = None
        assert reading.connection is not None
        reading.connection.reply(reading.request, reset)

    def _hand_out(self, reading: _Reading, ask: m.FollowLog, records: list[LogRecord]) -> None:
        """As many as fit a part; a record longer than that goes alone, piece by piece."""
        size = 0
        for count, record in enumerate(records):
            size += len(record.payload)
            if size > PART_BYTES and count:
                records = records[:count]
                break
        content = pack((record.epoch, record.payload) for record in records)
        more = len(content) - ask.offset > PART_BYTES
        piece = content[ask.offset :]
        if more:
            piece = piece[:PART_BYTES]
        else:
            reading.given = (int(records[-1].epoch), int(records[-1].position))
        self._reply(reading, piece, more=more)

    def _reply(self, reading: _Reading, piece: bytes, *, more: bool) -> None:
        ask, reading.ask = reading.ask, None
        assert ask is not None
        assert reading.connection is not None
        part = m.LogPart(ask.position, int(self._ledger.committed.read()[0]), crc32c(piece), more)
        reading.connection.reply(reading.request, part, piece or None)

    async def _read_checkpoint(
        self, connection: Connection, request: int, ask: m.ReadCheckpoint
    ) -> None:
        ledger = self._ledger

        def read() -> bytes:
            path = ledger.checkpoints / ask.name
            if path.parent != ledger.checkpoints:
                raise NotFound(f"{ask.name} is no checkpoint")
            file = ledger.disk.open(path)
            try:
                return file.pread(CHECKPOINT_PART_BYTES, ask.offset)
            finally:
                file.close()

        try:
            content = await trio.to_thread.run_sync(read)
        except GfsError as error:
            connection.refuse(request, error)
        else:
            connection.reply(request, m.CheckpointPart(crc32c(content)), content or None)
