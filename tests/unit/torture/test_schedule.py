"""The schedule of faults: enough of each kind, never more than redundancy survives."""

from __future__ import annotations

import pytest

from tests.torture.injector import Done
from tests.torture.run import totals
from tests.torture.schedule import CUTS, Field, Kind, draw

FIELD = Field(5, 3, beside=("projections-search", "shadow"), small_disk="chunkd5")


@pytest.mark.parametrize("seed", range(20))
def test_twenty_minutes_have_the_faults_that_are_asked_for(seed: int) -> None:
    drawn = draw(seed, 1200, FIELD)
    counted = totals([Done(one.kind, one.target, one.at_s, one.until_s) for one in drawn])
    assert counted["kills"] >= 105
    assert counted["hangs"] >= 22
    assert counted["cuts"] >= 12
    assert counted["full disks"] >= 1
    assert counted["flipped bits"] >= 1


@pytest.mark.parametrize("seed", range(20))
def test_at_most_two_chunk_servers_are_away(seed: int) -> None:
    drawn = draw(seed, 1200, FIELD)
    for one in drawn:
        if one.kind in (Kind.FULL, Kind.FLIP):
            continue
        away = {
            other.target
            for other in drawn
            if other.at_s <= one.at_s < other.until_s
            and other.target.startswith("chunkd")
            and other.kind not in (Kind.FULL, Kind.FLIP)
        }
        assert len(away) <= 2, one


def test_same_seed_same_faults() -> None:
    assert draw(7, 300, FIELD) == draw(7, 300, FIELD)
    assert draw(7, 300, FIELD) != draw(8, 300, FIELD)


def test_without_root_there_are_kills_and_hangs_only() -> None:
    kinds = {one.kind for one in draw(1, 1200, Field(5, 3, links=False))}
    assert kinds == {Kind.KILL, Kind.HANG, Kind.FLIP}
    assert not kinds & set(CUTS)
