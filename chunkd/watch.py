"""Watches the data directories: probes their disks, sees jobs that do not end, tells who must know.

chunkd.core.health decides what is slow, hung, failed and well again. Here its clock is kept
and its word spread: chains through a directory that is out end at once, messages wait or are
refused (chunkd.gate), and the master hears which replicas count no more, or count again.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

import trio

from chunkd.directory import DataDirectory
from chunkd.lanes import Lanes
from chunkd.service import DataService
from chunkd.store import Store
from gfs.errors import GfsError

log = logging.getLogger(__name__)

LOOK_S = 0.25


class Watch:
    """See the module's text. `on_change` is called with a directory that is out, or back."""

    def __init__(
        self,
        store: Store,
        service: DataService,
        lanes: Lanes,
        on_change: Callable[[DataDirectory], None],
    ) -> None:
        self._store = store
        self._service = service
        self._lanes = lanes
        self._on_change = on_change
        store.on_failure = self._changed

    async def run(self) -> None:
        """Look for ever."""
        while True:
            self.look(time.monotonic())
            await trio.sleep(LOOK_S)

    def look(self, now_s: float) -> None:
        """See to all directories."""
        for directory in self._store.directories:
            health = directory.health
            if health.look(now_s, self._lanes.of(directory).running_since_s()):
                if health.is_hung:
                    log.error("disk.hung directory=%s", directory.path)
                    self._changed(directory)
                self._service.gate.look()
            if health.probe_due(now_s):
                self._probe(directory)

    def _probe(self, directory: DataDirectory) -> None:
        def done(result: GfsError | None) -> None:
            was_failed = bool(directory.health.failure)
            if not directory.health.probed(time.monotonic(), str(result or "")):
                return
            if directory.health.failure:
                log.error("disk.failed directory=%s: %s", directory.path, directory.health.failure)
            else:
                what = "has recovered" if was_failed else "answers again"
                log.warning("disk.back directory=%s %s", directory.path, what)
            self._service.gate.look()
            self._changed(directory)

        self._lanes.of(directory).probe.submit(directory.probe, done)

    def _changed(self, directory: DataDirectory) -> None:
        if directory.health.is_out:
            self._service.directory_out(directory)
        self._on_change(directory)
