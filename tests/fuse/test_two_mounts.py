"""What one mount has done, the next call on the other sees; nothing deadlocks."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fuse.conftest import Cluster

pytestmark = pytest.mark.timeout(90)


def exists(path: Path) -> bool:
    try:
        os.lstat(path)
    except FileNotFoundError:
        return False
    return True


def together(*works: Callable[[], None]) -> None:
    """Run them at the same time; the first failure is raised here."""
    failures: list[BaseException] = []

    def guarded(work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=guarded, args=(work,), daemon=True) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60 + ROUNDS)
        assert not thread.is_alive(), "stuck"
    if failures:
        raise failures[0]


def test_name_cached_as_absent_is_seen_once_made_elsewhere(here: Path, there: Path) -> None:
    for number in range(50):
        assert not exists(there / f"{number}")
        (here / f"{number}").write_bytes(b"x")
        assert (there / f"{number}").read_bytes() == b"x"


def test_name_cached_as_present_is_gone_once_removed_elsewhere(here: Path, there: Path) -> None:
    for number in range(50):
        (here / f"{number}").touch()
        assert exists(there / f"{number}")
        os.unlink(here / f"{number}")
        assert not exists(there / f"{number}")


def test_directory_made_here_shows_what_is_made_in_it_there(here: Path, there: Path) -> None:
    os.mkdir(here / "d")
    assert not exists(here / "d/x")
    (there / "d/x").write_bytes(b"x")
    assert exists(here / "d/x")
    assert os.listdir(here / "d") == ["x"]


def test_a_file_opened_for_writing_elsewhere_is_read_though_nobody_writes(
    here: Path, there: Path
) -> None:
    (there / "f").write_bytes(b"x" * 100_000)
    reader = os.open(there / "f", os.O_RDONLY)
    os.fsync(reader)
    writer = os.open(here / "f", os.O_RDWR)
    assert os.pread(reader, 1000, 70_000) == b"x" * 1000
    os.close(writer)
    os.close(reader)


def test_listing_follows_changes_elsewhere(here: Path, there: Path) -> None:
    for number in range(20):
        (here / f"{number}").touch()
        assert len(os.listdir(there)) == number + 1
        os.rename(here / f"{number}", here / f"r{number}")
        assert f"r{number}" in os.listdir(there)


def test_attributes_follow_changes_elsewhere(here: Path, there: Path) -> None:
    (here / "f").touch()
    for number in range(20):
        os.chmod(here / "f", 0o600 + number)
        assert os.stat(there / "f").st_mode & 0o777 == 0o600 + number
        os.setxattr(here / "f", "user.n", b"%d" % number)
        assert os.getxattr(there / "f", "user.n") == b"%d" % number


def test_closed_file_is_read_whole_elsewhere(here: Path, there: Path) -> None:
    for number in range(20):
        (here / "f").write_bytes(b"%d" % number * 1000)
        assert (there / "f").read_bytes() == b"%d" % number * 1000


def test_same_size_rewrite_with_restored_time_is_seen(here: Path, there: Path) -> None:
    (here / "f").write_bytes(b"a" * 5000)
    os.utime(here / "f", ns=(1, 1))
    assert (there / "f").read_bytes() == b"a" * 5000
    (here / "f").write_bytes(b"b" * 5000)
    os.utime(here / "f", ns=(1, 1))
    assert (there / "f").read_bytes() == b"b" * 5000


def test_rename_over_is_seen(here: Path, there: Path) -> None:
    (here / "f").write_bytes(b"old")
    for number in range(20):
        assert (there / "f").read_bytes() in (b"old", b"new%d" % (number - 1))
        (here / "t").write_bytes(b"new%d" % number)
        os.rename(here / "t", here / "f")
        assert (there / "f").read_bytes() == b"new%d" % number


def test_fsynced_bytes_are_seen_by_a_reader_that_has_the_file_open(here: Path, there: Path) -> None:
    (here / "f").write_bytes(b"0" * 4096)
    reader = os.open(there / "f", os.O_RDONLY)
    assert os.pread(reader, 1, 0) == b"0"
    writer = os.open(here / "f", os.O_WRONLY)
    for number in b"123456789":
        os.pwrite(writer, bytes([number]), 0)
        os.fsync(writer)
        assert os.pread(reader, 1, 0) == bytes([number])
    os.close(writer)
    os.close(reader)


def test_appended_line_is_followed_elsewhere(here: Path, there: Path) -> None:
    with open(here / "f", "ab", buffering=0) as writer:
        writer.write(b"0\n")
        os.fsync(writer.fileno())
        with open(there / "f", "rb") as reader:
            assert reader.readline() == b"0\n"
            for number in range(1, 20):
                writer.write(b"%d\n" % number)
                os.fsync(writer.fileno())
                assert os.fstat(reader.fileno()).st_size == reader.tell() + len(b"%d\n" % number)
                assert reader.readline() == b"%d\n" % number


def test_four_appenders_on_two_mounts_lose_tear_and_double_nothing(here: Path, there: Path) -> None:
    lines = 300

    def append(directory: Path, writer: int) -> Callable[[], None]:
        def work() -> None:
            fd = os.open(directory / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            for number in range(lines):
                os.write(fd, b"%d %06d %s\n" % (writer, number, b"x" * (number % 90)))
            os.close(fd)

        return work

    together(*(append(directory, w) for w, directory in enumerate([here, there, here, there])))
    for directory in (here, there):
        found = (directory / "log").read_bytes().splitlines()
        assert len(found) == 4 * lines
        for writer in range(4):
            own = [line for line in found if line.startswith(b"%d " % writer)]
            assert own == [b"%d %06d %s" % (writer, n, b"x" * (n % 90)) for n in range(lines)]


def test_both_mounts_create_what_the_other_has_cached_as_absent(here: Path, there: Path) -> None:
    """Goal: no deadlock and no stale answer when each holds the lock the other waits for."""
    rounds = 250
    for number in range(rounds):
        for prefix in ("a", "b"):
            assert not exists(here / f"{prefix}{number}")
            assert not exists(there / f"{prefix}{number}")

    def make(directory: Path, prefix: str) -> Callable[[], None]:
        def work() -> None:
            for number in range(rounds):
                os.close(os.open(directory / f"{prefix}{number}", os.O_CREAT | os.O_EXCL))
                assert exists(directory / f"{prefix}{number}")

        return work

    start = time.monotonic()
    together(make(here, "a"), make(there, "b"))
    print(f"{2 * rounds / (time.monotonic() - start):.0f} creates/s in one directory, two mounts")
    for number in range(rounds):
        assert exists(here / f"b{number}")
        assert exists(there / f"a{number}")


ROUNDS = int(os.environ.get("GFS_STRESS_ROUNDS", "100"))


@pytest.mark.timeout(60 + ROUNDS)
def test_every_call_that_returned_is_seen_by_the_next_on_the_other_mount(
    here: Path, there: Path
) -> None:
    """Goal: no deadlock, no stale answer, with both mounts busy in one directory.

    Method: four threads, two a mount, each with names of its own. After each mutation the
    very next call asks the other mount, where the old answer has just been cached.
    """

    def work(own: Path, other: Path, tag: str) -> Callable[[], None]:
        def run() -> None:
            for number in range(ROUNDS):
                a, b, d = f"{tag}a{number % 7}", f"{tag}b{number % 5}", f"{tag}d"
                assert not exists(other / a)
                os.close(os.open(own / a, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
                assert exists(other / a), "created, not seen"
                os.mkdir(own / d)
                os.rename(own / a, own / b)
                assert not exists(other / a), "renamed, still seen"
                assert exists(other / b), "renamed, not seen"
                os.rename(other / b, other / d / a)
                assert exists(own / d / a), "moved, not seen"
                assert os.listdir(own / d) == [a]
                os.unlink(own / d / a)
                assert os.listdir(other / d) == [], "removed, still listed"
                os.rmdir(other / d)
                assert not exists(own / d), "removed, still seen"

        return run

    start = time.monotonic()
    together(
        work(here, there, "p"),
        work(there, here, "q"),
        work(here, there, "r"),
        work(there, here, "s"),
    )
    rate = 4 * ROUNDS * 6 / (time.monotonic() - start)
    print(f"{rate:.0f} mutations/s, each checked on the other mount")
    assert os.listdir(here) == os.listdir(there) == []


def test_exclusive_create_has_one_winner(here: Path, there: Path) -> None:
    won: list[int] = []

    def race(directory: Path) -> Callable[[], None]:
        def work() -> None:
            for number in range(100):
                try:
                    os.close(os.open(directory / f"{number}", os.O_CREAT | os.O_EXCL))
                    won.append(number)
                except FileExistsError:
                    pass

        return work

    together(race(here), race(there))
    assert sorted(won) == list(range(100))


def test_directory_removed_elsewhere_is_stale_not_wrong(here: Path, there: Path) -> None:
    os.mkdir(here / "d")
    fd = os.open(there / "d", os.O_RDONLY | os.O_DIRECTORY)
    os.rmdir(here / "d")
    assert os.listdir(fd) == []
    with pytest.raises(OSError, check=lambda e: e.errno in (errno.ENOENT, errno.ESTALE)):
        os.open("x", os.O_CREAT | os.O_WRONLY, dir_fd=fd)
    os.close(fd)


@pytest.mark.kill
def test_stopped_mount_delays_the_other_once_and_wakes_without_stale_names(
    cluster: Cluster, here: Path, there: Path
) -> None:
    cluster.expected += [b"session.dead", b"session.lost"]
    (here / "f").write_bytes(b"old")
    assert (there / "f").read_bytes() == b"old"
    pid = cluster.process("mount2").pid
    os.kill(pid, signal.SIGSTOP)
    try:
        start = time.monotonic()
        os.unlink(here / "f")
        stall = time.monotonic() - start
        (here / "g").write_bytes(b"new")
        again = time.monotonic() - start - stall
    finally:
        os.kill(pid, signal.SIGCONT)
    print(f"stall {stall:.1f} s, then {again:.3f} s")
    assert stall < 30
    assert again < 1
    assert not exists(there / "f")
    assert (there / "g").read_bytes() == b"new"


# --- access times


def times(path: Path) -> tuple[int, int]:
    """Access time, and the later of the other two."""
    found = os.lstat(path)
    return found.st_atime_ns, max(found.st_mtime_ns, found.st_ctime_ns)


def is_read(path: Path) -> bool:
    atime_ns, changed_ns = times(path)
    return atime_ns > changed_ns


def wait_read(path: Path) -> None:
    """Another mount is told about a second after the read."""
    deadline = time.monotonic() + 30
    while not is_read(path):
        assert time.monotonic() < deadline, times(path)
        time.sleep(0.02)


def test_access_time_tells_whether_a_file_was_read_since_it_changed(
    here: Path, there: Path
) -> None:
    """As with relatime; here at once, on the other mount soon."""
    mail = here / "mail"
    for _ in range(2):
        with mail.open("ab") as file:
            file.write(b"message\n")
        assert not is_read(mail)
        subprocess.run(["cat", mail], check=True, stdout=subprocess.DEVNULL)
        read = times(mail)
        assert is_read(mail)
        wait_read(there / "mail")
        assert times(there / "mail") == read
        mail.read_bytes()
        assert times(mail) == read, "was read since: stays"
    (there / "mail").write_bytes(b"again\n")
    assert not is_read(mail)
    assert mail.read_bytes() == b"again\n"
    assert is_read(mail)


def test_access_times_of_directories_and_links(here: Path, there: Path) -> None:
    (here / "d").mkdir()
    (here / "link").symlink_to("d")
    for path in (here / "d", here / "link"):
        assert not is_read(path)
    assert os.listdir(here / "d") == []
    assert os.readlink(here / "link") == "d"
    for name in ("d", "link"):
        assert is_read(here / name)
        wait_read(there / name)


def test_access_time_that_is_set_stays_whoever_read_before(here: Path, there: Path) -> None:
    """Also what the first mount has not told yet when the second sets it; `cp -a` and tar do so."""
    for number, setter in enumerate((here, there)):
        name, later = f"{number}", f"later{number}"
        for made in (name, later):
            (here / made).write_bytes(b"content")
        (here / name).read_bytes()
        os.utime(setter / name, ns=(5, 2**62 - 1))
        assert os.stat(here / name).st_atime_ns == 5
        (here / later).read_bytes()
        wait_read(there / later)  # so what was read before it has been told too
        for side in (here, there):
            assert os.stat(side / name).st_atime_ns == 5
    subprocess.run(["cp", "-a", here / "0", here / "copy"], check=True)
    assert os.stat(there / "copy").st_atime_ns == 5
    subprocess.run(["tar", "-C", here, "-cf", here / "t.tar", "later0"], check=True)
    found = subprocess.run(
        ["find", there, "-name", "later*", "-anewer", there / "0"],
        check=True, capture_output=True,
    )  # fmt: skip
    assert len(found.stdout.splitlines()) == 0, "0 was changed in 2116"
    found = subprocess.run(
        ["find", there, "-name", "later*", "-anewer", there / "later0"],
        check=True, capture_output=True,
    )  # fmt: skip
    assert len(found.stdout.splitlines()) == 2


def test_reading_with_o_noatime_is_no_access(here: Path) -> None:
    (here / "f").write_bytes(b"content")
    at = os.open(here / "f", os.O_RDONLY | os.O_NOATIME)
    try:
        assert os.read(at, 100) == b"content"
        assert not is_read(here / "f")
    finally:
        os.close(at)
