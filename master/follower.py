"""A shadow's side of the log: asked for, made durable, confirmed, applied (GFS §5.1.3).

What comes is written behind the last record and synced; the next question then says so to
the master, whose answers wait for it; only after that is it applied to the state. A part
that was cut or falsified on its way is not used, whatever is left of it.
"""

from __future__ import annotations

import logging
from pathlib import Path

import trio

from gfs import messages as m
from gfs.checksum import crc32c
from gfs.connection import Connection
from gfs.disk import make_directory
from gfs.errors import Corrupt, GfsError, RemoteProtocolError, TimedOut
from gfs.logpart import PackedRecord, unpack
from gfs.masters import Caller, dial_leader, places
from gfs.messages import Message
from master.checkpoint import is_whole, parse_checkpoint
from master.ledger import Ledger
from master.opening import Opened

log = logging.getLogger(__name__)

SILENCE_S = 3.0  # of the master; it says something each second
PAUSE_S = 0.2
APPLY_RECORDS = 200  # between looks at what else there is to do


class BeginAnew(Exception):
    """The master's log does not continue ours: start from `checkpoint` (None: empty).

    Attributes:
      checkpoint: a whole one, not yet in its place.
    """

    def __init__(self, checkpoint: Path | None, position: int) -> None:
        super().__init__("the log does not continue the master's")
        self.checkpoint = checkpoint
        self.position = position


class _Ask:
    """A question on its way."""

    def __init__(self, connection: Connection, message: Message) -> None:
        self._done = trio.Event()
        self._answer: Message | GfsError = TimedOut(f"{connection.peer}: no answer")
        self._payload: memoryview | None = None
        connection.request(message, self._on_reply)

    def _on_reply(self, answer: Message | GfsError, payload: memoryview | None) -> None:
        self._answer, self._payload = answer, payload
        self._done.set()

    async def answer(self) -> tuple[Message, bytes]:
        """Raises: GfsError: the refusal, or none came."""
        with trio.move_on_after(SILENCE_S):
            await self._done.wait()
        if isinstance(self._answer, GfsError):
            raise self._answer
        return self._answer, bytes(self._payload or b"")


class Follower:
    """Keeps the ledger equal to the master's, as far as that can be reached.

    Attributes:
      position, epoch: of the last record that is durable here.
      master_position: where the master's log ended when it was last heard.
      heard_s: when that was; None = never.
      connection: to the master, while there is one.
    """

    def __init__(self, opened: Opened, address: str, key: bytes) -> None:
        self._opened = opened
        self._ledger: Ledger = opened.ledger
        self._address = address
        self._known = places(opened.config.follow)
        self._caller = Caller(key, opened.cluster, "shadow", SILENCE_S)
        self.position, self.epoch = self._ledger.position, self._ledger.epoch
        self.master_position = self.position
        self.heard_s: float | None = None
        self.connection: Connection | None = None
        self._moved = trio.Event()
        self._scope = trio.CancelScope()
        self._ended = trio.Event()

    async def run(self) -> None:
        """Follow until `stop`.

        Raises:
          BeginAnew: our log is no prefix of the master's.
          GfsError: our own disk failed.
        """
        try:
            with self._scope:
                while True:
                    await self._dial_and_follow()
                    await trio.sleep(PAUSE_S)
        finally:
            self._ended.set()

    async def stop(self) -> None:
        """Write nothing more; what is written has been applied when this returns."""
        self._scope.cancel()
        await self._ended.wait()

    async def _dial_and_follow(self) -> None:
        try:
            connection = await dial_leader(self._known, self._caller, epoch=self.epoch)
        except GfsError as error:
            log.debug("follow.failed %s", error)
        else:
            await self._with(connection)

    async def _with(self, connection: Connection) -> None:
        log.info("follow.begins master=%s position=%d", connection.peer, self.position)
        self.connection = connection
        anew: BeginAnew | None = None
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(connection.run, _refuse)
                try:
                    await self._follow(connection)
                except _Lost as lost:
                    log.warning("follow.lost position=%d why=%s", self.position, lost.why)
                except BeginAnew as found:
                    anew = found
                finally:
                    connection.close()
        finally:
            self.connection = None
        if anew is not None:
            raise anew

    async def _follow(self, connection: Connection) -> None:
        pieces: list[bytes] = []
        ask = self._ask(connection, 0)
        while True:
            try:
                answer, payload = await ask.answer()
                self.heard_s = trio.current_time()
                if isinstance(answer, m.LogReset):
                    raise await self._fetch(connection, answer)
                records = self._unpack(answer, payload, pieces)
            except GfsError as error:
                raise _Lost(error) from error
            if records:
                self._ledger.write(records)
                self.epoch, self.position = records[-1].epoch, self._ledger.position
            ask = self._ask(connection, sum(map(len, pieces)))
            with trio.CancelScope(shield=True):  # log and state part for no reason but a crash
                await self._apply(records)

    def _ask(self, connection: Connection, offset: int) -> _Ask:
        position, epoch = self.position, self.epoch
        return _Ask(
            connection, m.FollowLog(self._opened.node, self._address, position, epoch, offset)
        )

    def _unpack(self, answer: Message, payload: bytes, pieces: list[bytes]) -> list[PackedRecord]:
        """Records of a part; none while a long one is not whole yet."""
        if not isinstance(answer, m.LogPart) or answer.after != self.position:
            raise RemoteProtocolError("that is not the part of the log that was asked for")
        if crc32c(payload) != answer.checksum:
            raise Corrupt("a part of the log was damaged on its way")
        self.master_position = max(answer.committed, self.position)
        pieces.append(payload)
        if answer.more:
            return []
        content = b"".join(pieces)
        pieces.clear()
        return unpack(content)

    async def _apply(self, records: list[PackedRecord]) -> None:
        for start in range(0, len(records), APPLY_RECORDS):
            self._ledger.apply(records[start : start + APPLY_RECORDS])
            if len(records) > APPLY_RECORDS:
                await trio.lowlevel.checkpoint()
        if records:
            self._moved.set()
            self._moved = trio.Event()

    async def wait_for(self, position: int, limit_s: float) -> bool:
        """Whether everything up to `position` came in time."""
        with trio.move_on_after(limit_s):
            while self._ledger.state.position < position:
                await self._moved.wait()
        return int(self._ledger.state.position) >= position

    async def _fetch(self, connection: Connection, reset: m.LogReset) -> BeginAnew:
        """Get the checkpoint; the error to raise."""
        if not reset.checkpoint:
            return BeginAnew(None, 0)
        directory = self._opened.directory / "incoming"
        found = parse_checkpoint(directory / Path(reset.checkpoint).name)
        if found is None:
            raise RemoteProtocolError(f"{reset.checkpoint} is no checkpoint")
        disk = self._opened.disk
        make_directory(disk, directory)
        file = disk.open(found.path, create=True)
        try:
            file.truncate(0)
            offset = 0
            while offset < reset.length:
                ask = _Ask(connection, m.ReadCheckpoint(reset.checkpoint, offset))
                answer, content = await ask.answer()
                if not isinstance(answer, m.CheckpointPart) or not content:
                    raise RemoteProtocolError("a checkpoint ended early")
                if crc32c(content) != answer.checksum:
                    raise Corrupt("a part of a checkpoint was damaged on its way")
                file.pwrite(content, offset)
                offset += len(content)
            await trio.to_thread.run_sync(file.fsync)
        finally:
            file.close()
        if not await trio.to_thread.run_sync(is_whole, disk, found):
            raise Corrupt(f"{reset.checkpoint} came damaged")
        return BeginAnew(found.path, found.position)


class _Lost(Exception):
    """The connection failed, or what came by it was wrong: dial again."""

    def __init__(self, why: GfsError) -> None:
        super().__init__(str(why))
        self.why = why


def _refuse(connection: Connection, _: int, message: Message, __: memoryview | None) -> None:
    raise RemoteProtocolError(f"{type(message).__name__} does not come this way")
