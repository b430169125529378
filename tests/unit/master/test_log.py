"""The operation log: order, torn tails, damage, full disks, retention, other processes."""

from __future__ import annotations

import errno
import itertools
import sys
import threading
from pathlib import Path

import pytest

from gfs import errors
from gfs.disk import Disk, PosixDisk
from gfs.ids import MIB
from master.log import OperationLog
from master.log_reader import CommittedPosition, LogReader
from master.segments import (
    BODY,
    HEADER_BYTES,
    SPARE_NAME,
    LogDamaged,
    LogRecord,
    Truncated,
    name_of,
)
from tests.sim.disk import SimDisk

ROOT = Path("/log")
SEGMENT = HEADER_BYTES + 16_384
STEP = 4096


def _log(disk: Disk, root: Path = ROOT, *, applied: int = 0, cluster: str = "c1") -> OperationLog:
    log = OperationLog(root, disk, cluster, segment_bytes=SEGMENT, step_bytes=STEP)
    log.recover(applied)
    return log


def _payload(position: int) -> bytes:
    return b"record %d " % position * (position % 40)


def _fill(log: OperationLog, count: int, *, epoch: int = 1, group: int = 3) -> None:
    for start in range(0, count, group):
        base = log.last_position + 1
        records = [(base + n, _payload(base + n)) for n in range(min(group, count - start))]
        log.append(epoch, records)
        log.sync()


def _check(log: OperationLog, first: int, last: int) -> None:
    assert log.last_position == last
    records = list(log.scan(first))
    assert [record.position for record in records] == list(range(first, last + 1))
    assert all(record.payload == _payload(record.position) for record in records)


def test_records_come_back_in_order_over_many_segments(tmp_path: Path) -> None:
    log = _log(PosixDisk(), tmp_path / "log")
    _fill(log, 500)
    _check(log, 1, 500)
    assert log.statistics().segments > 3
    assert log.read(77) == (1, _payload(77))
    log.close()
    again = _log(PosixDisk(), tmp_path / "log", applied=500)
    _check(again, 1, 500)
    _fill(again, 100, epoch=2)
    _check(again, 450, 600)
    assert [again.epoch_at(position) for position in (500, 501)] == [1, 2]
    again.close()


def test_positions_must_follow_and_epochs_must_not_go_back() -> None:
    log = _log(SimDisk(1))
    log.append(2, [(1, b"a")])
    with pytest.raises(errors.LocalProtocolError):
        log.append(2, [(3, b"b")])
    with pytest.raises(errors.LocalProtocolError):
        log.append(1, [(2, b"b")])
    with pytest.raises(errors.NotFound):
        log.read(2)


def test_a_torn_tail_is_cut_and_what_was_synced_is_kept() -> None:
    disk = SimDisk(2)
    log = _log(disk)
    _fill(log, 30)
    log.append(1, [(31, b"x" * 3000), (32, b"y" * 3000)])
    lengths = set()
    for seed in range(60):
        after = disk.after_power_loss(seed)
        again = _log(after, applied=30)
        assert 30 <= again.last_position <= 32
        lengths.add(int(again.last_position))
        base = int(again.last_position)
        again.append(2, [(base + 1, b"new")])  # longer old frames lie behind it no more
        again.sync()
        after.crash()
        assert _log(after).last_position == base + 1
    assert {30, 32} <= lengths


@pytest.mark.parametrize(("record", "applied"), [(25, 0), (29, 29)])
def test_a_flipped_bit_in_a_durable_record_is_damage_and_is_named(
    record: int, applied: int
) -> None:
    """That 25 was durable is said by the next group; of 29, in the last, only by the state."""
    disk = SimDisk(3)
    log = _log(disk)
    _fill(log, 30)
    path = ROOT / name_of(log._kept.segments[-1].first)
    at = log._kept.segments[-1].offset_of(record)
    log.close()
    disk.flip_bit(path, at + 20)
    with pytest.raises(LogDamaged, match=f"record {record} .*{path.name} at offset {at}"):
        _log(disk, applied=applied)


@pytest.mark.parametrize("length", [256, 2048])
def test_damage_is_known_by_a_later_record_of_any_length(length: int) -> None:
    """Also when that length's low byte is 0, as are those before it."""
    disk = SimDisk(9)
    log = _log(disk)
    _fill(log, 3)
    log.append(1, [(4, bytes(9000))])
    log.sync()
    log.append(1, [(5, bytes(length - BODY.size))])
    path, at = log._kept.segments[-1].path, log._kept.segments[-1].offset_of(4)
    log.close()
    disk.flip_bit(path, at + 20)
    with pytest.raises(LogDamaged, match=r"record 4 .*record 5"):
        _log(disk)


def test_a_log_shorter_than_the_state_is_damage() -> None:
    disk = SimDisk(4)
    _fill(_log(disk), 5)
    with pytest.raises(LogDamaged, match=r"record 6 .*applied"):
        _log(disk, applied=6)
    with pytest.raises(LogDamaged, match="holds no log"):
        _log(SimDisk(4), applied=6)


def test_damage_in_an_older_segment_is_found_when_it_is_read() -> None:
    disk = SimDisk(5)
    log = _log(disk)
    _fill(log, 500)
    first = log._kept.segments[0]
    disk.flip_bit(first.path, first.offset_of(10) + 30)
    with pytest.raises(LogDamaged, match="record 10 "):
        log.read(10)
    again = _log(disk)
    with pytest.raises(LogDamaged, match="record 10 "):
        list(again.scan(1))
    assert len(list(again.scan(400))) == 101


def test_a_missing_end_of_the_last_but_one_segment_is_damage() -> None:
    disk = SimDisk(6)
    log = _log(disk)
    _fill(log, 500)
    before, last = log._kept.segments[-2].path, log._kept.segments[-1].first - 1
    disk.flip_bit(before, log._kept.segments[-2].offset_of(last) + 20)
    with pytest.raises(LogDamaged, match=f"record {last} "):
        _log(disk)


@pytest.fixture(scope="module")
def long_log() -> tuple[SimDisk, int]:
    """Two segments of some 4 MiB, and the last record's position."""
    disk = SimDisk(8)
    log = OperationLog(ROOT, disk, "c1", segment_bytes=4 * MIB, step_bytes=MIB)
    log.recover(0)
    for start in range(1, 29_001, 500):
        log.append(1, [(n, _payload(n)) for n in range(start, start + 500)])
        log.sync()
    assert log.statistics().segments == 2
    return disk, int(log.last_position)


def test_a_record_is_found_in_a_long_log_whatever_was_indexed(
    long_log: tuple[SimDisk, int],
) -> None:
    disk, last = long_log
    log = _log(disk, applied=last)
    kept = log._kept.segments
    assert kept[-1].indexed_from > kept[-1].first + 100
    for segment in kept:
        for position in (segment.first, segment.first + 1, kept[-1].indexed_from - 1, last):
            if position >= segment.first:
                assert log.read(position) == (1, _payload(position))
        offset, found = segment.seek(segment.first + 3000)
        assert segment.first <= found <= segment.first + 3000
        assert next(segment.walk(offset)).position == found
    assert [record.position for record in log.scan(1)] == list(range(1, last + 1))


def test_what_a_start_does_not_look_at_is_checked_later_and_damage_named(
    long_log: tuple[SimDisk, int],
) -> None:
    source, last = long_log
    disk = source.after_power_loss(1)
    log = _log(disk, applied=last)
    begun = log._kept.segments[-1].first
    disk.flip_bit(log._kept.segments[-1].path, log._kept.segments[-1].offset_of(begun + 7) + 30)
    again = _log(disk, applied=last)
    assert again.last_position == last
    with pytest.raises(LogDamaged, match=f"record {begun + 7} "):
        again.read(begun + 7)
    position = 0
    with pytest.raises(LogDamaged, match=f"record {begun + 7} "):
        while position <= last:
            position = again.check(position, 1000)
    assert position <= begun + 7
    with pytest.raises(LogDamaged, match=f"record {begun + 7} "):
        _log(disk)  # a state that has not applied it needs it


def test_strange_files_are_refused() -> None:
    disk = SimDisk(7)
    _fill(_log(disk), 5)
    with pytest.raises(errors.WrongCluster, match="c1"):
        _log(disk, cluster="c2")
    disk.flip_bit(ROOT / name_of(1), 8)
    with pytest.raises(errors.NewerFormat):
        _log(disk)
    disk.flip_bit(ROOT / name_of(1), 8)
    disk.flip_bit(ROOT / name_of(1), 20)
    with pytest.raises(LogDamaged, match="header"):
        _log(disk)


def test_a_full_disk_leaves_nothing_half_visible_and_the_log_usable() -> None:
    disk = SimDisk(8, capacity_bytes=SEGMENT + STEP)
    log = _log(disk)
    with pytest.raises(errors.NoSpace):
        _fill(log, 500, group=1)
    last = log.last_position
    for _ in range(3):
        with pytest.raises(errors.NoSpace):
            log.append(1, [(last + 1, b"x" * 5000)])
    _check(_log(disk.after_power_loss(1)), 1, last)
    disk.capacity_bytes = 1 << 20
    log.append(1, [(last + 1, _payload(last + 1))])
    log.sync()
    _check(log, 1, last + 1)
    _check(_log(disk), 1, last + 1)


def test_a_write_that_fails_in_the_middle_is_taken_back() -> None:
    disk = SimDisk(9)
    log = _log(disk)
    _fill(log, 10)
    disk.fail("pwrite", "*.log", errno.ENOSPC)
    with pytest.raises(errors.NoSpace):
        log.append(1, [(11, b"a" * 100), (12, b"b" * 400)])
    assert _log(disk.after_power_loss(1)).last_position == 10
    _fill(log, 3)
    _check(log, 1, 13)


def test_after_a_failed_sync_the_log_takes_nothing_more() -> None:
    disk = SimDisk(10)
    log = _log(disk)
    _fill(log, 10)
    log.append(1, [(11, b"a")])
    disk.fail("fdatasync", "*.log", errno.EIO)
    for _ in range(2):
        with pytest.raises(errors.StorageFailed):
            log.sync()
    with pytest.raises(errors.StorageFailed):
        log.append(1, [(12, b"a")])


def test_prepared_space_spares_appends_all_preparation() -> None:
    disk = SimDisk(11)
    log = _log(disk)
    log.append(1, [(1, b"")])
    seen: list[str] = []
    disk.before_operation = lambda operation, path: seen.append(operation)
    for position in range(2, 200):
        while log.needs_preparation:
            log.prepare()
        seen.clear()
        log.append(1, [(position, b"x" * 300)])
        log.sync()
        if "rename" not in seen:
            assert seen == ["pwrite", "fdatasync"]
        else:  # the next segment was there, it only got its header and name
            assert seen.count("pwrite") == 2
    assert len(log._kept.segments) > 3
    assert len(list(log.scan(1))) == 199


def test_a_group_larger_than_a_segment_is_taken() -> None:
    disk = SimDisk(12)
    log = _log(disk)
    _fill(log, 3)
    log.append(1, [(4, b"x" * (SEGMENT * 2)), (5, b"y")])
    log.sync()
    _fill(log, 3)
    assert [len(record.payload) for record in _log(disk).scan(4)][:2] == [SEGMENT * 2, 1]
    assert _log(disk).last_position == 8


def test_retention_removes_whole_segments_and_never_the_last() -> None:
    disk = SimDisk(13)
    log = _log(disk)
    _fill(log, 500)
    assert log.truncate_before(250) > 0
    assert 1 < log.first_position <= 250
    _check(log, log.first_position, 500)
    with pytest.raises(Truncated):
        log.read(log.first_position - 1)
    for seed in range(10):
        assert _log(disk.after_power_loss(seed)).first_position == log.first_position
    log.truncate_before(10_000)
    assert log.read(500)[1] == _payload(500)


def test_a_leftover_spare_is_removed() -> None:
    disk = SimDisk(14)
    log = _log(disk)
    log.prepare()
    assert disk.exists(ROOT / SPARE_NAME)
    assert _log(disk).last_position == 0
    assert not disk.exists(ROOT / SPARE_NAME)


def test_a_log_may_begin_behind_a_checkpoint() -> None:
    log = OperationLog(ROOT, SimDisk(15), "c1", segment_bytes=SEGMENT, step_bytes=STEP)
    log.recover(41, first_position=42)
    log.append(3, [(42, b"a")])
    assert log.read(42) == (3, b"a")
    with pytest.raises(Truncated):
        log.read(41)


def test_a_payload_that_looks_like_a_frame_is_no_frame() -> None:
    """Frames of another cluster, which a user may have stored in an attribute, prove nothing."""
    other = SimDisk(16)
    foreign = _log(other, cluster="other")
    _fill(foreign, 30)
    forged = other.open(ROOT / name_of(1)).pread(8192, HEADER_BYTES)
    disk = SimDisk(17)
    log = _log(disk)
    log.append(1, [(1, b"a")])
    log.sync()
    log.append(1, [(2, forged)])
    at = log._kept.segments[0].offset_of(2)
    disk.flip_bit(ROOT / name_of(1), at + 20)
    assert _log(disk).last_position == 1


def test_another_process_reads_up_to_the_committed_position(tmp_path: Path) -> None:
    disk, root = PosixDisk(), tmp_path / "log"
    log = _log(disk, root)
    writer = CommittedPosition(tmp_path / "committed", create=True)
    committed = CommittedPosition(tmp_path / "committed")
    reader = LogReader(root, disk, "c1", committed)
    assert reader.read(1) == []
    seen: list[LogRecord] = []
    for _ in range(60):
        _fill(log, 7)
        assert reader.read(len(seen) + 1) == []
        writer.publish(log.last_position - 2, 1)
        seen += reader.read(len(seen) + 1)
        assert len(seen) == log.last_position - 2
    assert [record.payload for record in seen] == [_payload(n) for n in range(1, len(seen) + 1)]
    assert [r.position for r in reader.read(100, limit_bytes=1)] == [100]
    assert reader.epoch_at(200) == 1
    with pytest.raises(errors.NotFound):
        reader.epoch_at(420)
    log.truncate_before(300)
    with pytest.raises(Truncated):
        reader.read(1)
    assert reader.read(reader.first_position)[-1].position == committed.read()[0]
    for part in (reader, log, writer, committed):
        part.close()


def test_a_damaged_committed_record_is_said_to_the_reader(tmp_path: Path) -> None:
    disk = PosixDisk()
    log = _log(disk, tmp_path)
    _fill(log, 10)
    committed = CommittedPosition(tmp_path / "committed", create=True)
    committed.publish(10, 1)
    segment = log._kept.segments[0]
    segment.file.pwrite(b"\xff", segment.offset_of(5) + 40)
    reader = LogReader(tmp_path, disk, "c1", committed)
    with pytest.raises(LogDamaged, match="record 5 "):
        reader.read(1)
    for part in (reader, log, committed):
        part.close()


def test_the_committed_position_is_never_read_torn(tmp_path: Path) -> None:
    """A slot that is half written, at any word, leaves the position published before."""
    path = tmp_path / "committed"
    writer = CommittedPosition(path, create=True)
    reader = CommittedPosition(path)
    assert reader.read() == (0, 0)
    for position in range(1, 50):
        writer.publish(position, 7)
        assert reader.read() == (position, 7)
        following = 2 + 4 * (position + 1 & 1)
        before = writer._words[following : following + 4].tolist()
        for word in (following + 3, following + 1, following + 2, following):
            writer._words[word] = 12345 + position
            assert reader.read() == (position, 7)
        for at, value in enumerate(before):
            writer._words[following + at] = value
    writer.close()
    again = CommittedPosition(path, create=True)
    assert again.read() == (49, 7)
    again.publish(50, 8)
    assert reader.read() == (50, 8)
    reader.close()
    again.close()


def test_the_committed_position_never_goes_back_under_a_busy_writer(tmp_path: Path) -> None:
    """A follower that was shown a position must not be told later that it does not exist."""
    writer = CommittedPosition(tmp_path / "committed", create=True)
    reader = CommittedPosition(tmp_path / "committed")
    stop = threading.Event()

    def publish() -> None:
        for position in itertools.count(1):
            writer.publish(position, 1)
            if stop.is_set():
                return

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # so that each sees the other half way
    thread = threading.Thread(target=publish)
    thread.start()
    try:
        last = 0
        for _ in range(50_000):
            position, _ = reader.read()
            assert position >= last
            last = position
    finally:
        stop.set()
        thread.join()
        sys.setswitchinterval(interval)
        reader.close()
        writer.close()
