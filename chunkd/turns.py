"""Messages of a replica that is being written in a thread: they wait their turn.

What the machine decides about an append counts from the end of the one before it, so
while the bytes of one are on their way to the disk nothing else that moves the replica
is looked at. Reads go on: they see what has been entered.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import trio

from gfs.messages import Append, Join, Message, RecordAppend, Sync

_MOVING = (Append, Sync, RecordAppend, Join)


class Turns:
    """One write at a time a replica, and what came behind it, in order."""

    def __init__(self) -> None:
        self._waiting: dict[int, deque[Callable[[], None]]] = {}  # of replicas being written
        self._ended: dict[int, trio.Event] = {}  # somebody waits for this write

    @property
    def is_needed(self) -> bool:
        """Is any replica being written? Else `holds_back` need not be asked."""
        return bool(self._waiting)

    def holds_back(self, message: Message, take_up: Callable[[], None]) -> bool:
        """Must the message wait? Then `take_up` is called when its turn has come."""
        if not isinstance(message, _MOVING):
            return False
        waiting = self._waiting.get(message.handle)
        if waiting is None:
            return False
        waiting.append(take_up)
        return True

    def begin(self, handle: int) -> None:
        """A write of this replica goes to a thread; `end` it."""
        self._waiting[handle] = deque()

    def end(self, handle: int) -> None:
        """It is done: take up what waits, as far as the next write."""
        waiting = self._waiting.pop(handle)
        ended = self._ended.pop(handle, None)
        if ended is not None:
            ended.set()
        while waiting:
            waiting.popleft()()
            begun = self._waiting.get(handle)
            if begun is not None:
                begun.extend(waiting)
                return

    async def quiet(self, handle: int) -> None:
        """Return when the write that is under way, if any, has ended."""
        if handle in self._waiting:
            await self._ended.setdefault(handle, trio.Event()).wait()
