"""Whether a data directory can be trusted with work: pure; chunkd.watch tells it what happened.

    working --a job runs long--> slow --and longer--> hung --it ends, a probe too--> working
    any     --an error of the disk--> failed --several good probes in a row--> working

Slow: nothing is done in the loop that touches the directory; who asks for it waits. Hung: who
asks is refused, its replicas are taken out of the report. Failed: it takes nothing new and its
replicas do not count, but what can be read of them is served. A directory that has failed
before has to show twice as many good probes each time, so that a dying disk does not come and go.

A full disk is not a failed one, and an unreadable block fails its replica alone; only
`READ_ERRORS_MAX` such replicas fail the directory.
"""

from __future__ import annotations

import enum

SLOW_SHARE = 0.3  # of the time until it counts as hung; a long sync on a busy disk takes less
PROBE_SHARE = 0.5
GOOD_PROBES = 3
READ_ERRORS_MAX = 8


class Stall(enum.IntEnum):
    """How long the oldest job of a directory has been running."""

    NONE = 0
    SLOW = 1
    HUNG = 2


class Health:
    """See the module's text. Times are monotonic seconds; methods say if something changed.

    Args:
      hung_s: a job that runs for so long shows that the disk hangs.

    Attributes:
      failure: the error that failed it, or "".
    """

    def __init__(self, *, hung_s: float = 10.0) -> None:
        self.failure = ""
        self.stall = Stall.NONE
        self._hung_s = hung_s
        self._probe_at_s = 0.0
        self._good = 0
        self._good_needed = GOOD_PROBES
        self._unreadable: set[int] = set()

    @property
    def is_working(self) -> bool:
        """May new chunks be put here?"""
        return not self.failure and self.stall is Stall.NONE

    @property
    def is_hung(self) -> bool:
        return self.stall is Stall.HUNG

    @property
    def is_slow(self) -> bool:
        return self.stall is Stall.SLOW

    @property
    def is_out(self) -> bool:
        """Do its replicas not count?"""
        return bool(self.failure) or self.is_hung

    @property
    def reason(self) -> str:
        """Why it is out, for people; "" if it is not."""
        return "does not answer" if self.is_hung else self.failure

    def failed(self, reason: str) -> bool:
        """The disk refused a write, a sync or a change of names."""
        self._good = 0
        if self.failure:
            return False
        self.failure = reason
        return True

    def unreadable(self, handle: int, reason: str) -> bool:
        """The disk refused to read a replica."""
        self._unreadable.add(handle)
        many = len(self._unreadable)
        return many >= READ_ERRORS_MAX and self.failed(f"{many} replicas unreadable: {reason}")

    def look(self, now_s: float, running_since_s: float | None) -> bool:
        """Time has passed; `running_since_s`: when the oldest job now running began."""
        before = self.stall
        waited_s = 0.0 if running_since_s is None else now_s - running_since_s
        if waited_s >= self._hung_s:
            self.stall = Stall.HUNG
        elif self.stall is not Stall.HUNG:
            is_slow = waited_s >= self._hung_s * SLOW_SHARE
            self.stall = Stall.SLOW if is_slow else Stall.NONE
        return self.stall is not before

    def probe_due(self, now_s: float) -> bool:
        """Is another probe to begin? Call `probed` when it has ended."""
        if now_s < self._probe_at_s:
            return False
        self._probe_at_s = float("inf")
        return True

    def probed(self, now_s: float, error: str) -> bool:
        """A probe has ended; `error` "" if it was good."""
        self._probe_at_s = now_s + self._hung_s * PROBE_SHARE
        if error:
            return self.failed(error)
        was_hung = self.is_hung
        self.stall = Stall.NONE
        self._good += 1
        if self.failure and self._good >= self._good_needed:
            self.failure = ""
            self._good_needed *= 2
            self._unreadable.clear()
            return True
        return was_hung
