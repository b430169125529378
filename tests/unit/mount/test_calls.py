"""Paths told of inodes, and counts of requests, for whoever watches a mount."""

from __future__ import annotations

from mount.core.calls import PLACES_MAX, ROOT, Count, Counts, Places


def test_a_path_is_told_as_far_up_as_names_are_known() -> None:
    places = Places()
    places.learn(7, b"c", 8)
    assert places.path(8, b"d") == b"<7>/c/d"
    assert not places.knows(8)
    places.learn_all([(ROOT, b"a", 6), (6, b"b\xff", 7)])
    assert places.path(8, b"d") == b"/a/b\xff/c/d"
    assert places.knows(8)
    assert places.path(ROOT) == b"/"
    assert places.path(ROOT, b"x") == b"/x"
    assert places.path(99) == b"<99>"


def test_the_last_name_heard_counts_and_a_circle_ends() -> None:
    places = Places()
    places.learn(ROOT, b"old", 5)
    places.learn(ROOT, b"new", 5)
    assert places.path(5) == b"/new"
    places.learn(6, b"x", 5)
    places.learn(5, b"y", 6)  # heard of at different times
    assert places.path(6).startswith(b"<")


def test_names_are_kept_in_bounded_number() -> None:
    places = Places()
    places.learn_all((ROOT, b"%d" % number, number + 2) for number in range(PLACES_MAX + 1))
    assert places.path(2) == b"<2>"
    assert places.path(PLACES_MAX + 2) == b"/%d" % PLACES_MAX


def test_counts_begin_anew_when_taken() -> None:
    counts = Counts()
    counts.add("read", 100, 4096, failed=False)
    counts.add("read", 300, -1, failed=True)
    counts.add("lookup", 5, -1, failed=False)
    assert counts.take() == {
        "read": Count(calls=2, errors=1, bytes=4096, us=400, us_max=300),
        "lookup": Count(calls=1, us=5, us_max=5),
    }
    assert counts.take() == {}
