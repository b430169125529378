"""Names, directories and files at their limits, checked against the local disk."""

from __future__ import annotations

import errno
import os
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.faults.processes import FaultyCluster
from tests.system.faults.works import FULL, Background, amount, exists

LIMIT_S = amount(ci=300, full=3000)
pytestmark = [pytest.mark.mount, pytest.mark.slow, pytest.mark.timeout(LIMIT_S)]

MIB = 1 << 20
CHUNK = 64 * MIB if FULL else MIB  # the real size once, when asked for
CONFIG = f"[master]\nchunk_bytes = {CHUNK}\n"


def error_of(path: bytes, flags: int = os.O_CREAT | os.O_WRONLY) -> int:
    """errno of open, 0 if it worked."""
    try:
        os.close(os.open(path, flags))
    except OSError as error:
        return error.errno or -1
    return 0


# --- names


NAMES = [
    b"\xff\xfe not utf-8 \x80",
    b"\xc3\x28",
    bytes(byte for byte in range(1, 256) if byte != ord("/")),
    b"x" * 255,
    "ä".encode() * 127,
    b" lead and trail ",
    b"new\nline",
    b"-rf",
    b"*?[a]",
    b"...",
    b"'\"\\$(x)`x`",
]


@pytest.mark.parametrize("name", NAMES, ids=lambda name: ascii(name)[:20])
def test_any_name_of_at_most_255_bytes_survives(here: Path, there: Path, name: bytes) -> None:
    one, two = os.fsencode(here) + b"/", os.fsencode(there) + b"/"
    with open(one + name, "wb") as file:
        file.write(b"content")
    assert os.listdir(two) == [name]
    with open(two + name, "rb") as file:
        assert file.read() == b"content"
    os.mkdir(two + b"d")
    os.rename(two + name, two + b"d/" + name)
    assert not exists(one + name)
    os.symlink(name, one + b"d/link")
    assert os.readlink(two + b"d/link") == name
    assert os.stat(two + b"d/link").st_size == 7
    os.link(one + b"d/" + name, one + b"again")
    assert os.stat(two + b"again").st_nlink == 2
    os.unlink(one + b"d/" + name)
    assert not exists(two + b"d/" + name)


def test_names_of_256_bytes_are_refused_by_every_call(here: Path) -> None:
    long = os.fsencode(here) + b"/" + b"x" * 256
    good = os.fsencode(here) + b"/good"
    assert error_of(good) == 0
    assert error_of(long) == errno.ENAMETOOLONG
    for call in (
        lambda: os.mkdir(long),
        lambda: os.rename(good, long),
        lambda: os.link(good, long),
        lambda: os.symlink(b"x", long),
        lambda: os.stat(long),
        lambda: os.unlink(long),
        lambda: os.rmdir(long),
    ):
        with pytest.raises(OSError, check=lambda error: error.errno == errno.ENAMETOOLONG):
            call()
    assert os.listdir(here) == ["good"]


# --- directories


def test_listing_of_10_000_entries_is_whole_while_others_create(here: Path, there: Path) -> None:
    """Goal: what is there all the time is listed exactly once, in every listing."""
    count = 10_000
    for number in range(count):
        os.close(os.open(here / f"stays{number:05d}", os.O_CREAT | os.O_EXCL))
    stays = {f"stays{number:05d}" for number in range(count)}
    stop = False

    def come_and_go() -> None:
        number = 0
        while not stop:
            name = there / f"moves{number % 300}"
            os.close(os.open(name, os.O_CREAT))
            if number % 3:
                os.unlink(name)
            number += 1

    beside = Background(come_and_go)
    try:
        for directory in (here, there, here):
            found = os.listdir(directory)
            assert len(found) == len(set(found))
            assert {name for name in found if name.startswith("stays")} == stays
    finally:
        stop = True
        beside.join()
    listed = subprocess.run(
        ["ls", "-l", "--", there], capture_output=True, check=True, timeout=100, text=True
    ).stdout
    assert sum("stays" in line for line in listed.splitlines()) == count
    assert sorted(os.listdir(here)) == sorted(os.listdir(there))
    with pytest.raises(OSError, check=lambda error: error.errno == errno.ENOTEMPTY):
        os.rmdir(here)


# --- sizes


def blocks(size: int) -> Iterator[bytes]:
    random_ = random.Random(size)
    for start in range(0, size, MIB):
        yield random_.randbytes(min(MIB, size - start))


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 5])
def test_sizes_around_the_chunk_read_back_streamed(here: Path, there: Path, size: int) -> None:
    with open(here / "f", "wb", buffering=0) as file:
        file.writelines(blocks(size))
        os.fsync(file.fileno())
    check_content(there / "f", size)
    check_content(here / "f", size)


@pytest.mark.parametrize("size", [0, CHUNK - 1, CHUNK, CHUNK + 1])
def test_sizes_around_the_chunk_read_back_packed(here: Path, there: Path, size: int) -> None:
    """Small files before and after share chunks with it."""
    for number in range(5):
        (here / f"before{number}").write_bytes(b"b%d" % number)
    with open(here / "f", "wb") as file:
        for block in blocks(size):
            file.writelines(block[at : at + 65_537] for at in range(0, len(block), 65_537))
        for number in range(5):
            (here / f"after{number}").write_bytes(b"a%d" % number)
    check_content(there / "f", size)
    for number in range(5):
        assert (there / f"before{number}").read_bytes() == b"b%d" % number
        assert (there / f"after{number}").read_bytes() == b"a%d" % number


@pytest.mark.parametrize("size", [CHUNK - 1, CHUNK, CHUNK + 1])
def test_sizes_around_the_chunk_read_back_appended(here: Path, there: Path, size: int) -> None:
    with open(here / "f", "ab", buffering=0) as file:
        for block in blocks(size):
            file.writelines(block[at : at + 300_000] for at in range(0, len(block), 300_000))
    check_content(there / "f", size)


def check_content(path: Path, size: int) -> None:
    assert os.stat(path).st_size == size
    with open(path, "rb", buffering=0) as file:
        for block in blocks(size):
            assert file.read(len(block)) == block
        assert file.read(1) == b""


def test_sparse_files_read_zeros_and_take_no_room(here: Path, there: Path) -> None:
    far = 1 << 40
    with open(here / "f", "wb", buffering=0) as file:
        file.truncate(far)
        os.pwrite(file.fileno(), b"middle", far // 2)
        os.pwrite(file.fileno(), b"end", far - 3)
    status = os.stat(there / "f")
    assert status.st_size == far
    assert status.st_blocks * 512 < 10 * MIB
    with open(there / "f", "rb", buffering=0) as file:
        assert os.pread(file.fileno(), 100, 0) == bytes(100)
        assert os.pread(file.fileno(), 16, far // 2 - 5) == bytes(5) + b"middle" + bytes(5)
        assert os.pread(file.fileno(), 100, far - 5) == bytes(2) + b"end"


# --- overwriting, against a file on the local disk


class Model:
    """The same calls on a file of the mount and on one of the local disk."""

    def __init__(self, ours: Path, local: Path) -> None:
        flags = os.O_RDWR | os.O_CREAT
        self.fds = [os.open(path, flags) for path in (ours, local)]
        self.paths = (ours, local)

    def write(self, offset: int, content: bytes) -> None:
        assert [os.pwrite(fd, content, offset) for fd in self.fds] == [len(content)] * 2

    def read(self, offset: int, length: int) -> None:
        ours, local = (os.pread(fd, length, offset) for fd in self.fds)
        assert ours == local, (offset, length)

    def truncate(self, size: int) -> None:
        for fd in self.fds:
            os.ftruncate(fd, size)

    def truncate_at_open(self) -> None:
        for path in self.paths:
            os.close(os.open(path, os.O_WRONLY | os.O_TRUNC))

    def check(self, *paths: Path) -> None:
        expected = self.paths[1].read_bytes()
        for path in paths:
            assert path.read_bytes() == expected, path
        assert os.fstat(self.fds[0]).st_size == len(expected)

    def sync(self) -> None:
        os.fsync(self.fds[0])

    def close(self) -> None:
        for fd in self.fds:
            os.close(fd)


@pytest.mark.parametrize("seed", range(amount(ci=2, full=10)))
def test_random_overwrites_agree_with_a_local_file(
    here: Path, there: Path, tmp_path: Path, seed: int
) -> None:
    random_ = random.Random(seed)
    model = Model(here / "f", tmp_path / "f")
    limit = 5 * MIB
    for _ in range(amount(ci=250, full=2000)):
        step = random_.random()
        offset = random_.randrange(limit)
        length = min(int(2 ** random_.uniform(0, 21)), limit)
        if step < 0.5:
            model.write(offset, random_.randbytes(length))
        elif step < 0.8:
            model.read(offset, length)
        elif step < 0.88:
            model.truncate(random_.randrange(limit))
        elif step < 0.9:
            model.truncate_at_open()
        elif step < 0.95:
            model.sync()
            model.check(there / "f")
        else:
            model.check(here / "f")
    model.close()
    assert (there / "f").read_bytes() == (tmp_path / "f").read_bytes()


def test_truncation_down_and_up_leaves_zeros(here: Path, there: Path) -> None:
    (here / "f").write_bytes(b"x" * 100_000)
    os.truncate(here / "f", 10)
    os.truncate(there / "f", 50_000)
    assert (here / "f").read_bytes() == b"x" * 10 + bytes(49_990)
    with open(there / "f", "r+b", buffering=0) as file:
        file.truncate(5)
        os.pwrite(file.fileno(), b"end", 20)
    assert (here / "f").read_bytes() == b"x" * 5 + bytes(15) + b"end"


# --- files without a name


def test_unlinked_but_open_file_lives_until_its_last_close(here: Path, there: Path) -> None:
    (here / "f").write_bytes(b"kept")
    reader = os.open(there / "f", os.O_RDONLY)
    writer = os.open(here / "f", os.O_RDWR)
    os.unlink(here / "f")
    assert not exists(there / "f")
    assert os.pread(reader, 10, 0) == b"kept"
    os.pwrite(writer, b"more", 4)
    os.fsync(writer)
    assert os.pread(writer, 10, 0) == b"keptmore"
    assert os.pread(reader, 10, 0) == b"keptmore"
    assert os.fstat(writer).st_nlink == 0
    os.close(writer)
    assert os.pread(reader, 10, 0) == b"keptmore"
    os.close(reader)


def test_rename_over_an_open_file_keeps_both_contents(here: Path, there: Path) -> None:
    (here / "f").write_bytes(b"old content")
    reader = os.open(there / "f", os.O_RDONLY)
    (here / "t").write_bytes(b"new")
    os.rename(here / "t", here / "f")
    assert os.pread(reader, 20, 0) == b"old content"
    assert (there / "f").read_bytes() == b"new"
    os.close(reader)


@pytest.mark.kill
def test_open_unlinked_file_outlives_the_master(
    cluster: FaultyCluster, here: Path, there: Path
) -> None:
    (here / "f").write_bytes(b"kept" * 1000)
    reader = os.open(there / "f", os.O_RDONLY)
    os.unlink(here / "f")
    cluster.kill("master")
    cluster.up()  # holds no file of ours open for writing: no close waits
    assert os.pread(reader, 4, 2000) == b"kept"
    os.close(reader)
