"""Verifies every block of a data directory in the background (GFS §5.2), once in a set period.

Sealed replicas are read past the page cache: what is there proves nothing about the disk, and
what is not is to stay out. Of open ones the whole blocks that are there are read. One piece at
a time, in a thread of low priority, with pauses that keep the rate (chunkd.core.scrubbing). A
bad block makes the replica bad: the next heartbeat tells the master.
"""

from __future__ import annotations

import logging
import mmap
import time
from collections.abc import Callable

import msgspec
import trio

from chunkd.core.machine import Machine
from chunkd.core.replica import Replica, ReplicaState
from chunkd.core.scrubbing import NS, Pace, Progress
from chunkd.directory import DataDirectory
from chunkd.files import OpenFiles, SealedFiles
from chunkd.formats import SCRUB, open_block, seal_block
from chunkd.reading import Reading
from chunkd.store import Store
from chunkd.workers import Workers
from gfs.errors import Corrupt, GfsError, NotFound
from gfs.ids import BLOCK_BYTES, MIB

log = logging.getLogger(__name__)

PIECE_BYTES = MIB
SAVE_S = 60.0
IDLE_S = 1.0  # while the disk does not work


class Scrubber:
    """Of one directory; see the module's text.

    Attributes:
      progress: how far it is.
      is_behind: it cannot be done in the period at the rate allowed.
    """

    def __init__(
        self, directory: DataDirectory, store: Store, reading: Reading, workers: Workers, *,
        period_s: float, bytes_per_s_max: int, wall_ns: Callable[[], int] | None = None,
    ) -> None:  # fmt: skip
        self.directory = directory
        self.progress = Progress()
        self.is_behind = False
        self._store = store
        self._machine: Machine = store.machine
        self._reading = reading
        self._workers = workers
        self._period_s = period_s
        self._pace = Pace(period_s=period_s, bytes_per_s_max=bytes_per_s_max)
        self._wall_ns = wall_ns or time.time_ns
        self._buffer = memoryview(mmap.mmap(-1, PIECE_BYTES))  # aligned, as reads aside need it
        self._left_bytes = 0
        self._due_s = 0.0
        self._saved_s = 0.0

    async def run(self) -> None:
        """Pass after pass, for ever."""
        try:
            self.progress = await self._workers.run(self._load)
        except GfsError as error:
            log.warning("scrub.anew directory=%s: %s", self.directory.path, error)
        while True:
            now_ns = self._wall_ns()
            if not self.progress.is_running:
                due_ns = self.progress.next_pass_ns(self._period_s)
                # A clock that was set back must not stop it for years.
                wait_s = min((due_ns - now_ns) / NS, self._period_s)
                if self.progress.began_ns and wait_s > 0:
                    await trio.sleep(wait_s)
                self.progress.begin(self._wall_ns())
            await self._pass()

    async def _pass(self) -> None:
        replicas = sorted(
            (one for one in self._store.in_directory(self.directory)),
            key=lambda replica: replica.handle,
        )
        left = [replica for replica in replicas if replica.handle > self.progress.after]
        self._left_bytes = sum(replica.end for replica in left)
        self._due_s = trio.current_time()
        self.is_behind = self._pace.is_behind(self._left_bytes, self._passed_s())
        if self.is_behind:
            log.warning(
                "scrub.behind directory=%s: scrub_bytes_per_s is too little for %d bytes in %d s",
                self.directory.path, self._left_bytes, self._period_s,
            )  # fmt: skip
        for replica in left:
            await self._replica(replica)
            self._left_bytes -= replica.end
            self.progress.after = replica.handle
            if trio.current_time() - self._saved_s >= SAVE_S:
                await self._save()
        progress = self.progress
        progress.end()
        await self._save()
        log.info(
            "scrub.done directory=%s blocks=%d bad=%d",
            self.directory.path, progress.last_blocks, progress.last_bad,
        )  # fmt: skip

    def _passed_s(self) -> float:
        return max(0.0, (self._wall_ns() - self.progress.began_ns) / NS)

    async def _replica(self, replica: Replica) -> None:
        """Read it, unless it is gone or known to be bad."""
        while not self.directory.health.is_working:  # noqa: ASYNC110
            await trio.sleep(IDLE_S)
        try:
            files = await self._open(replica)
        except NotFound as error:
            if self.directory.is_there:
                self._found(replica, Corrupt(str(error)))
            return  # the whole directory is gone: the next probe tells
        except GfsError as error:
            self._found(replica, error)
            return
        if files is None:
            return
        files.hold()
        try:
            await self._blocks(replica, files)
        except GfsError as error:
            self._found(replica, error)
        finally:
            files.release()
            if isinstance(files, SealedFiles):
                files.retire()

    async def _open(self, replica: Replica) -> OpenFiles | SealedFiles | None:
        handle = replica.handle
        if self._machine.replicas.get(handle) is not replica or replica.bad:
            return None
        if replica.state is not ReplicaState.SEALED:
            return self._store.open.get(handle)
        # Not by the store: its descriptors are for those that are read.
        return await self._workers.run(lambda: SealedFiles.open(self.directory, handle))

    async def _blocks(self, replica: Replica, files: OpenFiles | SealedFiles) -> None:
        sums = files.sums.copy()
        end = sums.end
        if isinstance(files, OpenFiles):
            end -= end % BLOCK_BYTES  # the last one is still growing
        for offset in range(0, end, PIECE_BYTES):
            length = min(PIECE_BYTES, end - offset)
            await self._wait(length)
            read = sums.check_aside if isinstance(files, SealedFiles) else sums.check_cached
            buffer = self._buffer[:length]
            await self._workers.run(lambda: read(files.data, offset, buffer))  # noqa: B023
            self.progress.blocks += -(-length // BLOCK_BYTES)

    async def _wait(self, length: int) -> None:
        """Until the next piece may be read."""
        await trio.sleep_until(self._due_s)
        rate = self._pace.rate(self._left_bytes, self._passed_s())
        self._due_s = max(self._due_s, trio.current_time() - 1.0) + length / rate

    def _found(self, replica: Replica, error: GfsError) -> None:
        if self._machine.replicas.get(replica.handle) is not replica:
            return  # deleted, or replaced by a copy
        if isinstance(error, Corrupt):
            log.warning("scrub.bad handle=%016x: %s", replica.handle, error)
        self.progress.bad += 1
        self._reading.cannot_be_read(replica, error)

    # --- what is durable

    def _load(self) -> Progress:
        """How far the last process came."""
        path = self.directory.path / "scrub"
        if not self.directory.disk.exists(path):
            return Progress()
        file = self.directory.disk.open(path)
        try:
            return open_block(SCRUB, file.pread(4096, 0), Progress, path)
        finally:
            file.close()

    async def _save(self) -> None:
        self._saved_s = trio.current_time()
        block = seal_block(SCRUB, msgspec.structs.replace(self.progress))

        def save() -> None:
            if self.directory.is_there:  # not below the mountpoint of a filesystem that is gone
                self.directory.disk.replace_file(self.directory.path / "scrub", block)

        try:
            await self._workers.run(save)
        except GfsError as error:
            self._store.note_failure(self.directory, error)
