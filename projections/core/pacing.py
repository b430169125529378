"""How soon after one batch the next begins, of a view that somebody asks.

A batch has a price of its own, whatever its size, so a crowd of events waits for more; but
where that price is small nobody is served by waiting. It is one of processor time: to wait longer
because others have the processors would only add to their delay.
"""

from __future__ import annotations

SHARE = 2 / 5  # of one processor that applying may take, while events come in all the time
WEIGHT = 1 / 4  # of the last batch, among those before: one slow commit is not yet a slow view


class Pace:
    """Of one view."""

    def __init__(self, longest_s: float) -> None:
        self._longest_s = longest_s
        self._cost_s = longest_s  # of a batch

    def took(self, seconds: float) -> None:
        """So much processor time a batch took."""
        self._cost_s += (seconds - self._cost_s) * WEIGHT

    @property
    def period_s(self) -> float:
        """From the begin of one batch to that of the next."""
        return min(self._longest_s, self._cost_s / SHARE)
