"""Numbers of one view: how far, how fast, how late. For /statistics, /metrics, status."""

from __future__ import annotations

import time
from collections import deque

import trio

from projections.core.following import Batch
from projections.core.rate import Rate

LOOK_S = 1.0  # a heartbeat comes each second
LAGS_KEPT = 4000
LAGS_OF_BATCH = 10  # events of each batch, evenly, the first among them


class Figures:
    """Counters, and what lag is made of. Clock: trio's, unless a name says otherwise."""

    def __init__(self) -> None:
        self.events_total = self.batches_total = self.rebuilds_total = self.retries_total = 0
        self.apply_s_total = 0.0
        self.unapplied_since: float | None = None  # events lie here that the view lacks
        self.idle_since: float | None = None  # nothing was left to apply
        self.heard_at = -1e9
        self._last_ns = 0  # time of the newest record applied
        self._lags_ms: deque[float] = deque(maxlen=LAGS_KEPT)
        self._rate = Rate()

    def applied(self, batch: Batch, seconds: float, *, live: bool) -> None:
        """A batch is in; `live`: its records are new, so that their age is lag."""
        self.apply_s_total += seconds
        self.batches_total += 1
        self.events_total += len(batch.lines)
        self._rate.add(time.monotonic(), len(batch.lines))
        if batch.lines and live:  # what is caught up with after a start is no lag
            self._last_ns = batch.lines[-1].time_ns
            now_ns = time.time_ns()
            some = batch.lines[:: max(1, len(batch.lines) // LAGS_OF_BATCH)]
            self._lags_ms.extend((now_ns - line.time_ns) / 1e6 for line in some)

    def cut_off(self) -> None:
        """Nothing is heard any more: it is not known whether something is missing."""
        self.idle_since = self.unapplied_since = None

    def lag_ms(self, paused_ns: int) -> float:
        """Age of what is not in the view yet; 0 when nothing is known to be missing.

        Of a view that is paused since `paused_ns`, the most that it may be.
        """
        if paused_ns:
            return max(0.0, (time.time_ns() - paused_ns) / 1e6)
        if self.idle_since is not None:
            silent = trio.current_time() - self.heard_at
            return 0.0 if silent < 2 * LOOK_S else silent * 1000
        return max(0.0, (time.time_ns() - self._last_ns) / 1e6) if self._last_ns else -1.0

    def statistics(self) -> dict[str, object]:
        """All but what depends on the view's state."""
        lags = sorted(self._lags_ms)
        return {
            "batch_lag_p50_ms": lags[len(lags) // 2] if lags else 0.0,
            "batch_lag_p99_ms": lags[len(lags) * 99 // 100] if lags else 0.0,
            "events_per_s": round(self._rate.per_s(time.monotonic()), 1),
            "events_total": self.events_total,
            "batches_total": self.batches_total,
            "apply_seconds_total": round(self.apply_s_total, 3),
            "rebuilds_total": self.rebuilds_total,
            "stream_retries_total": self.retries_total,
        }
