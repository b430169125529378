"""Keeps the loop away from disks that are slow or hang: work waits, or is refused, in memory.

Reads and writes of the page cache are done in the loop, since a thread costs more. On a disk
that has stopped to answer any of them may block for ever, and the loop with it, so once a
directory is known to be slow nothing touches it there: messages about its replicas wait here,
in their order, and are taken up when it answers. If it turns out to hang they are refused.
What the loop was already at when the disk stopped can not be called back: the server then
looks dead to its peers until the disk answers.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

from chunkd.directory import DataDirectory
from chunkd.store import Store
from gfs.errors import Overloaded, StorageFailed
from gfs.ids import MIB
from gfs.messages import Join, Message

HELD_BYTES_MAX = 64 * MIB  # of one directory's messages


class Gate:
    """See the module's text.

    Attributes:
      is_needed: some directory is slow or hangs; else `holds_back` need not be asked.
    """

    def __init__(self, store: Store) -> None:
        self.is_needed = False
        self._store = store
        self._held: defaultdict[DataDirectory, list[Callable[[], None]]] = defaultdict(list)
        self._bytes: defaultdict[DataDirectory, int] = defaultdict(int)

    def holds_back(
        self, message: Message, payload: memoryview | None, take_up: Callable[[], None]
    ) -> bool:
        """Must the message wait? Then `take_up` is called later.

        Raises:
          StorageFailed: its directory hangs.
          Overloaded: too much waits already.
        """
        directory = self._directory_of(message)
        if directory is None:
            return False
        if directory.health.is_hung:
            raise StorageFailed(f"{directory.path} {directory.health.reason}")
        if not directory.health.is_slow:
            return False
        size = len(payload) if payload is not None else 0
        if self._bytes[directory] + size > HELD_BYTES_MAX:
            raise Overloaded(f"{directory.path} is slow and too much waits for it")
        self._bytes[directory] += size
        self._held[directory].append(take_up)
        return True

    def _directory_of(self, message: Message) -> DataDirectory | None:
        handle = getattr(message, "handle", None)
        if handle is None:
            return None
        known = self._store.places.get(handle)
        if known is None and type(message) is Join:
            return self._store.only_slow()  # where its replica would be made
        return known

    def look(self) -> None:
        """The health of a directory has changed: what waits for it goes on if it may."""
        self.is_needed = any(
            directory.health.is_slow or directory.health.is_hung
            for directory in self._store.directories
        )
        for directory in list(self._held):
            if not directory.health.is_slow:
                waiting = self._held.pop(directory)
                self._bytes.pop(directory, None)
                for take_up in waiting:
                    take_up()
