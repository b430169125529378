"""Closes told to the master in batches: no close(2) waits for a round trip.

An inode is told when its last handle is gone and it is not kept open (gfs.client.keeping),
and as *written* when its last writing handle is gone and all its commits are answered.
What is opened again before the batch leaves is not told; order on the connection does the
rest. A reconnection declares anew what is open, so nothing here needs an answer; what is
closed while that declaration is on its way waits for its answer.

A writer that has nothing to commit (a file just made, or synced) is told as soon as it
closes, unless others were a moment ago: who looks at the file next on another host need
not wait until the master has asked us for what we do not have.
"""

from __future__ import annotations

import trio

from gfs.client.metadata import MasterLink
from gfs.messages import CloseFiles

BATCH_MAX = 1000
PROMPT_S = 0.005  # a message for each of a thousand files made in a second would be too many


class Closing:
    """Gathers for `CloseFiles`."""

    def __init__(self, link: MasterLink) -> None:
        self._link = link
        self._closed: dict[int, None] = {}
        self._written: dict[int, None] = {}
        self._told_at = -PROMPT_S  # trio's clock

    def opened(self, ino: int, *, writing: bool) -> None:
        """A handle is about to be asked for."""
        self._closed.pop(ino, None)
        if writing:
            self._written.pop(ino, None)

    def closed(self, ino: int) -> None:
        """No handle is left."""
        self._closed[ino] = None
        is_prompt = ino in self._written and trio.current_time() - self._told_at >= PROMPT_S
        if is_prompt or len(self._closed) % BATCH_MAX == 0:
            self.send()

    def written(self, ino: int) -> None:
        """No writing handle is left and nothing waits to be committed."""
        self._written[ino] = None

    def superseded(self) -> None:
        """The session is declared anew: what is closed is simply not in it."""
        self._closed.clear()
        self._written.clear()

    def send(self) -> None:
        """Tell now, or when there is a connection again."""
        if self._closed or self._written:
            message = CloseFiles(list(self._closed), list(self._written))
            if self._link.tell(message):
                self._told_at = trio.current_time()
                self.superseded()
