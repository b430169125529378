"""Content and attributes of files through a mount."""

from __future__ import annotations

import errno
import hashlib
import mmap
import os
import random
import stat
import subprocess
import time
from pathlib import Path

import pytest

from gfs.ids import SIZE_MAX, TIME_NS_MAX

pytestmark = pytest.mark.timeout(60)

MIB = 1024 * 1024
SOURCE = Path(__file__).parents[2] / "gfs"


def refused(code: int) -> pytest.RaisesExc[OSError]:
    return pytest.raises(OSError, check=lambda error: error.errno == code)


def test_written_bytes_are_read_back(here: Path) -> None:
    (here / "f").write_bytes(b"hello")
    assert (here / "f").read_bytes() == b"hello"
    assert os.stat(here / "f").st_size == 5


def test_open_file_reads_its_own_writes_before_any_flush(here: Path) -> None:
    fd = os.open(here / "f", os.O_RDWR | os.O_CREAT)
    os.write(fd, b"x" * 5000)
    os.pwrite(fd, b"YY", 4090)
    assert os.pread(fd, 8, 4088) == b"xxYYxxxx"
    assert os.fstat(fd).st_size == 5000
    assert os.fstat(fd).st_blocks > 0
    os.close(fd)


def test_other_handle_reads_what_a_write_only_one_wrote(here: Path) -> None:
    (here / "f").write_bytes(b"a" * 10_000)
    reader = os.open(here / "f", os.O_RDONLY)
    assert os.pread(reader, 4, 4096) == b"aaaa"
    writer = os.open(here / "f", os.O_WRONLY)
    os.pwrite(writer, b"bb", 4097)
    assert os.pread(reader, 4, 4096) == b"abba"
    os.utime(here / "f", ns=(1, 1))
    os.pwrite(writer, b"cc", 4097)
    os.utime(here / "f", ns=(1, 1))  # the time says nothing changed
    assert os.pread(reader, 4, 4096) == b"acca"
    os.close(reader)
    os.close(writer)


def test_random_writes_equal_the_same_on_a_local_file(here: Path, tmp_path: Path) -> None:
    rng = random.Random(7)
    for flags in (os.O_RDWR, os.O_WRONLY):
        ours = os.open(here / f"f{flags}", flags | os.O_CREAT)
        local = os.open(tmp_path / f"f{flags}", flags | os.O_CREAT)
        for _ in range(300):
            if rng.random() < 0.05:
                size = rng.randrange(300_000)
                for fd in (ours, local):
                    os.ftruncate(fd, size)
            offset, data = rng.randrange(300_000), rng.randbytes(rng.randrange(1, 20_000))
            for fd in (ours, local):
                os.pwrite(fd, data, offset)
        os.close(ours)
        os.close(local)
        assert (here / f"f{flags}").read_bytes() == (tmp_path / f"f{flags}").read_bytes()


def test_hole_reads_as_zeros_and_takes_no_space(here: Path) -> None:
    with open(here / "f", "wb") as file:
        file.seek(8 * MIB)
        file.write(b"end")
        file.flush()
        os.fsync(file.fileno())
    found = os.stat(here / "f")
    assert found.st_size == 8 * MIB + 3
    assert found.st_blocks * 512 < MIB
    with open(here / "f", "rb") as file:
        assert file.read(8 * MIB) == bytes(8 * MIB)
        assert file.read() == b"end"


def test_truncate_shrinks_grows_and_empties(here: Path) -> None:
    (here / "f").write_bytes(b"0123456789")
    os.truncate(here / "f", 4)
    assert (here / "f").read_bytes() == b"0123"
    os.truncate(here / "f", 8)
    assert (here / "f").read_bytes() == b"0123\0\0\0\0"
    open(here / "f", "wb").close()
    assert os.stat(here / "f").st_size == 0


def test_appends_land_at_the_end_whatever_the_offset(here: Path) -> None:
    fds = [os.open(here / "f", os.O_WRONLY | os.O_CREAT | os.O_APPEND) for _ in range(2)]
    for number in range(50):
        os.write(fds[number % 2], b"%03d\n" % number)
        assert os.fstat(fds[0]).st_size == 4 * (number + 1)
    for fd in fds:
        os.close(fd)
    assert (here / "f").read_bytes() == b"".join(b"%03d\n" % number for number in range(50))


def test_shell_appends_and_tee_add_up(here: Path) -> None:
    script = "for i in 1 2 3; do echo $i >> f; echo t$i | tee -a f > /dev/null; done; cat f"
    done = subprocess.run(["sh", "-c", script], cwd=here, capture_output=True, timeout=30)
    assert done.stdout == b"1\nt1\n2\nt2\n3\nt3\n"


def test_reader_follows_an_appender(here: Path) -> None:
    with open(here / "f", "ab", buffering=0) as writer, open(here / "f", "rb") as reader:
        for number in range(20):
            writer.write(b"%d\n" % number)
            assert reader.readline() == b"%d\n" % number


def test_16_mib_read_back_equal_after_fsync(here: Path) -> None:
    data = random.Random(1).randbytes(16 * MIB)
    with open(here / "f", "wb") as file:
        file.write(data)
        os.fsync(file.fileno())
    digest = hashlib.sha256((here / "f").read_bytes()).digest()
    assert digest == hashlib.sha256(data).digest()


def test_unlinked_open_file_keeps_its_content(here: Path) -> None:
    fd = os.open(here / "f", os.O_RDWR | os.O_CREAT)
    os.write(fd, b"still here")
    os.unlink(here / "f")
    assert os.fstat(fd).st_nlink == 0
    os.fsync(fd)
    assert os.pread(fd, 20, 0) == b"still here"
    os.write(fd, b"!")
    assert os.pread(fd, 20, 0) == b"still here!"
    os.close(fd)


def test_times_set_after_a_write_stay(here: Path) -> None:
    fd = os.open(here / "f", os.O_WRONLY | os.O_CREAT)
    os.write(fd, b"content")
    os.utime(fd, ns=(111_000_000_222, 333_000_000_444))
    os.close(fd)
    assert os.stat(here / "f").st_mtime_ns == 333_000_000_444
    time.sleep(1.5)  # the flush of what is pending takes at most a second
    found = os.stat(here / "f")
    assert (found.st_atime_ns, found.st_mtime_ns) == (111_000_000_222, 333_000_000_444)


def test_attributes_do_not_change_when_the_flush_has_happened(here: Path) -> None:
    (here / "f").write_bytes(b"x" * 100)
    before = os.stat(here / "f")
    fd = os.open(here / "f", os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)
    after = os.stat(here / "f")
    assert (before.st_size, before.st_mtime_ns) == (after.st_size, after.st_mtime_ns)


def test_mode_and_owner_change(here: Path) -> None:
    (here / "f").touch()
    os.chmod(here / "f", 0o4751)
    assert stat.S_IMODE(os.stat(here / "f").st_mode) == 0o4751
    if os.geteuid() == 0:
        os.chown(here / "f", 123, 456)
        found = os.stat(here / "f")
        assert (found.st_uid, found.st_gid) == (123, 456)


@pytest.mark.skipif(os.geteuid() != 0, reason="acts as another user, which needs root")
def test_stranger_is_refused_and_group_member_let_in(here: Path) -> None:
    (here / "f").write_bytes(b"secret")
    os.chown(here / "f", 0, 4242)
    os.chmod(here / "f", 0o640)
    os.chmod(here, 0o755)

    def read_as(*words: str) -> subprocess.CompletedProcess[bytes]:
        command = ["setpriv", "--reuid=65534", "--regid=65534", *words, "cat", "f"]
        # By working directory: the way there is closed to strangers.
        return subprocess.run(command, cwd=here, capture_output=True, timeout=20, check=False)

    refused_one = read_as("--clear-groups")
    assert refused_one.returncode != 0
    assert b"denied" in refused_one.stderr
    assert read_as("--groups=4242").stdout == b"secret"


def test_shared_mapping_is_written_back(here: Path) -> None:
    (here / "f").write_bytes(bytes(8192))
    with open(here / "f", "r+b") as file, mmap.mmap(file.fileno(), 8192) as mapped:
        mapped[4096:4100] = b"mmap"
        mapped.flush()
    assert (here / "f").read_bytes()[4096:4100] == b"mmap"


def test_append_handle_cannot_be_mapped(here: Path) -> None:
    (here / "f").write_bytes(b"x" * 4096)
    with open(here / "f", "a+b") as file, refused(errno.ENODEV):
        mmap.mmap(file.fileno(), 4096)


def test_program_on_the_mount_runs(here: Path) -> None:
    (here / "true").write_bytes(Path("/bin/true").read_bytes())
    os.chmod(here / "true", 0o755)
    subprocess.run([here / "true"], check=True, timeout=20)


def test_source_tree_is_copied_archived_and_compared(here: Path) -> None:
    script = f"""
        set -e
        cp -a {SOURCE} copy && diff -r {SOURCE} copy
        tar cf tree.tar copy && mkdir x && tar xf tree.tar -C x && diff -r copy x/copy
        grep -rq 'class Client' x/copy
        find x -name '*.py' | sort > names && [ $(wc -l < names) -gt 10 ]
        rm -rf x copy
    """
    subprocess.run(["sh", "-c", script], cwd=here, check=True, timeout=50)


def test_git_works_in_a_repository_on_the_mount(here: Path) -> None:
    script = """
        set -e
        git init -q . && git config user.email a@b && git config user.name n
        for i in $(seq 30); do echo $i > file$i; done
        git add . && git commit -qm one && git status --porcelain | wc -l
        echo more >> file1 && git commit -qam two && git log --oneline | wc -l && git fsck
    """
    done = subprocess.run(
        ["sh", "-c", script], cwd=here, capture_output=True, timeout=50, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[:2] == [b"0", b"2"]


def test_sqlite_works_on_the_mount(here: Path) -> None:
    sqlite3 = pytest.importorskip("sqlite3")
    for mode in ("delete", "wal"):
        base = sqlite3.connect(here / f"{mode}.db")
        base.execute(f"pragma journal_mode={mode}")
        base.execute("create table t (a)")
        for number in range(20):
            base.execute("insert into t values (?)", (number,))
            base.commit()
        assert base.execute("select sum(a), count(*) from t").fetchone() == (190, 20)
        assert base.execute("pragma integrity_check").fetchone() == ("ok",)
        base.close()


def test_appended_records_show_in_the_times_at_once_and_for_good(here: Path, there: Path) -> None:
    """Also of a file whose time was set to a day to come."""
    fd = os.open(here / "f", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for ahead_ns in (0, 86400 * 10**9):
        os.utime(here / "f", ns=(0, time.time_ns() + ahead_ns))
        before = time.time_ns()
        os.write(fd, b"record")
        found = os.stat(here / "f")
        assert before <= found.st_mtime_ns <= time.time_ns()
        assert before <= found.st_ctime_ns
        assert os.stat(there / "f").st_mtime_ns == found.st_mtime_ns
        os.truncate(here / "f", found.st_size)  # seals the tail
    os.write(fd, b"record")
    shown = os.fstat(fd).st_mtime_ns
    writer = os.open(there / "f", os.O_WRONLY)
    os.close(writer)
    os.link(here / "f", here / "g")
    assert os.fstat(fd).st_mtime_ns == shown
    os.close(fd)


def test_a_change_after_a_time_to_come_is_of_now(here: Path) -> None:
    to_come = time.time_ns() + 86400 * 10**9
    (here / "f").write_bytes(b"content")
    os.utime(here / "f", ns=(to_come, to_come))
    os.truncate(here / "f", 3)
    assert os.stat(here / "f").st_mtime_ns < to_come


def test_a_time_set_after_a_write_leaves_the_change_time_where_it_was(here: Path) -> None:
    with open(here / "f", "wb", buffering=0) as file:
        file.write(b"content")
        os.utime(file.fileno(), ns=(1, 1))
        before = os.fstat(file.fileno()).st_ctime_ns
        os.fsync(file.fileno())
        assert os.fstat(file.fileno()).st_ctime_ns == before


def test_a_time_too_far_away_is_kept_as_the_last_there_is(here: Path) -> None:
    (here / "f").touch()
    os.utime(here / "f", (0, 2**33))  # 2242
    assert os.stat(here / "f").st_mtime_ns == TIME_NS_MAX
    os.utime(here / "f", (-(2**33), 0))
    assert os.stat(here / "f").st_atime_ns == -TIME_NS_MAX


@pytest.mark.parametrize("access", [os.O_RDWR, os.O_WRONLY])
def test_file_may_end_far_out_and_no_further(here: Path, there: Path, access: int) -> None:
    far = (1 << 40) + 123
    fd = os.open(here / "f", access | os.O_CREAT)
    os.pwrite(fd, b"far", far)
    os.fsync(fd)
    found = os.stat(there / "f")
    assert (found.st_size, found.st_blocks) == (far + 3, 1)
    with open(there / "f", "rb") as file:
        file.seek(far - 3)
        assert file.read() == b"\0\0\0far"
    with refused(errno.EFBIG):
        os.pwrite(fd, b"x", SIZE_MAX)
    with refused(errno.EFBIG):
        os.ftruncate(fd, SIZE_MAX + 1)
    os.pwrite(fd, b"xx", SIZE_MAX - 2)
    os.close(fd)
    assert os.stat(there / "f").st_size == SIZE_MAX


def test_copies_of_a_file_with_holes(here: Path) -> None:
    """Nobody is told where holes are; cp makes them anew of zeros, and bytes are the same."""
    with open(here / "f", "w+b", buffering=0) as file:
        os.pwrite(file.fileno(), b"x" * 5000, MIB)
        os.ftruncate(file.fileno(), 3 * MIB)
        assert os.lseek(file.fileno(), 1, os.SEEK_DATA) == 1
        assert os.lseek(file.fileno(), 1, os.SEEK_HOLE) == 3 * MIB
        with open(here / "ranges", "wb", buffering=0) as copy:
            count = os.copy_file_range(file.fileno(), copy.fileno(), 2 * MIB, MIB, 10)
    content = (here / "f").read_bytes()
    assert (here / "ranges").read_bytes() == bytes(10) + content[MIB : MIB + count]
    blocks = {}
    for sparse in ("always", "auto"):
        words: list[str | Path] = ["cp", f"--sparse={sparse}", here / "f", here / sparse]
        subprocess.run(words, check=True)
        assert (here / sparse).read_bytes() == content
        blocks[sparse] = os.stat(here / sparse).st_blocks
    assert os.stat(here / "f").st_blocks == 10
    assert blocks["always"] == MIB // 512  # it looks for zeros a MiB at a time
