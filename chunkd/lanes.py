"""Threads for disk work, a set for each data directory: a disk that hangs stops no other's.

Of each set it is known since when its oldest short job has been running: by that a disk
that hangs is told from one that has nothing to do.
"""

from __future__ import annotations

from collections.abc import Sequence

from chunkd.directory import DataDirectory
from chunkd.workers import Workers

SYNC_THREADS, WRITE_THREADS, READ_THREADS, ORDER_THREADS = 4, 2, 2, 2


class Lane:
    """The threads of one directory.

    Attributes:
      sync: fdatasync and write-out of what grows.
      write: what goes around the page cache.
      read: long reads that somebody waits for.
      check: whole replicas, verified.
      scrub: every block, in the background.
      order: what the master ordered: fences, seals, copies, deletions.
      probe: looks whether the disk answers.
    """

    def __init__(self, name: str) -> None:
        self.sync = Workers(f"sync-{name}", SYNC_THREADS)
        self.write = Workers(f"write-{name}", WRITE_THREADS)
        self.read = Workers(f"read-{name}", READ_THREADS)
        self.check = Workers(f"check-{name}", 1)
        self.scrub = Workers(f"scrub-{name}", 1, background=True)
        self.order = Workers(f"order-{name}", ORDER_THREADS)
        self.probe = Workers(f"probe-{name}", 1)

    @property
    def all(self) -> tuple[Workers, ...]:
        return (
            self.sync, self.write, self.read, self.check, self.scrub, self.order, self.probe,
        )  # fmt: skip

    def running_since_s(self) -> float | None:
        """When the oldest job now running began, by the monotonic clock; None: none runs.

        Only of those that ask the disk for one thing: a check or an order may well take long.
        """
        short = (self.sync, self.write, self.read, self.scrub, self.probe)
        return min(filter(None, (workers.running_since_s() for workers in short)), default=None)


class Lanes:
    """All lanes of a server. Create within a trio run; `stop` them at the end."""

    def __init__(self, directories: Sequence[DataDirectory]) -> None:
        self._lanes = {directory: Lane(str(number)) for number, directory in enumerate(directories)}

    def of(self, directory: DataDirectory) -> Lane:
        return self._lanes[directory]

    def stop(self) -> None:
        """Let the threads end after the jobs they have."""
        for lane in self._lanes.values():
            for workers in lane.all:
                workers.stop()
