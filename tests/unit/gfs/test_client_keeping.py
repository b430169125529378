"""What a client keeps open: how much, how long, and by what it may open it again."""

from __future__ import annotations

import os
import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gfs.client.keeping import BREAKS_MAX, BREAKS_S, IDLE_S, KeptOpens, is_plain, may_read
from gfs.items import Inode
from gfs.messages import Access, Actor
from gfs.open_flags import O_NOATIME

FILE = stat.S_IFREG


def inode(mode: int, uid: int = 1, gid: int = 10) -> Inode:
    return Inode(mode, uid, gid, 1, 0, 0, 0, 0)


def test_the_longest_unused_goes_when_there_are_too_many() -> None:
    kept = KeptOpens(limit=2)
    assert kept.keep(1, 0.0) == kept.keep(2, 0.0) == kept.keep(1, 1.0) == []
    assert kept.keep(3, 2.0) == [2]
    assert [ino in kept for ino in (1, 2, 3)] == [True, False, True]


def test_what_is_not_opened_again_for_long_is_not_kept() -> None:
    kept = KeptOpens()
    kept.keep(1, 0.0)
    kept.keep(2, 1.0)
    kept.keep(1, 2.0)
    assert kept.take_idle(IDLE_S) == []
    assert kept.take_idle(IDLE_S + 1.5) == [2]
    assert kept.take_idle(IDLE_S + 2.0) == [1]
    assert len(kept) == 0


def test_who_is_asked_for_many_in_a_second_keeps_nothing() -> None:
    kept = KeptOpens()
    for ino in range(100):
        kept.keep(ino, 0.0)
    for ino in range(BREAKS_MAX - 1):
        assert kept.take_broken([ino], 0.5) == [ino]
        assert kept.take_broken([ino], 0.5) == []  # nothing was kept, and that does not count
    assert kept.take_broken([99], 0.5 + BREAKS_S + 0.1) == [99]
    assert len(kept) == 100 - BREAKS_MAX
    for ino in range(20, 20 + BREAKS_MAX - 2):
        assert kept.take_broken([ino], 2.0) == [ino]
    left = len(kept)
    assert len(kept.take_broken([98], 2.0)) == left
    assert len(kept) == 0


@given(st.lists(st.tuples(st.sampled_from(["keep", "take", "idle"]), st.integers(1, 6))))
def test_each_is_taken_once_for_each_time_it_was_kept(steps: list[tuple[str, int]]) -> None:
    """Whoever takes it opens it again or tells its close: never both, never neither."""
    kept, model, now = KeptOpens(limit=3), dict[int, float](), 0.0
    for step, number in steps:
        now += number * IDLE_S / 8
        if step == "keep":
            gone = kept.keep(number, now)
            model.pop(number, None)
            model[number] = now
            assert gone == ([] if len(model) <= 3 else [next(iter(model))])
            for ino in gone:
                del model[ino]
        elif step == "take":
            assert kept.take(number) == (model.pop(number, None) is not None)
        else:
            idle = [ino for ino, since in model.items() if since <= now - IDLE_S]
            assert kept.take_idle(now) == idle
            for ino in idle:
                del model[ino]
    assert kept.take_some([6, 5, 4]) == [ino for ino in (6, 5, 4) if ino in model]
    assert kept.take_all() == [ino for ino in model if ino < 4]


@pytest.mark.parametrize(
    ("mode", "actor", "may"),
    [
        (0o600, Actor(1, 0), True),
        (0o066, Actor(1, 10), False),
        (0o040, Actor(2, 10), True),
        (0o004, Actor(2, 10), False),
        (0o004, Actor(2, 20), False),  # unless a supplementary group forbids it: ask
        (0o040, Actor(2, 20), False),
        (0o044, Actor(2, 20), True),
        (0o040, Actor(2, 20, groups=(10,)), True),
        (0o000, Actor(0, 0), True),
    ],
)
def test_only_what_is_certainly_allowed_is_opened_here(mode: int, actor: Actor, may: bool) -> None:
    assert may_read(inode(FILE | mode), actor, os.O_RDONLY) == may


@pytest.mark.parametrize("flags", [os.O_WRONLY, os.O_RDWR, os.O_RDONLY | os.O_TRUNC])
def test_what_may_change_the_file_is_asked(flags: int) -> None:
    assert not may_read(inode(FILE | 0o777), Actor(0, 0), flags)


def test_ways_of_reading_are_alike_and_directories_are_asked_for() -> None:
    for flags in (os.O_NONBLOCK, O_NOATIME, os.O_DIRECT):
        assert may_read(inode(FILE | 0o444), Actor(1, 1), flags)
    assert not may_read(inode(stat.S_IFDIR | 0o777), Actor(0, 0), os.O_RDONLY)


@pytest.mark.parametrize(
    ("limits", "plain"),
    [
        ([], True),
        ([Access(read_only=True), Access()], True),
        ([Access(), Access(subtree=b"/d")], False),
        ([Access(squash="root")], False),
        ([Access(map_uid=[(1, 2, 1)])], False),
    ],
)
def test_whom_the_master_takes_for_another_asks_it(limits: list[Access], plain: bool) -> None:
    assert is_plain(limits) == plain
