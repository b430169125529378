"""What a call on one mount has done, the very next call on the other sees."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.drivers import alternating, following
from tests.system.faults.works import amount, exists

LIMIT_S = amount(ci=300, full=3000)
pytestmark = [pytest.mark.mount, pytest.mark.slow, pytest.mark.timeout(LIMIT_S)]

ROUNDS = amount(ci=200, full=10_000)

Step = Callable[["Pair", Path, Path], None]


class Pair:
    """One file and a directory seen from two mounts, and what they must show."""

    def __init__(self) -> None:
        self.content = b""
        self.mode = 0o644
        self.random = random.Random(11)

    def look(self, path: Path) -> None:
        """Every kind of look at the file that can be stale."""
        status = os.stat(path)
        assert status.st_size == len(self.content)
        assert status.st_mode & 0o777 == self.mode
        assert path.read_bytes() == self.content
        assert os.stat(path).st_size == len(self.content)


def recreate(pair: Pair, on: Path, other: Path) -> None:
    os.unlink(on / "f")
    assert not exists(other / "f")
    pair.content, pair.mode = b"new %d" % pair.random.randrange(1000), 0o644
    (on / "f").write_bytes(pair.content)


def append_and_sync(pair: Pair, on: Path, other: Path) -> None:
    line = b"line %d\n" % pair.random.randrange(10**9)
    with open(on / "f", "ab", buffering=0) as file:
        file.write(line)
        os.fsync(file.fileno())
        pair.content += line
        pair.look(other / "f")  # while it is still open


def append_and_close(pair: Pair, on: Path, other: Path) -> None:
    with open(on / "f", "ab", buffering=0) as file:
        file.writelines(b"x" * 100 for _ in range(3))
    pair.content += b"x" * 300


def overwrite_and_sync(pair: Pair, on: Path, other: Path) -> None:
    at = pair.random.randrange(len(pair.content) + 1)
    piece = pair.random.randbytes(pair.random.randrange(1, 5000))
    with open(on / "f", "r+b", buffering=0) as file:
        file.seek(at)
        file.write(piece)
        os.fsync(file.fileno())
        pair.content = pair.content[:at] + piece + pair.content[at + len(piece) :]
        pair.look(other / "f")


def rename_over(pair: Pair, on: Path, other: Path) -> None:
    pair.content, pair.mode = pair.random.randbytes(pair.random.randrange(9000)), 0o600
    (on / "t").write_bytes(pair.content)
    os.chmod(on / "t", 0o600)
    assert exists(other / "t")
    os.rename(on / "t", on / "f")
    assert not exists(other / "t")


def truncate(pair: Pair, on: Path, other: Path) -> None:
    size = pair.random.randrange(len(pair.content) + 1000)
    os.truncate(on / "f", size)
    pair.content = pair.content[:size].ljust(size, b"\0")


def truncate_at_open(pair: Pair, on: Path, other: Path) -> None:
    os.close(os.open(on / "f", os.O_WRONLY | os.O_TRUNC))
    pair.content = b""


def change_mode(pair: Pair, on: Path, other: Path) -> None:
    pair.mode = pair.random.choice([0o600, 0o640, 0o644, 0o755])
    os.chmod(on / "f", pair.mode)


def rewrite_unnoticeably(pair: Pair, on: Path, other: Path) -> None:
    """Same size, and the time put back: only data_version tells."""
    times = os.stat(on / "f")
    pair.content = pair.random.randbytes(len(pair.content))
    with open(on / "f", "r+b", buffering=0) as file:
        file.write(pair.content)
    os.utime(on / "f", ns=(times.st_atime_ns, times.st_mtime_ns))
    assert os.stat(other / "f").st_mtime_ns == times.st_mtime_ns


def set_attribute(pair: Pair, on: Path, other: Path) -> None:
    value = b"%d" % pair.random.randrange(10**6)
    os.setxattr(on / "f", "user.a", value)
    assert os.getxattr(other / "f", "user.a") == value


STEPS: list[Step] = [
    recreate, append_and_sync, append_and_close, overwrite_and_sync, rename_over, truncate,
    truncate_at_open, change_mode, rewrite_unnoticeably, set_attribute,
]  # fmt: skip


def test_every_change_is_seen_by_the_next_call(here: Path, there: Path) -> None:
    pair = Pair()
    (here / "f").write_bytes(b"")
    sides = [here, there]
    for number in range(ROUNDS):
        step = pair.random.choice(STEPS)
        pair.random.shuffle(sides)
        try:
            step(pair, sides[0], sides[1])
            pair.look(sides[1] / "f")
            pair.look(sides[0] / "f")
        except BaseException as error:
            error.add_note(f"round {number}: {step.__name__} on {sides[0].parent.name}")
            raise


def test_changes_of_every_kind_in_turn_leave_no_answer_stale(here: Path, there: Path) -> None:
    """Names, kinds, links, modes, times, attributes, content: python -m bench.visible."""
    told = alternating.alternate(str(here), str(there), amount(ci=150, full=100_000), 1)
    print(f"{told['looks'] / told['seconds']:.0f} looks/s: {told['changes']}")
    assert told["samples"] == []
    assert len(told["changes"]) == 16


@pytest.mark.parametrize("rotate", [False, True])
def test_tail_follows_who_appends_elsewhere(here: Path, there: Path, rotate: bool) -> None:
    """tail(1) polls, because it knows a mount of FUSE for a remote one; every line, once."""
    options = ["-s", "0.05", "-F" if rotate else "-f"]
    delays = following.follow(str(here), str(there), options, 20, rotate)
    print(f"p50 {delays[len(delays) // 2]:.3f} s, longest {delays[-1]:.3f} s")


def test_handle_kept_open_sees_what_was_synced_elsewhere(here: Path, there: Path) -> None:
    (here / "f").write_bytes(b"\0" * 100_000)
    reader = os.open(there / "f", os.O_RDONLY)
    writer = os.open(here / "f", os.O_RDWR)
    random_ = random.Random(3)
    for _ in range(amount(ci=100, full=2000)):
        at = random_.randrange(99_000)
        piece = random_.randbytes(random_.randrange(1, 1000))
        assert len(os.pread(reader, 1000, at)) == 1000  # cached by that kernel mount
        os.pwrite(writer, piece, at)
        os.fsync(writer)
        assert os.pread(reader, len(piece), at) == piece
    os.close(reader)
    os.close(writer)


def test_follower_sees_every_synced_line(here: Path, there: Path) -> None:
    with open(here / "log", "ab", buffering=0) as writer, open(there / "log", "rb") as reader:
        for number in range(amount(ci=200, full=3000)):
            writer.write(b"line %d\n" % number)
            os.fsync(writer.fileno())
            assert reader.readline() == b"line %d\n" % number
            assert os.fstat(reader.fileno()).st_size == reader.tell()


def test_directories_made_and_removed_are_seen(here: Path, there: Path) -> None:
    for number in range(amount(ci=50, full=1000)):
        first, second = (here, there) if number % 2 else (there, here)
        assert not exists(second / "d")
        os.mkdir(first / "d")
        (second / "d" / "x").write_bytes(b"x")
        assert os.listdir(first / "d") == ["x"]
        os.rename(second / "d", second / "e")
        assert (first / "e" / "x").read_bytes() == b"x"
        assert not exists(first / "d")
        os.unlink(first / "e" / "x")
        assert os.listdir(second / "e") == []
        os.rmdir(second / "e")
        assert not exists(first / "e")
