"""What the master looks after beside its loop."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

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


def _make_files(ledger: Ledger, count: int) -> None:
    """In one group, that fills a segment."""
    ledger.begin()
    records = []
    answer = bytes(4 * MIB // count)
    for number in range(1, count + 1):
        inode = Inode(stat.S_IFREG | 0o644, 0, 0, 1, 0, number, number, number)
        position = ledger.position + number
        changes: list[AnyChange] = [InodeChange((draw(ledger.epoch, position),), None, inode)]
        actor = RecordActor()
        record = Record(position, ledger.epoch, number, "create", actor, changes, result=answer)
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
