"""The master's housekeeping in the simulation, and a witness of what the log forgets.

Checkpoints are made by the product's code, in this process instead of one of their own; the
log is truncated as soon as the product lets it be. What goes is noted first, so that the
checks still know all records from the first on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import apsw
import trio

from gfs.disk import PosixDisk
from master.checkpoint import make_checkpoint
from master.core.master import Master
from master.housekeeping import WAL_S, Housekeeping
from master.ledger import Ledger
from tests.sim.kernel import SimulationError

CHECKPOINT_RECORDS = 60
RETAIN_BYTES = 1  # what followers were promised: the last segment
MADE, DROPPED = "checkpoints made", "segments dropped"


class Witness:
    """All records that were committed, though the log begins later by now.

    Attributes:
      counts: what housekeeping and recovery did.
    """

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self._payloads: list[bytes] = []

    def did(self, what: str, count: int = 1) -> None:
        """Count it."""
        if count:
            self.counts[what] = self.counts.get(what, 0) + count

    def note(self, ledger: Ledger) -> None:
        """Take over what has been committed since."""
        committed = int(ledger.committed.read()[0])
        for found in ledger.log.scan(len(self._payloads) + 1):
            if found.position > committed:
                break
            self._payloads.append(found.payload)

    def scan(self, ledger: Ledger, position: int) -> Iterator[tuple[int, bytes]]:
        """(position, payload) of all records from `position` to the end of the log."""
        noted = len(self._payloads)
        for at in range(position, noted + 1):
            yield at, self._payloads[at - 1]
        for found in ledger.log.scan(max(position, noted + 1)):
            yield int(found.position), found.payload

    def check(self, ledger: Ledger) -> None:
        """Raise unless what the log still has is what was committed there."""
        for found in ledger.log.scan(int(ledger.log.first_position)):
            if found.position > len(self._payloads):
                break
            if found.payload != self._payloads[found.position - 1]:
                raise SimulationError(f"record {found.position} has changed since it was committed")


class Keeping(Housekeeping):
    """See the module's text. `synced`: called when the state's file has been synced."""

    def __init__(
        self, ledger: Ledger, core: Master, witness: Witness, synced: Callable[[], None]
    ) -> None:
        super().__init__(
            ledger,
            core.engine.sessions.marks,
            checkpoint_records=CHECKPOINT_RECORDS,
            retain_bytes=RETAIN_BYTES,
        )
        self._witness = witness
        self._was_synced = synced

    async def _copy_wal_back(self) -> None:
        while True:
            await trio.sleep(WAL_S)
            await trio.to_thread.run_sync(self._ledger.state.checkpoint_wal)
            self._was_synced()

    async def _checkpoint(self) -> bool:
        await trio.lowlevel.checkpoint()
        ledger = self._ledger
        source = apsw.Connection(str(ledger.state.path), flags=apsw.SQLITE_OPEN_READONLY)
        make_checkpoint(source, ledger.checkpoints, PosixDisk())
        source.close()
        self._witness.did(MADE)
        return True

    def _truncate(self) -> None:
        ledger = self._ledger
        self._witness.note(ledger)
        before = ledger.log.statistics().segments
        super()._truncate()
        self._witness.did(DROPPED, before - ledger.log.statistics().segments)
