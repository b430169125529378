"""Events a second, over the last seconds."""

from __future__ import annotations

from collections import deque

WINDOW_S = 10.0


class Rate:
    """A count over a sliding window; times are of one monotonic clock, in seconds."""

    def __init__(self, window_s: float = WINDOW_S) -> None:
        self._window_s = window_s
        self._counts: deque[tuple[float, int]] = deque()
        self._sum = 0

    def add(self, now: float, count: int) -> None:
        """So many happened."""
        self._counts.append((now, count))
        self._sum += count
        self._forget(now)

    def per_s(self, now: float) -> float:
        """How many a second happened in the window that ends now."""
        self._forget(now)
        return self._sum / self._window_s

    def _forget(self, now: float) -> None:
        while self._counts and self._counts[0][0] <= now - self._window_s:
            self._sum -= self._counts.popleft()[1]
