"""What keeps the master's files in shape beside the loop: in threads and processes of their own.

Space is prepared ahead of the log, the WAL is copied back, checkpoints are made
by another process (GFS §2.6.3), and log segments go once nobody needs them: not
the second newest whole checkpoint, not a live request mark, not the retention
that followers of the stream were promised. The log's older records are read once after
each start, slowly: damage there is said, and a new checkpoint made, which needs none of them.
"""

from __future__ import annotations

import itertools
import logging
import sys
import time
from collections.abc import Callable
from contextlib import suppress

import trio

from gfs.errors import GfsError, NoSpace
from gfs.records import DECODER, Record
from master.checkpoint import log_floor, remove_old
from master.ledger import Ledger

log = logging.getLogger(__name__)

PREPARE_CHECK_S = 0.05
WAL_S = 5.0
CHECKPOINT_CHECK_S = 10.0
CHECKPOINT_LIMIT_S = 600.0
AGE_CHECK_S = 300.0
LOG_CHECK_S = 10.0
LOG_CHECK_RECORDS = 1000  # 4 ms of the loop
LOG_CHECK_PAUSE_S = 0.1


class Housekeeping:
    """Tasks beside the loop; none of them ever answers anybody.

    `marks`: positions of records that live sessions may ask for again; None: not known yet.
    """

    def __init__(
        self,
        ledger: Ledger,
        marks: Callable[[], list[int] | None],
        *,
        checkpoint_records: int,
        retain_bytes: int,
        retain_s: float = 0.0,
    ) -> None:
        self._ledger = ledger
        self._marks = marks
        self._checkpoint_records = checkpoint_records
        self._retain_bytes = retain_bytes
        self._retain_s = retain_s
        self._checkpoint_at_s = self._truncated_at_s = trio.current_time()  # or the start
        self.checkpoints_total = 0
        self._damaged = False  # is the log: only what comes after a new checkpoint counts then

    async def run(self) -> None:
        """Until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._prepare)
            nursery.start_soon(self._copy_wal_back)
            nursery.start_soon(self._make_checkpoints)
            nursery.start_soon(self._check_log)

    async def _prepare(self) -> None:
        while True:
            if self._ledger.log.needs_preparation:
                try:
                    await trio.to_thread.run_sync(self._ledger.log.prepare)
                except NoSpace as error:
                    log.warning("log.no-space %s", error)
                    await trio.sleep(1.0)
            await trio.sleep(PREPARE_CHECK_S)

    async def _copy_wal_back(self) -> None:
        while True:
            await trio.sleep(WAL_S)
            try:
                await trio.to_thread.run_sync(self._ledger.state.checkpoint_wal)
            except GfsError as error:
                log.warning("wal.not-copied %s", error)

    async def _make_checkpoints(self) -> None:
        last = self._ledger.newest_checkpoint()
        while True:
            await trio.sleep(CHECKPOINT_CHECK_S)  # first: a start has better things to do
            last = await self._checkpoint_if_due(last)
            if self._retain_s and trio.current_time() >= self._truncated_at_s + AGE_CHECK_S:
                self._truncated_at_s = trio.current_time()
                await trio.to_thread.run_sync(self._truncate)

    async def _checkpoint_if_due(self, last: int) -> int:
        """Position of the newest one, which was `last`."""
        position = self._ledger.position
        due = self._damaged or position - last >= self._checkpoint_records
        # Log that is to go by its age must not wait for a checkpoint that few records need.
        age_s = trio.current_time() - self._checkpoint_at_s
        due |= position > last and 0 < self._retain_s / 2 <= age_s
        if not due or not await self._checkpoint():
            return last
        self._damaged = False
        self._checkpoint_at_s = trio.current_time()
        await trio.to_thread.run_sync(self._truncate)
        return position

    async def _check_log(self) -> None:
        """Once, slowly: what the start has passed over, because the state has applied it."""
        await trio.sleep(LOG_CHECK_S)
        position, last = 0, self._ledger.position
        while position <= last:
            try:
                position = self._ledger.log.check(position, LOG_CHECK_RECORDS)
            except GfsError as error:
                log.error("log.damaged %s", error)
                self._ledger.log_damage, self._damaged = str(error), True
                return
            await trio.sleep(LOG_CHECK_PAUSE_S)

    async def _checkpoint(self) -> bool:
        """One checkpoint by a process of its own; a failure is logged and tried again."""
        ledger = self._ledger
        command = [sys.executable, "-m", "master.checkpoint"]
        command += [str(ledger.state.path), str(ledger.checkpoints)]
        with trio.move_on_after(CHECKPOINT_LIMIT_S):
            done = await trio.run_process(
                command, capture_stdout=True, capture_stderr=True, check=False
            )
            if not done.returncode:
                self.checkpoints_total += 1
                return True
            log.error("checkpoint.failed %s", done.stderr.decode(errors="replace").strip())
            return False
        log.error("checkpoint.failed not done in %s s", CHECKPOINT_LIMIT_S)
        return False

    def _truncate(self) -> None:
        """Drop old checkpoints and the log before what is still needed; reads checkpoints."""
        ledger = self._ledger
        marks = self._marks()
        if marks is None:
            return
        remove_old(ledger.disk, ledger.checkpoints)
        keep = log_floor(ledger.disk, ledger.checkpoints)
        retained = ledger.log.retained_from(self._retain_bytes)
        if self._retain_s:
            retained = max(retained, self._young_from())
        ledger.log.truncate_before(min([keep, retained, *marks]))

    def _young_from(self) -> int:
        """First position of the oldest segment whose last record is not too old to be kept."""
        log, oldest_ns = self._ledger.log, time.time_ns() - int(self._retain_s * 1e9)
        starts = log.segment_starts()
        for first, following in itertools.pairwise(starts):
            with suppress(GfsError):  # damaged: it is not for us to judge
                record: Record = DECODER.decode(log.read(following - 1)[1])
                if record.time_ns < oldest_ns:
                    continue
            return first
        return starts[-1] if starts else 0
