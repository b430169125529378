"""Until when cached metadata may be trusted: the lease of the session, on a sleeping machine too.

The lease counts from before its renewal was sent: the master cannot have counted from
earlier. While a machine is suspended trio's clock stands still, and the kernel's; the
master's does not. So a lease from before a suspension is void, and so is all that the
kernel was given a timeout for.

For a lock it only matters whether the session may have ended, so there a suspension counts
as time that has passed (`session_left`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from time import CLOCK_BOOTTIME, CLOCK_MONOTONIC, clock_gettime

import trio

log = logging.getLogger(__name__)

NOTICED_S = 0.05  # of sleep; less may be this process, held up between two readings
WATCH_S = 0.1


def suspended_s() -> float:
    """Seconds of suspension since the boot; only differences mean anything."""
    awake = clock_gettime(CLOCK_MONOTONIC)
    return clock_gettime(CLOCK_BOOTTIME) - awake


class CacheLease:
    """See the module's text.

    Attributes:
      until: trio time at which it ends.
      suspended: the clock of suspensions.
      on_void: called once when a suspension has made it void: drop everything, renew.
    """

    def __init__(self) -> None:
        self.until = float("-inf")
        self.suspended: Callable[[], float] = suspended_s
        self.on_void: Callable[[], None] = _nothing
        self._suspended_before = 0.0  # the lease was asked for
        self._session_until = float("-inf")  # trio time and suspensions together

    def left(self) -> float:
        """Seconds for which cached metadata may be trusted; 0 once the lease is over."""
        left = self.until - trio.current_time()
        if left <= 0:
            return 0.0
        slept_s = self.suspended() - self._suspended_before
        if slept_s <= NOTICED_S:
            return left
        log.info("lease.void slept_s=%.1f", slept_s)
        self.end()
        self.on_void()
        return 0.0

    def session_left(self) -> float:
        """Seconds for which the master cannot have ended the session; <= 0: it may have."""
        return self._session_until - trio.current_time() - self.suspended()

    def ask(self) -> Callable[[float], None]:
        """A request for a lease is about to be sent; call the result with what was granted."""
        sent_at, suspended = trio.current_time(), self.suspended()

        def granted(lease_s: float) -> None:
            self._session_until = max(self._session_until, sent_at + suspended + lease_s)
            if self.suspended() - suspended <= NOTICED_S:
                self.until = sent_at + lease_s
                self._suspended_before = suspended

        return granted

    def end(self) -> None:
        """Nothing may be trusted until the next grant."""
        self.until = float("-inf")

    def session_ended(self) -> None:
        """The master has said so."""
        self.end()
        self._session_until = float("-inf")

    async def watch(self) -> None:
        """Notice a suspension though nobody asks: the kernel answers from its own caches."""
        while True:
            await trio.sleep(WATCH_S)
            self.left()


def _nothing() -> None:
    return None
