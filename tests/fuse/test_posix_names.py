"""Names through a mount behave as POSIX and Linux say."""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import subprocess
from pathlib import Path

import pytest

from mount.listing import PAGE
from tests.fuse.sides import acting_as

pytestmark = pytest.mark.timeout(60)

AT_FDCWD, NOREPLACE, EXCHANGE, WHITEOUT = -100, 1, 2, 4


def renameat2(source: Path, target: Path, flags: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(AT_FDCWD, os.fsencode(source), AT_FDCWD, os.fsencode(target), flags):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def refused(code: int) -> pytest.RaisesExc[OSError]:
    return pytest.raises(OSError, check=lambda error: error.errno == code)


def test_tree_is_made_listed_and_removed(here: Path) -> None:
    os.makedirs(here / "a/b/c")
    (here / "a/b/f").write_bytes(b"x")
    assert sorted(os.listdir(here / "a/b")) == ["c", "f"]
    with refused(errno.ENOTEMPTY):
        os.rmdir(here / "a/b")
    os.unlink(here / "a/b/f")
    os.rmdir(here / "a/b/c")
    os.rmdir(here / "a/b")
    assert os.listdir(here / "a") == []


def test_taken_and_missing_names_are_refused(here: Path) -> None:
    os.mkdir(here / "d")
    with refused(errno.EEXIST):
        os.mkdir(here / "d")
    with refused(errno.ENOENT):
        os.unlink(here / "none")
    with refused(errno.EISDIR):
        os.unlink(here / "d")
    (here / "f").touch()
    with refused(errno.ENOTDIR):
        os.rmdir(here / "f")
    with refused(errno.ENOTDIR):
        os.stat(here / "f/below")
    with refused(errno.EEXIST):
        os.open(here / "f", os.O_CREAT | os.O_EXCL | os.O_WRONLY)


def test_name_of_255_bytes_works_and_256_is_too_long(here: Path) -> None:
    (here / ("n" * 255)).write_bytes(b"long")
    assert (here / ("n" * 255)).read_bytes() == b"long"
    for call in (os.mkdir, os.stat, os.unlink):
        with refused(errno.ENAMETOOLONG):
            call(here / ("n" * 256))


def test_name_that_is_not_utf8_survives(here: Path) -> None:
    name = os.fsencode(here) + b"/\xff\xfe caf\xe9\n"
    os.mkdir(name)
    assert os.listdir(os.fsencode(here)) == [b"\xff\xfe caf\xe9\n"]
    os.rmdir(name)


def test_rename_moves_replaces_and_keeps_the_inode(here: Path) -> None:
    (here / "a").write_bytes(b"new")
    (here / "b").write_bytes(b"old")
    ino = os.stat(here / "a").st_ino
    os.rename(here / "a", here / "b")
    assert os.stat(here / "b").st_ino == ino
    assert (here / "b").read_bytes() == b"new"
    assert os.listdir(here) == ["b"]


def test_rename_flags_do_what_they_say(here: Path) -> None:
    (here / "a").write_bytes(b"A")
    (here / "b").write_bytes(b"B")
    with refused(errno.EEXIST):
        renameat2(here / "a", here / "b", NOREPLACE)
    renameat2(here / "a", here / "b", EXCHANGE)
    assert (here / "a").read_bytes() == b"B"
    assert (here / "b").read_bytes() == b"A"
    renameat2(here / "a", here / "c", NOREPLACE)
    assert sorted(os.listdir(here)) == ["b", "c"]
    with refused(errno.EINVAL):
        renameat2(here / "b", here / "d", WHITEOUT)


def test_directory_cannot_move_below_itself(here: Path) -> None:
    os.makedirs(here / "a/b")
    with refused(errno.EINVAL):
        os.rename(here / "a", here / "a/b/c")


def test_moved_directory_has_its_new_parent(here: Path) -> None:
    os.makedirs(here / "a/b")
    os.mkdir(here / "c")
    os.rename(here / "a/b", here / "c/b")
    assert os.stat(here / "c/b/..").st_ino == os.stat(here / "c").st_ino


def test_hard_links_share_everything(here: Path) -> None:
    (here / "a").write_bytes(b"one")
    os.link(here / "a", here / "b")
    assert os.stat(here / "a").st_nlink == 2
    with open(here / "b", "ab") as file:
        file.write(b" two")
    assert (here / "a").read_bytes() == b"one two"
    os.unlink(here / "a")
    assert os.stat(here / "b").st_nlink == 1
    assert (here / "b").read_bytes() == b"one two"


def test_symbolic_links_lead_and_dangle(here: Path) -> None:
    os.symlink("target", here / "s")
    assert os.readlink(here / "s") == "target"
    assert os.lstat(here / "s").st_size == 6
    with refused(errno.ENOENT):
        os.stat(here / "s")
    (here / "target").write_bytes(b"t")
    assert (here / "s").read_bytes() == b"t"
    with refused(errno.ENAMETOOLONG):
        os.symlink("x" * 4096, here / "long")


def test_special_files_are_kept(here: Path) -> None:
    os.mkfifo(here / "p", 0o600)
    assert stat.S_ISFIFO(os.stat(here / "p").st_mode)
    if os.geteuid() == 0:
        os.mknod(here / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
        assert os.stat(here / "null").st_rdev == os.makedev(1, 3)


def test_names_of_several_pages_are_all_listed_once(here: Path) -> None:
    count = 3 * PAGE + 1
    names = {f"{number:05d}" for number in range(count)}
    for name in names:
        os.close(os.open(here / name, os.O_CREAT | os.O_WRONLY))
    assert sorted(os.listdir(here)) == sorted(names)
    with os.scandir(here) as entries:
        assert sum(entry.stat().st_size == 0 for entry in entries) == count


def test_listing_while_removing_skips_nothing(here: Path) -> None:
    for number in range(500):
        (here / f"{number}").touch()
    subprocess.run(["rm", "-rf", here], check=True, timeout=30)
    assert not here.exists()


def test_extended_attributes_are_set_listed_removed(here: Path) -> None:
    (here / "f").touch()
    for path in (here, here / "f"):
        os.setxattr(path, "user.one", b"1")
        os.setxattr(path, "user.two", b"\0" * 3000)
        assert os.getxattr(path, "user.two") == b"\0" * 3000
        assert sorted(os.listxattr(path)) == ["user.one", "user.two"]
        with refused(errno.EEXIST):
            os.setxattr(path, "user.one", b"2", os.XATTR_CREATE)
        with refused(errno.ENODATA):
            os.setxattr(path, "user.none", b"2", os.XATTR_REPLACE)
        os.removexattr(path, "user.one")
        with refused(errno.ENODATA):
            os.getxattr(path, "user.one")
        with refused(errno.ENODATA):
            os.removexattr(path, "user.one")


def test_filesystem_tells_its_space(here: Path) -> None:
    space = os.statvfs(here)
    assert space.f_blocks > 0
    assert 0 < space.f_bavail <= space.f_blocks
    assert space.f_namemax == 255


@pytest.mark.skipif(os.geteuid() != 0, reason="acts as another user, which needs root")
@pytest.mark.parametrize("flags", [os.O_WRONLY, os.O_RDWR, os.O_WRONLY | os.O_APPEND])
def test_a_write_by_another_user_takes_setuid_and_setgid(
    here: Path, there: Path, flags: int
) -> None:
    (here / "f").touch()
    os.chmod(here / "f", 0o6777)
    directory = os.open(here, os.O_PATH)  # strangers may not walk there
    with acting_as(1001):
        fd = os.open("f", flags, dir_fd=directory)
        os.write(fd, b"first")
    assert stat.S_IMODE(os.stat(here / "f").st_mode) == 0o777
    os.chmod(there / "f", 0o6777)
    assert stat.S_IMODE(os.fstat(fd).st_mode) == 0o6777
    with acting_as(1001):
        os.write(fd, b"second")
        os.close(fd)
    assert stat.S_IMODE(os.stat(there / "f").st_mode) == 0o777
    assert (there / "f").read_bytes() == b"firstsecond"
    os.close(directory)


def test_a_removed_directory_that_is_open_is_empty_and_has_no_link(here: Path, there: Path) -> None:
    """As on any filesystem; `cd d; rmdir ../d; ls` prints nothing."""
    os.mkdir(here / "d")
    opened = [os.open(place / "d", os.O_RDONLY) for place in (here, there)]
    assert [os.fstat(fd).st_nlink for fd in opened] == [2, 2]
    os.rmdir(here / "d")
    for fd in opened:
        assert os.fstat(fd).st_nlink == 0
        assert os.listdir(fd) == []
        os.close(fd)
    for place in (here, there):
        with refused(errno.ENOENT):
            os.stat(place / "d")


def test_extended_attributes_have_a_kind_and_a_name(here: Path) -> None:
    (here / "f").touch()
    with refused(errno.EINVAL):
        os.setxattr(here / "f", "user.", b"1")
    with refused(errno.ENOTSUP):
        os.getxattr(here / "f", "unknown.kind")
    os.setxattr(here / "f", "user.k", b"1")
    before = os.stat(here / "f").st_ctime_ns
    os.setxattr(here / "f", "user.k", b"1")
    assert os.stat(here / "f").st_ctime_ns == before
