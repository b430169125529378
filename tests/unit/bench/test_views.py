"""What the benchmark of the views measures with: its tree, its state, its peer."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Barrier

import pytest

from bench.views.directory_index import Index, build
from bench.views.follow import rates, side_by_side
from bench.views.peers import LocalTree
from bench.views.stage import Sample, View
from bench.views.state import make_state
from bench.views.tree import directory_paths, nodes, rare_name
from gfs.disk import PosixDisk
from gfs.ids import MIB
from master.checking import Problem, check_tables
from master.ledger import Ledger

FILES = 1200


def test_the_state_made_for_views_is_one_that_the_masters_check_finds_whole(
    tmp_path: Path,
) -> None:
    made = make_state(tmp_path, "c", FILES)
    ledger = Ledger(tmp_path, PosixDisk(), "c", segment_bytes=64 * MIB, uid=0, gid=0)
    try:
        problems: list[Problem] = []
        assert check_tables(ledger.state, problems.append)["names"] >= FILES
        assert problems == []
        assert ledger.newest_checkpoint() > FILES
        assert len(made.directories) == len(directory_paths(FILES))
    finally:
        ledger.close()


def test_an_index_of_databases_answers_as_a_walk_of_the_tree_does(tmp_path: Path) -> None:
    tree = LocalTree(tmp_path / "tree", FILES)
    build(tree.path, tmp_path / "index", 2)
    files = [node for node in nodes(FILES) if not node.is_directory]
    part = directory_paths(FILES)[1]
    inside = sum(
        os.lstat(os.path.join(place, name)).st_size
        for place, _, names in os.walk(tree.path / part)
        for name in names
    )
    index = Index(tmp_path / "index", 2)
    try:
        (rare,) = index.names(rare_name(0).decode())
        assert rare.endswith("/needle-000000.xyz")
        assert index.du("") == sum(node.size for node in files)
        assert index.du(part) == inside
        assert [size for size, _ in index.top(3)] == sorted(n.size for n in files)[:-4:-1]
        assert sum(index.sizes().values()) == FILES
    finally:
        index.close()


class FakeView(View):
    """Comes forward by a thousand events with each look; looks wait for those of all others."""

    def __init__(self, name: str, looks: Barrier) -> None:
        self.name = name
        self._looks = looks

    def samples(self, until: Callable[[Sample], bool]) -> Iterator[Sample]:
        for number in range(10):
            self._looks.wait(5.0)
            found = Sample(number * 0.5, number * 100, number * 1000, False, 0.0, 0.0)
            yield found
            if until(found):
                return


def test_views_that_follow_at_the_same_time_are_looked_at_at_the_same_time() -> None:
    """One after the other, the second would be seen only when the first is done."""
    looks = Barrier(2)
    views = [FakeView("search", looks), FakeView("analytics", looks)]
    found = side_by_side(views, lambda sample: sample.position >= 300)
    assert {name: [one.events for one in some] for name, some in found.items()} == {
        "search": [0, 1000, 2000, 3000],
        "analytics": [0, 1000, 2000, 3000],
    }


def test_the_pace_of_views_is_that_of_the_slowest_and_counts_what_all_had() -> None:
    """The quick one is done after a second, the slow one after four; both had 10,000 events.

    The 500 that the slow one had before it moved were for its history alone.
    """
    quick = [(9.0, 70, 0, 0.0, 1.0), (10.0, 90, 2000, 0.1, 1.1), (11.0, 190, 12_000, 0.3, 1.2)]
    slow = [(9.0, 70, 500, 0.1, 1.0), (10.5, 80, 1500, 0.5, 1.1), (14.5, 180, 11_500, 1.5, 1.3)]
    found = {
        name: [Sample(at, place, events, False, *cpu) for at, place, events, *cpu in some]
        for name, some in (("search", slow), ("analytics", quick))
    }
    assert rates(found, 70) == {
        "events_per_s": 2500,
        "stream_cpu_us_per_event": pytest.approx(20.0),
        "search": {"events": 10_000, "cpu_us_per_event": 100.0},
        "analytics": {"events": 10_000, "cpu_us_per_event": 20.0},
    }
