"""What the simulated disk loses at a power loss, and the edges of the real one."""

from __future__ import annotations

import errno
import mmap
from pathlib import Path

import pytest

from gfs import errors
from gfs.checksum import block_checksums, crc32c
from gfs.disk import PosixDisk, translate
from tests.sim.disk import SECTOR_BYTES, PowerLoss, SimDisk

ROOT = Path("/data")


def _disk(seed: int = 1, capacity_bytes: int | None = None) -> SimDisk:
    disk = SimDisk(seed, capacity_bytes=capacity_bytes)
    disk.mkdir(ROOT)
    disk.sync_directory(Path("/"))
    return disk


def test_synced_bytes_survive_every_power_loss() -> None:
    disk = _disk()
    file = disk.open(ROOT / "f", create=True)
    file.pwrite(b"a" * 5000, 0)
    file.fdatasync()
    disk.sync_directory(ROOT)
    file.pwrite(b"b" * 5000, 5000)
    for seed in range(50):
        found = disk.after_power_loss(seed).open(ROOT / "f").pread(20_000, 0)
        assert found[:5000] == b"a" * 5000
        assert set(found[5000:]) <= {0, ord("a"), ord("b")}


def test_an_unsynced_write_is_kept_dropped_or_torn_by_sector() -> None:
    disk = _disk()
    file = disk.open(ROOT / "f", create=True)
    file.pwrite(bytes(SECTOR_BYTES * 8), 0)
    file.fsync()
    disk.sync_directory(ROOT)
    file.pwrite(b"x" * SECTOR_BYTES * 8, 0)
    kept = set()
    for seed in range(100):
        content = disk.after_power_loss(seed).open(ROOT / "f").pread(1 << 20, 0)
        sectors = [content[at : at + SECTOR_BYTES] for at in range(0, len(content), SECTOR_BYTES)]
        assert all(len(set(sector)) == 1 for sector in sectors)
        kept.add(sum(sector[:1] == b"x" for sector in sectors))
    assert {0, 8} < kept


def test_a_new_name_is_certain_only_after_its_directory_is_synced() -> None:
    disk = _disk()
    disk.open(ROOT / "f", create=True).fsync()
    assert {disk.after_power_loss(seed).exists(ROOT / "f") for seed in range(50)} == {True, False}
    disk.sync_directory(ROOT)
    assert {disk.after_power_loss(seed).exists(ROOT / "f") for seed in range(50)} == {True}


def test_a_rename_is_whole_or_has_not_happened() -> None:
    disk = _disk()
    disk.replace_file(ROOT / "f", b"old")
    file = disk.open(ROOT / "g", exclusive=True)
    file.pwrite(b"new", 0)
    file.fsync()
    disk.sync_directory(ROOT)
    disk.rename(ROOT / "g", ROOT / "f")
    outcomes = set()
    for seed in range(50):
        after = disk.after_power_loss(seed)
        outcomes.add((after.open(ROOT / "f").pread(9, 0), after.exists(ROOT / "g")))
    assert outcomes == {(b"old", True), (b"new", False)}


def test_truncated_bytes_do_not_come_back_into_synced_content() -> None:
    disk = _disk()
    file = disk.open(ROOT / "f", create=True)
    file.pwrite(b"x" * 2000, 0)
    file.fsync()
    disk.sync_directory(ROOT)
    file.truncate(100)
    file.truncate(3000)
    file.fsync()
    found = disk.after_power_loss(3).open(ROOT / "f").pread(5000, 0)
    assert found == b"x" * 100 + bytes(2900)


def test_after_power_is_lost_nothing_works_until_the_disk_comes_back() -> None:
    disk = _disk()
    file = disk.open(ROOT / "f", create=True)
    disk.crash_after(2)
    file.pwrite(b"a", 0)
    with pytest.raises(PowerLoss):
        file.fdatasync()
    with pytest.raises(PowerLoss):
        disk.listdir(ROOT)
    disk.crash()
    with pytest.raises(PowerLoss):
        file.pread(1, 0)
    disk.listdir(ROOT)


def test_one_seed_gives_one_fate() -> None:
    def content(seed: int) -> bytes:
        disk = _disk(seed)
        file = disk.open(ROOT / "f", create=True)
        disk.sync_directory(ROOT)
        for number in range(20):
            file.pwrite(b"%d" % (number % 10) * 700, number * 300)
        disk.crash()
        return disk.open(ROOT / "f").pread(1 << 20, 0)

    assert all(content(seed) == content(seed) for seed in range(20))
    assert len({content(seed) for seed in range(20)}) > 5


def test_errors_come_where_they_are_asked_for() -> None:
    disk = _disk()
    file = disk.open(ROOT / "f", create=True)
    disk.fail("fdatasync", "*/f", errno.EIO)
    with pytest.raises(errors.StorageFailed):
        file.fdatasync()
    file.fdatasync()
    disk.fail("pwrite", "*", errno.ENOSPC, times=2)
    for _ in range(2):
        with pytest.raises(errors.NoSpace):
            file.pwrite(b"abcdef", 0)
    assert file.pread(10, 0) == b"abc"  # a failed write has done a part


def test_a_full_simulated_disk_refuses_growth_and_takes_rewrites() -> None:
    disk = _disk(capacity_bytes=10_000)
    file = disk.open(ROOT / "f", create=True)
    file.zero(0, 9000)
    with pytest.raises(errors.NoSpace):
        file.pwrite(bytes(2000), 9000)
    file.pwrite(b"x" * 9000, 0)
    assert disk.free_bytes(ROOT) == (0, 10_000)  # the refused write had done what fitted


def test_system_errors_become_ours() -> None:
    assert isinstance(translate(OSError(errno.EDQUOT, "quota"), "x"), errors.NoSpace)
    assert isinstance(translate(OSError(errno.EIO, "io"), "x"), errors.StorageFailed)
    assert isinstance(translate(OSError(errno.ENOENT, "no"), "x"), errors.NotFound)


def test_a_write_to_a_full_device_is_no_space() -> None:
    with pytest.raises(errors.NoSpace):
        PosixDisk().open(Path("/dev/full")).pwrite(b"x", 0)


def test_block_checksums_are_those_of_the_blocks() -> None:
    content = bytes(range(256)) * 600
    expected = [crc32c(content[:65536]), crc32c(content[65536:131072]), crc32c(content[131072:])]
    assert block_checksums(memoryview(bytearray(content))) == expected
    assert crc32c(content[100:], crc32c(content[:100])) == crc32c(content)
    assert crc32c(b"123456789") == 0xE3069283  # the published check value


def test_writes_around_the_page_cache_and_through_it_make_one_file(tmp_path: Path) -> None:
    file = PosixDisk().open(tmp_path / "f", create=True)
    aligned = mmap.mmap(-1, 16 * 4096)
    aligned[:] = bytes(range(256)) * 256
    file.pwrite_around(memoryview(aligned), 0)
    file.pwrite_around(b"odd", len(aligned))  # neither length nor memory fit
    file.pwrite_around(memoryview(aligned)[:4096], len(aligned) + 3)  # nor this offset
    file.pwrite_around(memoryview(aligned)[100:4196], 4096)  # nor this memory
    file.close()
    content = bytearray(bytes(aligned) + b"odd" + aligned[:4096])
    content[4096:8192] = aligned[100:4196]
    assert (tmp_path / "f").read_bytes() == content
