"""Layouts that a process keeps: what it commits itself is entered, the rest is asked for again."""

from __future__ import annotations

import random

import pytest

from gfs.client.layouts import WINDOW_BYTES, FileLayout, LayoutCache
from gfs.items import Extent
from gfs.messages import LaidOut, Layout

INO = 7
Places = dict[int, tuple[int, int]]  # byte of the file -> chunk, offset there


def laid(file_offset: int, length: int, handle: int, chunk_offset: int = 0) -> LaidOut:
    return LaidOut(file_offset, Extent(length, handle, chunk_offset))


def places(layout: FileLayout, start: int, end: int) -> Places:
    """Where each byte lies; no byte twice."""
    found: Places = {}
    for span in layout.spans(start, end):
        for at in range(span.length):
            assert span.start + at not in found
            found[span.start + at] = (span.handle, span.chunk_offset + at)
    return found


@pytest.mark.parametrize("seed", range(5))
def test_commits_lie_over_what_was_there_in_their_order(seed: int) -> None:
    choose = random.Random(seed)
    layout, model = FileLayout([], complete=True, version=0), Places()
    for version in range(1, 30):
        ranges = [
            laid(choose.randrange(300), choose.randrange(1, 60), version, choose.randrange(90))
            for _ in range(choose.randrange(1, 6))
        ]
        later = layout.committed(ranges)
        assert later is not None
        assert later.version == version
        assert places(layout, 0, 400) == model  # whoever reads by the old one is not disturbed
        for one in ranges:
            for at in range(one.extent.length):
                where = (one.extent.handle, one.extent.chunk_offset + at)
                model[one.file_offset + at] = where
        layout = later
        assert places(layout, 0, 400) == model
        assert places(layout, 100, 200) == {k: v for k, v in model.items() if 100 <= k < 200}


def test_what_is_committed_in_an_unknown_window_is_asked_for_with_it() -> None:
    layout = FileLayout([], complete=False, version=3)
    layout.add_window(0, [laid(0, 100, 1)])
    later = layout.committed([laid(50, 10, 2), laid(WINDOW_BYTES, 10, 2, 10)])
    assert later is not None
    assert later.missing(0, WINDOW_BYTES) == []
    assert later.missing(WINDOW_BYTES, WINDOW_BYTES + 1) == [1]
    assert later.spans(WINDOW_BYTES, WINDOW_BYTES + 10) == []
    assert places(later, 45, 65) == {
        **{at: (1, at) for at in (*range(45, 50), *range(60, 65))},
        **{50 + at: (2, at) for at in range(10)},
    }
    assert layout.committed([laid(WINDOW_BYTES - 5, 10, 2)]) is None


def cache_of(version: int) -> LayoutCache:
    cache = LayoutCache()
    layout = FileLayout([laid(0, 100, 1)], complete=True, version=version)
    cache.keep(INO, layout, 10, asked=0)
    return cache


def test_a_commit_on_top_of_what_is_known_is_entered_and_older_answers_are_not_kept() -> None:
    cache = cache_of(4)
    cache.committed(INO, [laid(0, 10, 2)], 5, 20)
    kept = cache.get(INO)
    assert kept is not None
    assert places(kept, 0, 12) == {**{at: (2, at) for at in range(10)}, 10: (1, 10), 11: (1, 11)}
    answer = Layout(19, 4, 100, [laid(0, 100, 1)], [])
    assert cache.keep_window(INO, 0, answer, asked=0) is not kept
    assert cache.get(INO) is kept


@pytest.mark.parametrize(("ranges", "version"), [([laid(0, 10, 2)], 6), (None, 5)])
def test_who_may_have_missed_something_forgets_the_layout(
    ranges: list[LaidOut] | None, version: int
) -> None:
    cache = cache_of(4)
    cache.committed(INO, ranges, version, 20)
    assert cache.get(INO) is None


def test_a_layout_of_older_content_is_forgotten() -> None:
    cache = cache_of(4)
    assert cache.get(INO, 4) is not None
    assert cache.get(INO, 5) is None
    assert cache.get(INO) is None


@pytest.mark.parametrize(("version", "kept"), [(3, 1), (5, 2)])
def test_answers_about_two_contents_do_not_mix(version: int, kept: int) -> None:
    """The one asked for is read by, the newer one remembered, though nobody told of a change."""
    cache = LayoutCache()
    cache.keep_window(INO, 0, Layout(10, 4, 100, [laid(0, 100, 1)], []), asked=0)
    second = laid(WINDOW_BYTES, 100, 2)
    found = cache.keep_window(INO, 1, Layout(11, version, 2**30, [second], []), asked=0)
    assert found.spans(0, 10) == []
    assert [span.handle for span in found.spans(WINDOW_BYTES, WINDOW_BYTES + 1)] == [2]
    remembered = cache.get(INO)
    assert remembered is not None
    assert [span.handle for span in remembered.spans(0, 2 * WINDOW_BYTES)] == [kept]
