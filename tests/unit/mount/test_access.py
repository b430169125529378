"""When reading sets an access time, what is told of it, and what is shown meanwhile."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from gfs.items import Inode
from gfs.messages import AccessTime
from mount.core import access
from mount.core.access import DAY_NS, AccessTimes

INO = 7
NOW = 1_000 * DAY_NS


def inode(*, atime_ns: int = NOW, mtime_ns: int = NOW, ctime_ns: int = NOW) -> Inode:
    return Inode(0o100644, 0, 0, 1, 0, atime_ns, mtime_ns, ctime_ns)


def told(times: AccessTimes) -> list[tuple[int | None, int]]:
    return [(one.seen_ns, one.atime_ns) for one in times.take(100)]


def read(image: Inode | None, now_ns: int, *, written_ns: int = 0) -> list[tuple[int | None, int]]:
    times = AccessTimes()
    times.read(INO, image, now_ns, written_ns=written_ns)
    return told(times)


def test_first_read_after_a_change_counts_and_the_next_ones_do_not() -> None:
    times, image = AccessTimes(), inode()
    times.read(INO, image, NOW + 5)
    times.read(INO, image, NOW + 6)
    assert told(times) == [(NOW, NOW + 5)]
    times.read(INO, image, NOW + 7)
    assert told(times) == [], "it is on its way"
    times.read(INO, replace(image, atime_ns=NOW + 5), NOW + 8)
    assert told(times) == []


@pytest.mark.parametrize(
    "changed", [{"mtime_ns": NOW + 10}, {"ctime_ns": NOW + 10}, {"atime_ns": NOW + 20 - DAY_NS}]
)
def test_relatime_is_by_content_by_attributes_and_by_the_day(changed: dict[str, int]) -> None:
    image = replace(inode(atime_ns=NOW + 5), **changed)
    assert read(image, NOW + 20) == [(image.atime_ns, NOW + 20)]


def test_what_this_mount_has_written_and_not_committed_is_a_change() -> None:
    image = inode(atime_ns=NOW + 5)
    assert read(image, NOW + 20) == []
    assert read(image, NOW + 20, written_ns=NOW + 10) == [(NOW + 5, NOW + 20)]


def test_a_clock_behind_the_masters_does_not_read_before_the_change() -> None:
    assert read(inode(), NOW - 50) == [(NOW, NOW + 1)]


def test_of_what_is_not_known_the_master_judges() -> None:
    assert read(None, NOW) == [(None, NOW)]


def test_every_read_counts_with_strictatime_and_none_with_noatime() -> None:
    image = inode(atime_ns=NOW + 5)
    strict, none = AccessTimes("strictatime"), AccessTimes("noatime")
    for times in (strict, none):
        times.read(INO, image, NOW + 20)
        times.read(INO, image, NOW + 30)
    assert told(strict) == [(NOW + 5, NOW + 30)], "as the first reader saw it"
    assert told(none) == []


def test_callers_see_it_before_the_master_knows() -> None:
    times, image = AccessTimes(), inode()
    times.read(INO, image, NOW + 5)
    assert times.shown(INO, image) == NOW + 5
    assert times.shown(INO + 1, image) == NOW
    batch = times.take(100)
    assert times.shown(INO, image) == NOW + 5, "it is on its way"
    times.told(batch)
    assert times.shown(INO, image) == NOW
    assert not times.waiting


def test_a_time_that_somebody_set_is_shown_as_it_is() -> None:
    times, image = AccessTimes(), inode()
    times.read(INO, image, NOW + 5)
    assert times.shown(INO, replace(image, atime_ns=3)) == 3, "elsewhere"
    times.forget(INO)  # here
    assert times.shown(INO, image) == NOW
    assert told(times) == []


def test_a_read_while_one_is_on_its_way_is_told_after_it() -> None:
    times, image = AccessTimes("strictatime"), inode()
    times.read(INO, image, NOW + 5)
    first = times.take(1)
    times.read(INO, image, NOW + 9)
    assert times.shown(INO, image) == NOW + 9
    times.told(first)
    assert times.shown(INO, replace(image, atime_ns=NOW + 5)) == NOW + 9
    assert times.take(1) == [AccessTime(INO, NOW + 5, NOW + 9)]


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "WAITING_MAX", 2)
    times = AccessTimes()
    for ino in (1, 2, 3):
        times.read(ino, inode(), NOW)
    assert [one.ino for one in times.take(1)] == [1]
    assert [one.ino for one in times.take(5)] == [2]
