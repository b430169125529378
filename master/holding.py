"""What may not leave yet: answers that depend on records no shadow may have.

All that a step lets out is let out together and in order, orders to chunk servers too: a
version that a server has heard of must not be unknown to the next master.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import trio

from master.core.engine import Ready
from master.core.master import Master


class Holding:
    """A queue in front of `release`; passes straight through while there are no shadows."""

    def __init__(self, core: Master, release: Callable[[Ready], None]) -> None:
        self._core = core
        self._release = release
        self._held: deque[tuple[int, bool, Ready]] = deque()
        self._position = core.engine.committed_position

    def release(self, ready: Ready) -> None:
        """Let it out as soon as what was committed up to now may be told."""
        position = self._core.engine.committed_position
        changed, self._position = position > self._position, position
        if not self._held and not self._core.shadows.registered:
            self._release(ready)
            return
        self._held.append((position, changed, ready))
        self.let_go()

    def let_go(self) -> None:
        """Let out what may leave now; call it when that may have changed, and from time to time."""
        core, now_s = self._core, trio.current_time()
        while self._held and core.may_answer(*self._held[0][:2], now_s):
            self._release(self._held.popleft()[2])
