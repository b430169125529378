"""How fast blocks are verified: within period and bound, and honest where that cannot be."""

from __future__ import annotations

import pytest

from chunkd.core.scrubbing import NS, RATE_MIN, Pace, Progress
from gfs.ids import GIB, MIB

DAY_S = 86_400.0


@pytest.mark.parametrize("total", [10 * MIB, 50 * GIB, 4000 * GIB])
def test_a_pass_that_can_be_done_in_its_period_is(total: int) -> None:
    pace = Pace(period_s=7 * DAY_S, bytes_per_s_max=32 * MIB)
    assert not pace.is_behind(total, 0)
    left, now_s = float(total), 0.0
    while left > 0:
        rate = pace.rate(int(left), now_s)
        assert RATE_MIN <= rate <= 32 * MIB
        left, now_s = left - rate * 3600, now_s + 3600
    assert now_s <= 7 * DAY_S


def test_a_pass_interrupted_for_days_catches_up() -> None:
    pace = Pace(period_s=7 * DAY_S, bytes_per_s_max=32 * MIB)
    total = 3000 * GIB
    assert pace.rate(total, 4 * DAY_S) > pace.rate(total, 0)


def test_what_the_bound_does_not_allow_is_said() -> None:
    pace = Pace(period_s=DAY_S, bytes_per_s_max=MIB)
    assert pace.is_behind(int(DAY_S) * MIB + 1, 0)
    assert not pace.is_behind(int(DAY_S) * MIB, 0)
    assert pace.is_behind(int(DAY_S) * MIB, 60)
    assert pace.rate(100 * GIB, 0) == MIB
    assert pace.rate(100 * GIB, 2 * DAY_S) == MIB, "late, it goes on at the bound"


def test_what_was_verified_counts_from_the_begin_of_a_whole_pass() -> None:
    """What was written behind the reader's back during the pass may be older than it."""
    progress = Progress()
    progress.begin(5 * NS)
    progress.after, progress.blocks, progress.bad = 9, 100, 1
    assert progress.last_began_ns == 0
    progress.end()
    assert (progress.last_began_ns, progress.last_blocks, progress.last_bad) == (5 * NS, 100, 1)
    assert progress.next_pass_ns(10) == 15 * NS
    progress.begin(15 * NS)
    assert (progress.after, progress.blocks, progress.last_blocks) == (0, 0, 100)
