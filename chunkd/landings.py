"""Appends onto the disk: bytes, entry, then the machine is told.

Large aligned appends to private chunks go around the page cache, in a thread: what streams
in at hundreds of MiB a second would only push out what is read, and having a page costs more
than writing its block (measured a GiB: 0.05 CPU seconds around the cache, 0.23 through it on
warm memory, up to 5 where the machine has to be given the memory first). Small appends and
tails, which are read soon after, go through it; everything else comes to it by being read.
"""

from __future__ import annotations

import logging
import time
import typing
from typing import Any, Protocol

from chunkd.askers import Asker
from chunkd.core.appends import Landing
from chunkd.core.machine import Machine, Work
from chunkd.files import OpenFiles
from chunkd.lanes import Lanes
from chunkd.store import Store
from chunkd.turns import Turns
from gfs.errors import Corrupt, Fenced, GfsError

log = logging.getLogger(__name__)


class Performer(Protocol):
    """Who does what the machine wants done."""

    def perform(self, work: list[Work]) -> None:
        """Do it, in order."""

    def refuse(self, asker: Asker, error: GfsError) -> None:
        """Tell `asker` that it failed."""


class Landings:
    """See the module's text."""

    def __init__(
        self, machine: Machine, store: Store, lanes: Lanes, counters: Any, performer: Performer
    ) -> None:
        self.turns = Turns()
        self._machine = machine
        self._store = store
        self._lanes = lanes
        self._counters = counters
        self._performer = performer

    def land(self, landing: Landing, payload: memoryview) -> None:
        """Write `payload` where the machine wants it, then go on; maybe later.

        Raises:
          Corrupt: these are not the bytes that were sent.
        """
        files = self._store.open[landing.replica.handle]
        checksum, sums = files.checksums(payload)
        if checksum != landing.checksum:
            raise Corrupt("the bytes to append do not match their checksum")
        asker = typing.cast(Asker, landing.asker)
        asker.count()
        if files.suits_around(len(payload)):
            self._land_around(landing, files, payload, sums)
            return
        try:
            files.append(
                payload, end=landing.end, checksum=checksum,
                writer=landing.writer, sequence=landing.sequence, sums=sums,
            )  # fmt: skip
        except GfsError as error:
            self._failed(landing, files, error)
            return
        self._landed(landing, files, payload)

    def _land_around(
        self, landing: Landing, files: OpenFiles, payload: memoryview, sums: list[int] | None
    ) -> None:
        replica, chain = landing.replica, landing.replica.chain
        files.hold()
        self.turns.begin(replica.handle)

        def on_done(result: object) -> None:
            files.release()
            known = self._machine.replicas.get(replica.handle) is replica
            if isinstance(result, GfsError):
                self._failed(landing, files, result)
            elif known and replica.chain is chain:
                self._enter_around(landing, files, payload, sums)
            else:
                error = Fenced(f"chunk {replica.handle:016x} was fenced while it was written")
                self._performer.refuse(typing.cast(Asker, landing.asker), error)
            self.turns.end(replica.handle)

        write = self._lanes.of(files.directory).write
        write.submit(lambda: files.write_around(payload), on_done)

    def _enter_around(
        self, landing: Landing, files: OpenFiles, payload: memoryview, sums: list[int] | None
    ) -> None:
        try:
            files.enter(
                payload, end=landing.end, checksum=landing.checksum,
                writer=landing.writer, sequence=landing.sequence, sums=sums,
            )  # fmt: skip
        except GfsError as error:
            self._failed(landing, files, error)
            return
        files.entered_around()
        self._landed(landing, files, payload)

    def _landed(self, landing: Landing, files: OpenFiles, payload: memoryview) -> None:
        self._counters.appends_total += 1
        self._counters.bytes_written_total += len(payload)
        hint = files.take_write_behind()
        if hint is not None:
            files.hold()
            self._lanes.of(files.directory).sync.submit(hint, lambda _: files.release())
        self._performer.perform(self._machine.landed(landing, time.time_ns()))

    def _failed(self, landing: Landing, files: OpenFiles, error: GfsError) -> None:
        log.warning("append.failed handle=%016x: %s", landing.replica.handle, error)
        self._store.note_failure(files.directory, error)
        self._performer.perform(self._machine.write_failed(landing, error))
