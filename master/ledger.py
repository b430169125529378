"""Log and state as one: a group of records becomes durable, then visible.

    begin -> (the core applies records to the state) -> log, fdatasync -> COMMIT -> published

If the sync or the COMMIT fails nobody may be answered and nothing is retried:
the caller lets the exception end the process. A full disk is noticed before a
group is decided, so that refusing costs nothing.

The sync runs in the loop while the disk is quick (0.13 ms) and in a thread of its
own while it is not, so that reads go on.
"""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Sequence
from pathlib import Path

from gfs.disk import Disk
from gfs.errors import Corrupt
from gfs.ids import MIB
from gfs.records import DECODER, ENCODER, Record
from master import beginning
from master.checkpoint import list_checkpoints
from master.core import start
from master.core.tables import Tables
from master.core.transaction import apply
from master.log import OperationLog
from master.log_reader import CommittedPosition
from master.one_thread import OneThread
from master.recovery import Recovered, open_state

log = logging.getLogger(__name__)

RESERVE_BYTES = 32 * MIB  # for the log's next step, SQLite's WAL and a clean end
SLOW_SYNC_S = 0.001
_SMOOTHING = 0.2


def apply_payload(tables: Tables, payload: bytes) -> None:
    """Replay one record."""
    apply(DECODER.decode(payload), tables)


class Ledger:
    """Opens, recovers and writes. One task owns it.

    Args:
      uid, gid: of the root of a new cluster.
      following: begin no epoch: a shadow's, or not known yet whether this log is the newest.

    Attributes:
      state, log: for reading and upkeep.
      epoch: of this start, or of the last record followed.
    """

    def __init__(
        self,
        directory: Path,
        disk: Disk,
        cluster: str,
        *,
        segment_bytes: int,
        uid: int,
        gid: int,
        following: bool = False,
    ) -> None:
        self.directory = directory
        self.disk = disk
        self.checkpoints = directory / "checkpoints"
        beginning.finish(directory, disk)
        self.log = OperationLog(directory / "log", disk, cluster, segment_bytes=segment_bytes)
        recovered: Recovered = open_state(
            directory / "state.db",
            cluster,
            self.log,
            apply_payload,
            disk=disk,
            checkpoints=self.checkpoints,
            begins_at=beginning.begin_of(directory, disk),
        )
        self.recovered = recovered
        self.log_damage = ""  # in records that the state has applied; found later
        self.state = recovered.state
        self.last_time_ns = self._last_time_ns()
        self.epoch = int(self.state.epoch)
        self.committed = CommittedPosition(directory / "committed", create=True)
        self._sync_s = 0.0
        self._syncer = OneThread("log-sync")
        self._owner = uid, gid
        if following:
            self.committed.publish(self.position, self.epoch)
        else:
            self.begin_epoch(start.next_epoch(self.state))

    def _last_time_ns(self) -> int:
        if self.log.last_position < self.log.first_position:
            return 0
        record: Record = DECODER.decode(self.log.read(self.log.last_position)[1])
        return record.time_ns

    def begin_epoch(self, epoch: int, *, loses: bool = False) -> None:
        """The first record of a start; `loses` says that others may have heard of more."""
        now_ns = max(time.time_ns(), self.last_time_ns + 1)
        uid, gid = self._owner
        record = start.first_record(
            self.state,
            position=self.log.last_position + 1,
            epoch=epoch,
            now_ns=now_ns,
            uid=uid,
            gid=gid,
            loses=loses,
        )
        self.epoch = epoch
        self.last_time_ns = now_ns
        self.state.begin()
        apply(record, self.state)
        self.log.append(self.epoch, [(record.position, ENCODER.encode(record))])
        self.log.sync()
        self._commit(record.position)

    @property
    def position(self) -> int:
        return int(self.log.last_position)

    def record_at(self, position: int) -> Record:
        """The record at a position that is durable and still in the log."""
        record: Record = DECODER.decode(self.log.read(position)[1])
        return record

    def has_room(self) -> bool:
        """Is there space for more records?"""
        free, _ = self.disk.free_bytes(self.directory)
        return free >= RESERVE_BYTES

    def begin(self) -> None:
        self.state.begin()

    @property
    def syncs_quickly(self) -> bool:
        """Is a sync in the loop cheaper than a thread's way there and back?"""
        return self._sync_s < SLOW_SYNC_S

    def commit_now(self, records: list[Record]) -> None:
        """Make the step's records durable, then the state visible; blocks for the sync.

        Raises:
          GfsError: it is unknown what is on disk: end the process.
        """
        if self._append(records):
            began = time.perf_counter()
            self.log.sync()
            self._synced(began, records)

    async def commit(self, records: list[Record]) -> None:
        """`commit_now` that lets reads go on while the disk is slow."""
        if self.syncs_quickly:
            self.commit_now(records)
        elif self._append(records):
            began = time.perf_counter()
            await self._syncer.run(self.log.sync)
            self._synced(began, records)

    def _append(self, records: list[Record]) -> bool:
        if not records:
            self.state.rollback()
            return False
        encode = ENCODER.encode
        self.log.append(self.epoch, [(record.position, encode(record)) for record in records])
        return True

    def _synced(self, began: float, records: list[Record]) -> None:
        self._sync_s += (time.perf_counter() - began - self._sync_s) * _SMOOTHING
        self._commit(records[-1].position)

    def _commit(self, position: int) -> None:
        self.state.set_position(position, self.epoch)
        self.state.commit()
        self.committed.publish(position, self.epoch)

    # --- a shadow's

    def write(self, records: Sequence[tuple[int, bytes]]) -> None:
        """Make (epoch, payload) each durable behind the last record. Blocks for the sync.

        Raises:
          GfsError: it is unknown what is on disk: end the process.
        """
        position = self.position
        for epoch, some in itertools.groupby(records, key=lambda record: record[0]):
            group = list(enumerate((payload for _, payload in some), start=position + 1))
            self.log.append(epoch, group)
            position = group[-1][0]
        self.log.sync()

    def apply(self, records: Sequence[tuple[int, bytes]]) -> None:
        """Make what `write` was given visible to readers."""
        expected = self.state.position + len(records)
        self.state.begin()
        for _, payload in records:
            record: Record = DECODER.decode(payload)
            apply(record, self.state)
        if record.position != expected:
            raise Corrupt(f"the records end with {record.position}, not with {expected}")
        self.epoch, self.last_time_ns = record.epoch, record.time_ns
        self._commit(record.position)

    def newest_checkpoint(self) -> int:
        """Position of the newest checkpoint; 0 without one."""
        found = list_checkpoints(self.disk, self.checkpoints)
        return max((int(one.position) for one in found), default=0)

    def close(self) -> None:
        """Close the files; what was committed is durable already."""
        self._syncer.close()
        self.state.close()
        self.log.close()
        self.committed.close()
