"""How soon after one batch a view begins the next."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest
import trio
from trio.testing import MockClock

from projections.core.pacing import Pace
from projections.search_view import SearchView
from projections.stream_source import Pump, StreamSource
from projections.worker import CROWD, View
from tests.unit.projections.views import config


def test_applying_takes_two_fifths_of_the_time_at_most_until_that_is_too_long() -> None:
    pace = Pace(0.05)
    assert pace.period_s == 0.05  # nothing is known yet
    for _ in range(50):
        pace.took(0.005)
    assert pace.period_s == pytest.approx(0.0125, rel=0.01)
    for _ in range(50):
        pace.took(1.0)
    assert pace.period_s == 0.05


def test_one_slow_batch_does_not_make_a_view_slow() -> None:
    pace = Pace(5.0)
    for _ in range(50):
        pace.took(0.01)
    pace.took(0.1)
    assert pace.period_s < 0.1
    for _ in range(10):
        pace.took(0.01)
    assert pace.period_s < 0.04


class Waiting:
    """A pump with events, which nobody takes; the last came just now."""

    def __init__(self, pending: int = 1) -> None:
        self.pending = pending
        self.heard_at = trio.current_time()


@pytest.mark.parametrize(
    ("cost_s", "asked", "waits_s"), [(0.004, 1, 0.01), (9, 1, 0.05), (0.004, 0, 1)]
)
async def test_what_is_quickly_applied_waits_little_when_somebody_asks(
    tmp_path: Path, autojump_clock: MockClock, cost_s: float, asked: bool, waits_s: float
) -> None:
    values = config(tmp_path, batch_s=0.05, unasked_s=1.0)
    view = View(SearchView(values), values, StreamSource("http://x", "", None))
    for _ in range(50):
        view.pace.took(cost_s)
    if asked:
        view.ask()
    began = trio.current_time()
    await view._gather(cast(Pump, Waiting()), began)
    assert trio.current_time() - began == pytest.approx(waits_s, rel=0.01)


@pytest.mark.parametrize(("pending", "waits_s"), [(CROWD - 1, 1.0), (CROWD, 0.1)])
async def test_a_crowd_that_nobody_asks_for_waits_only_while_more_may_come(
    tmp_path: Path, autojump_clock: MockClock, pending: int, waits_s: float
) -> None:
    """At the end of a backlog; each 0.05 s it is looked whether something came."""
    values = config(tmp_path, batch_s=0.05, unasked_s=1.0)
    view = View(SearchView(values), values, StreamSource("http://x", "", None))
    began = trio.current_time()
    await view._gather(cast(Pump, Waiting(pending)), began)
    assert trio.current_time() - began == pytest.approx(waits_s, rel=0.01)
