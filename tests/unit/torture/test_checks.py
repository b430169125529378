"""The checkers of a torture find what they are there for, each on a small example."""

from __future__ import annotations

import errno
from pathlib import Path

import apsw

from gfs.disk import PosixDisk
from gfs.ids import MIB
from master.ledger import Ledger
from tests.torture import judge
from tests.torture.checks import check_replay
from tests.torture.content import file_of, landed, line_of, seed_of
from tests.torture.expected import (
    Expected,
    Life,
    Slow,
    Trouble,
    Written,
    names_differ,
    records_differ,
)
from tests.torture.injector import Done
from tests.torture.schedule import Kind

LINES = [line_of("a", 0, number) for number in range(5)]


def test_a_whole_file_is_known_and_any_other_is_not() -> None:
    content = file_of(7, 5000)
    assert seed_of(content) == 7
    flipped = bytearray(content)
    flipped[3000] ^= 1
    for wrong in (content[:-1], content + b"x", bytes(flipped), b"", bytes(5000)):
        assert seed_of(wrong) is None


def test_a_whole_log_is_counted_by_life() -> None:
    later = [line_of("a", 1, 0), line_of("b", 0, 0)]
    assert landed(b"".join(LINES + later)) == ({("a", 0): 5, ("a", 1): 1, ("b", 0): 1}, [])


def test_torn_doubled_missing_and_reordered_records_are_found() -> None:
    for lines in (
        [*LINES[:2], LINES[2][:-9], *LINES[3:]],
        [*LINES, LINES[4]],
        [*LINES[:2], *LINES[3:]],
        [LINES[1], LINES[0], *LINES[2:]],
        [line_of("a", 1, 0), *LINES],
        [*LINES[:2], b"\0" * 40 + b"\n", *LINES[2:]],
    ):
        assert landed(b"".join(lines))[1]


def test_an_acknowledged_record_that_is_not_there_is_found() -> None:
    life = Life("log", "a", 0, 1, written=5, acknowledged=3)
    assert records_differ([life], {("a", 0): 3}, "log") == []
    assert records_differ([life], {("a", 0): 6}, "log") == []  # the one that failed has landed
    assert len(records_differ([life], {("a", 0): 2}, "log")) == 1
    assert len(records_differ([life], {("a", 0): 7}, "log")) == 1
    assert len(records_differ([life], {("a", 0): 3, ("b", 0): 1}, "log")) == 1
    assert records_differ([life], {}, "other") == []


def test_names_lost_made_up_and_half_renamed_are_found() -> None:
    known = Expected(files={"w/f": None}, directories={"w"}, maybe={"w/t"}, either=[("w/a", "w/b")])
    right = {"w": True, "w/f": False, "w/b": False}
    assert names_differ(known, right) == []
    assert names_differ(known, right | {"w/t": True, "w/t/x": False}) == []
    for wrong in (
        {"w": True, "w/b": False},
        right | {"w/f": True},
        right | {"w/g": False},
        right | {"w/a": False},
        {"w": True, "w/f": False},
    ):
        assert len(names_differ(known, wrong)) == 1


def test_only_what_was_done_to_the_mount_itself_excuses_a_failed_call() -> None:
    known = Expected(failed=[Trouble(100.0, 2, "write", errno.EIO)])
    for excuse in (Done(Kind.KILL, "mount2", 99.0, 99.5), Done(Kind.CUT, "mount2", 80.0, 90.0)):
        assert judge.unexcused(known, [excuse]) == []
    for none in (
        Done(Kind.KILL, "mount1", 99.0, 101.0),
        Done(Kind.KILL, "master", 99.0, 101.0),
        Done(Kind.KILL, "mount2", 60.0, 61.0),
        Done(Kind.KILL, "mount2", 110.0, 111.0),
    ):
        assert len(judge.unexcused(known, [none])) == 1


def test_what_was_fsynced_is_never_excused() -> None:
    killed = [Done(Kind.KILL, "mount1", 50.0, 51.0)]
    assert judge.excused_by_loss(Written(1, 100, 1, 48.0), killed)
    assert not judge.excused_by_loss(Written(1, 100, 1, 20.0), killed)
    assert not judge.excused_by_loss(Written(1, 100, 2, 48.0), killed)
    assert not judge.excused_by_loss(Written(1, 100), killed)


def test_a_stall_is_told_with_the_one_fault_that_was_felt() -> None:
    kill = Done(Kind.KILL, "chunkd1", 10.0, 11.0)
    hang = Done(Kind.HANG, "master", 30.0, 31.0)
    own = Done(Kind.HANG, "mount1", 50.0, 55.0)
    slow = [
        Slow("write", 1, 10.2, 0.4),
        Slow("write", 1, 10.9, 0.2),
        Slow("fsync", 2, 9.0, 21.5),
        Slow("append", 1, 49.0, 6.0),
        Slow("append", 1, 80.0, 0.05),
    ]
    assert judge.stalls(slow, [kill, hang, own]) == {
        "chunk server killed": 0.4,
        "nothing": 0.05,
        "several at once": 21.5,
    }


def test_a_state_that_is_not_the_replay_of_its_log_is_found(tmp_path: Path) -> None:
    for _ in range(3):  # three epochs, a record each
        ledger = Ledger(tmp_path, PosixDisk(), "c", segment_bytes=MIB, uid=0, gid=0)
        ledger.close()
    assert check_replay(tmp_path, "c") == []
    connection = apsw.Connection(str(tmp_path / "state.db"))
    connection.execute("DELETE FROM inodes WHERE k0 = 1")
    connection.close()
    assert len(check_replay(tmp_path, "c")) == 1
