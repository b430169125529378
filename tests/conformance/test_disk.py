"""One suite for the file port, run on the host's disk and on the simulated one."""

from __future__ import annotations

import mmap
from pathlib import Path

import pytest

from gfs import errors
from gfs.disk import Disk, PosixDisk
from tests.sim.disk import SimDisk


@pytest.fixture(params=["posix", "simulated"])
def disk(request: pytest.FixtureRequest) -> Disk:
    return PosixDisk() if request.param == "posix" else SimDisk(1)


@pytest.fixture
def directory(disk: Disk, tmp_path: Path) -> Path:
    path = tmp_path / "a" / "b"
    disk.mkdir(path, parents=True)
    return path


def test_written_bytes_are_read_back(disk: Disk, directory: Path) -> None:
    file = disk.open(directory / "f", create=True)
    file.pwrite(b"hello", 3)
    file.pwritev([b"ab", memoryview(b"cd"), bytearray(b"ef")], 8)
    assert file.pread(100, 0) == b"\0\0\0helloabcdef"
    buffer = bytearray(4)
    assert file.preadv_into(buffer, 12) == 2
    assert bytes(buffer) == b"ef\0\0"
    assert file.preadv_into(buffer, 14) == 0
    file.close()
    file.close()


def test_bytes_are_read_past_the_cache(disk: Disk, directory: Path) -> None:
    file = disk.open(directory / "f", create=True)
    content = bytes(range(256)) * 300
    file.pwrite(content, 0)
    file.fsync()
    buffer = memoryview(mmap.mmap(-1, 1 << 16))
    assert file.read_cached(buffer[:600], 256) in (600, -1)
    assert bytes(buffer[:600]) in (content[:600], bytes(600))
    assert file.read_aside(buffer, 0) == 1 << 16
    assert bytes(buffer) == content[: 1 << 16]
    rest = len(content) - (1 << 16)
    assert file.read_aside(buffer, 1 << 16) == rest
    assert bytes(buffer[:rest]) == content[1 << 16 :]


def test_more_buffers_than_one_call_takes_are_written(disk: Disk, directory: Path) -> None:
    file = disk.open(directory / "f", create=True)
    file.pwritev([b"%04d" % number for number in range(3000)], 0)
    assert file.pread(12000, 0) == b"".join(b"%04d" % number for number in range(3000))


def test_size_follows_truncate_zero_and_allocate(disk: Disk, directory: Path) -> None:
    file = disk.open(directory / "f", create=True)
    file.pwrite(b"x" * 100, 0)
    file.truncate(10)
    file.truncate(20)
    assert file.pread(100, 0) == b"x" * 10 + b"\0" * 10
    file.allocate(0, 4096)
    assert file.size() == 4096
    assert file.pread(10, 0) == b"x" * 10
    file.zero(2, 5000)
    assert file.size() == 5002
    assert file.pread(5002, 0) == b"xx" + bytes(5000)
    file.fdatasync()
    file.fsync()


def test_zero_covers_more_than_a_mebibyte(disk: Disk, directory: Path) -> None:
    file = disk.open(directory / "f", create=True)
    file.pwrite(b"x" * 3_000_000, 0)
    file.zero(1, 2_500_000)
    content = file.pread(3_000_000, 0)
    assert content == b"x" + bytes(2_500_000) + b"x" * 499_999


def test_open_says_what_is_missing_or_in_the_way(disk: Disk, directory: Path) -> None:
    with pytest.raises(errors.NotFound):
        disk.open(directory / "f")
    disk.open(directory / "f", exclusive=True).close()
    with pytest.raises(errors.AlreadyExists):
        disk.open(directory / "f", exclusive=True)
    disk.open(directory / "f", create=True).close()
    with pytest.raises(errors.NotFound):
        disk.open(directory / "none" / "f", create=True)


def test_names_move_link_and_go(disk: Disk, directory: Path) -> None:
    disk.open(directory / "f", create=True).pwrite(b"one", 0)
    disk.open(directory / "g", create=True).pwrite(b"two", 0)
    disk.rename(directory / "f", directory / "g")
    assert disk.listdir(directory) == ["g"]
    disk.link(directory / "g", directory / "h")
    with pytest.raises(errors.AlreadyExists):
        disk.link(directory / "g", directory / "h")
    disk.unlink(directory / "g")
    assert disk.open(directory / "h").pread(3, 0) == b"one"
    assert not disk.exists(directory / "g")
    with pytest.raises(errors.NotFound):
        disk.unlink(directory / "g")
    with pytest.raises(errors.NotFound):
        disk.rename(directory / "g", directory / "h")
    disk.sync_directory(directory)


def test_an_unlinked_file_lives_while_it_is_open(disk: Disk, directory: Path) -> None:
    file = disk.open(directory / "f", create=True)
    disk.unlink(directory / "f")
    file.pwrite(b"still", 0)
    assert file.pread(5, 0) == b"still"


def test_mkdir_with_parents_accepts_what_is_there(disk: Disk, directory: Path) -> None:
    disk.mkdir(directory, parents=True)
    with pytest.raises(errors.AlreadyExists):
        disk.mkdir(directory)
    with pytest.raises(errors.NotFound):
        disk.mkdir(directory / "x" / "y")


def test_replace_file_leaves_the_new_content_and_nothing_else(disk: Disk, directory: Path) -> None:
    disk.replace_file(directory / "f", b"a long content")
    disk.replace_file(directory / "f", b"short")
    assert disk.open(directory / "f").pread(100, 0) == b"short"
    assert disk.listdir(directory) == ["f"]


def test_a_directory_is_locked_by_one_holder(disk: Disk, directory: Path) -> None:
    held = disk.lock(directory / "lock")
    with pytest.raises(errors.DirectoryInUse, match="in use by process"):
        disk.lock(directory / "lock")
    held.close()
    disk.lock(directory / "lock").close()


def test_free_bytes_are_part_of_the_whole(disk: Disk, directory: Path) -> None:
    free, total = disk.free_bytes(directory)
    assert 0 < free <= total


def test_a_write_behind_hint_changes_nothing(disk: Disk, directory: Path) -> None:
    file = disk.open(directory / "f", create=True)
    file.pwrite(b"x" * 10_000, 0)
    disk.write_behind_hint(file, 0, 10_000)
    assert file.pread(10_000, 0) == b"x" * 10_000
