"""How fast a data directory is verified, and how far that has come: pure, chunkd.scrub reads.

A pass over all replicas is to be done in a set period. It runs as slowly as that allows, but
not slower than `RATE_MIN`, and never faster than the bound; if the bound does not suffice it
is *behind*, and says so. A pass that is interrupted goes on where it was, its period running
from its own begin.
"""

from __future__ import annotations

from msgspec import Struct

from gfs.ids import MIB

RATE_MIN = MIB  # bytes a second: hardly to be noticed; small directories are soon done
MARGIN = 0.8  # of the period: what comes up meanwhile must not make it late
NS = 1_000_000_000


class Progress(Struct, array_like=True):
    """What is durable of the scrubbing of one directory. Times are of the wall clock."""

    began_ns: int = 0  # of the pass under way, or waited for; 0: none yet
    after: int = 0  # handles up to this one are done
    blocks: int = 0
    bad: int = 0
    last_began_ns: int = 0  # of the last whole pass; 0: none yet
    last_blocks: int = 0
    last_bad: int = 0
    is_running: bool = False

    def next_pass_ns(self, period_s: float) -> int:
        """When the pass after this one is due."""
        return self.began_ns + int(period_s * NS)

    def begin(self, now_ns: int) -> None:
        self.began_ns, self.after, self.blocks, self.bad = now_ns, 0, 0, 0
        self.is_running = True

    def end(self) -> None:
        """All replicas that were there at the begin have been read, or are gone."""
        self.last_began_ns = self.began_ns
        self.last_blocks, self.last_bad = self.blocks, self.bad
        self.is_running = False


class Pace:
    """The speed of a pass.

    Args:
      period_s: in which it is to be done.
      bytes_per_s_max: the bound.
    """

    def __init__(self, *, period_s: float, bytes_per_s_max: int) -> None:
        self._period_s = period_s
        self._bytes_per_s_max = bytes_per_s_max

    def needed(self, left_bytes: int, passed_s: float) -> float:
        """Bytes a second that would do it in time."""
        return left_bytes / max(self._period_s * MARGIN - passed_s, 1.0)

    def rate(self, left_bytes: int, passed_s: float) -> float:
        """Bytes a second to read at now."""
        wanted = max(self.needed(left_bytes, passed_s), float(RATE_MIN))
        return min(wanted, float(self._bytes_per_s_max))

    def is_behind(self, left_bytes: int, passed_s: float) -> bool:
        """Does the bound not suffice for the period?"""
        left_s = max(self._period_s - passed_s, 0.0)
        return left_bytes > self._bytes_per_s_max * left_s
