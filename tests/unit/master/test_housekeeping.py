"""What the master looks after beside its loop."""

from __future__ import annotations

import stat
import time
from math import inf
from pathlib import Path
from types import SimpleNamespace

import pytest
import trio
import trio.testing

from gfs.disk import PosixDisk
from gfs.ids import MIB, draw
from gfs.items import INODES, Inode
from gfs.records import AnyChange, InodeChange, Record, RecordActor
from master import housekeeping
from master.core.transaction import apply
from master.housekeeping import Housekeeping
from master.ledger import Ledger
from tests.logcheck import ExpectLog


def _ledger(directory: Path) -> Ledger:
    return Ledger(directory, PosixDisk(), "c1", segment_bytes=16_384, uid=0, gid=0)


def _make_files(ledger: Ledger, count: int, now_ns: int = 0) -> None:
    """In one group, that fills a segment."""
    ledger.begin()
    records = []
    answer = bytes(4 * MIB // count)
    for number in range(1, count + 1):
        inode = Inode(stat.S_IFREG | 0o644, 0, 0, 1, 0, number, number, number)
        position = ledger.position + number
        changes: list[AnyChange] = [InodeChange((draw(ledger.epoch, position),), None, inode)]
        actor = RecordActor()
        time_ns = now_ns + number
        record = Record(position, ledger.epoch, time_ns, "create", actor, changes, result=answer)
        records.append(record)
        apply(records[-1], ledger.state)
    ledger.commit_now(records)


async def test_old_damage_in_the_log_is_said_and_a_checkpoint_made_that_needs_none_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, expect_log: ExpectLog
) -> None:
    expect_log("^log[.]damaged record 5 ", times=1)
    expect_log("^state[.]restored", times=1)
    monkeypatch.setattr(housekeeping, "LOG_CHECK_S", 0)
    ledger = _ledger(tmp_path)
    for _ in range(3):
        _make_files(ledger, 10)
    segment = ledger.log._kept.segments[1]  # the first has the start only
    segment.file.pwrite(b"\xff", segment.offset_of(5) + 40)
    ledger.close()

    ledger = _ledger(tmp_path)  # the state is whole and needs nothing of this
    keeping = Housekeeping(ledger, list, checkpoint_records=10**9, retain_bytes=0)
    await keeping._check_log()
    assert "record 5 " in ledger.log_damage
    assert await keeping._checkpoint_if_due(0) == ledger.position
    files = ledger.state.count(INODES)
    ledger.close()

    for path in tmp_path.glob("state.db*"):
        path.unlink()
    ledger = _ledger(tmp_path)
    assert ledger.recovered.checkpoint is not None
    assert ledger.state.count(INODES) == files
    ledger.close()


HOUR_NS = 3_600_000_000_000


NOW_NS = time.time_ns() + 10 * HOUR_NS  # later than the first record of a start


def _age(ledger: Ledger, hours: list[float]) -> list[int]:
    """Segments of ten records that were made so long ago; their first positions."""
    begun = []
    for ago in hours:
        begun.append(ledger.position + 1)
        _make_files(ledger, 10, NOW_NS - int(ago * HOUR_NS))
    return begun


@pytest.mark.parametrize(
    ("retain_s", "retain_bytes", "marks", "kept"),
    [
        (0.0, 10**12, [], 0),  # neither
        (3600.0 * 5, 10**12, [], 2),  # by age: the last record of a segment counts
        (0.0, 1, [], 3),  # by size
        (3600.0 * 5, 1, [], 3),  # beyond either is enough
        (3600.0 * 5, 10**12, [15], 1),  # a live request is not passed
        (0.001, 1, [], 3),  # nor is the second newest checkpoint
    ],
)
async def test_log_goes_by_age_and_size_but_never_what_is_still_needed(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    retain_s: float,
    retain_bytes: int,
    marks: list[int],
    kept: int,
) -> None:
    monkeypatch.setattr(housekeeping, "time", SimpleNamespace(time_ns=lambda: NOW_NS))
    ledger = _ledger(tmp_path)
    begun = _age(ledger, [9, 8, 4])
    keeping = Housekeeping(
        ledger, lambda: marks, checkpoint_records=1, retain_bytes=retain_bytes, retain_s=retain_s
    )
    assert await keeping._checkpoint()
    begun += _age(ledger, [1, 0.5])
    assert await keeping._checkpoint()
    keeping._truncate()
    first = 1 if not kept else begun[kept]
    assert ledger.log.segment_starts()[0] == first
    assert ledger.log.first_position == first
    assert ledger.log.read(first)
    ledger.close()


async def test_where_log_goes_by_age_checkpoints_are_made_by_age_too(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    ledger = _ledger(tmp_path)
    _make_files(ledger, 10)
    for retain_s, expected in ((0.0, 0), (7200.0, ledger.position)):
        keeping = Housekeeping(
            ledger, list, checkpoint_records=10**9, retain_bytes=MIB, retain_s=retain_s
        )
        await trio.sleep(3599)
        assert await keeping._checkpoint_if_due(0) == 0
        await trio.sleep(2)
        autojump_clock.autojump_threshold = inf  # a process is waited for
        assert await keeping._checkpoint_if_due(0) == expected
        autojump_clock.autojump_threshold = 0
    ledger.close()
