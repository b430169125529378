"""Random programs on two mounts and on a local directory, which must see the same.

A step is one system call, or a few, made with a local directory and, by the same path, with
one of two mounts of one cluster, as root or as another user. Results, errors and times are
compared at once, whole trees now and then and at the end. Between mounts data is promised
once it is fsynced or closed, so handles of the other mount are fsynced before each step;
names are promised at once.

What differs by design and is therefore not tried: shared mappings of handles opened
O_APPEND, fallocate, SEEK_DATA and SEEK_HOLE, locks between mounts, times of access, times
after 2116 (which the mount keeps as the last there is, as Linux does of filesystems with a
shorter range), sizes of directories, changes of a
directory that is open and was removed (ESTALE), the position that write(2) leaves at a handle
opened O_APPEND while others append. Content takes no more room than locally, and may take less.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import shutil
import stat
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from tests.fuse.sides import (
    Side,
    Step,
    assert_equal,
    check_stamps,
    facts,
    now_ns,
    outcome,
    rename2,
    room,
    stamps,
    tree,
)

NOREPLACE, EXCHANGE = 1, 2
HANDLES_MAX = 6
OUTSIDE = 6  # directories around a program's own, all alike
SIZE_MAX = 300_000

NAMES = st.sampled_from([b"a", b"b", b"c"])
ODD_NAMES = st.sampled_from([b"\xff\xfe", b"n" * 255, b"n" * 256, b"sp ace\n"])
PATHS = st.one_of(
    NAMES,
    st.lists(NAMES, min_size=2, max_size=3).map(b"/".join),
    st.tuples(NAMES, ODD_NAMES).map(b"/".join),
)
DIRECTORIES = st.sampled_from([b"a", b"a/a", b"b"])
FILES = st.sampled_from([b"a/b", b"a/a/a", b"b", b"c", b"b/b"])
MOUNTS = st.integers(0, 1)
USERS = st.sampled_from([0, 0, 0, 1000, 1001] if os.geteuid() == 0 else [0])
FLAGS = st.tuples(
    st.sampled_from([os.O_RDONLY, os.O_WRONLY, os.O_RDWR, os.O_RDWR]),
    st.sampled_from([0, os.O_CREAT, os.O_CREAT, os.O_CREAT | os.O_EXCL]),
    st.sampled_from([0, 0, 0, os.O_TRUNC, os.O_NOFOLLOW, os.O_DIRECTORY]),
    st.sampled_from([0, 0, 0, os.O_APPEND, os.O_DSYNC]),
).map(sum)
MODES = st.sampled_from([0o644, 0o600, 0o755, 0o777, 0o2777, 0o2755, 0o4755, 0o6777, 0o1777, 0o000])
OFFSETS = st.one_of(st.integers(0, 100), st.integers(0, SIZE_MAX), st.sampled_from([4096, 65536]))
LENGTHS = st.one_of(st.integers(0, 100), st.integers(0, 70_000), st.sampled_from([4096, 131072]))
TIMES = st.integers(-(2**31 - 1) * 10**9, 2**62 - 1)  # 1901, before which ext4 has none, to 2116
KEYS = st.sampled_from(["user.k1", "user.k2", "user." + "x" * 100])


class Programs(RuleBasedStateMachine):
    """See the module's text. Set `local` and `mounts` (directories) before a run."""

    local: Path
    mounts: tuple[Path, Path]
    runs = 0

    def __init__(self) -> None:
        super().__init__()
        Programs.runs += 1
        self.name = f"run{Programs.runs}"
        for place in (self.local, self.mounts[0]):
            made = place / self.name
            for _ in range(OUTSIDE):  # symlinks to ".." lead there
                made.mkdir(parents=True)
                made.chmod(0o777)
                made /= "in"
            made.mkdir()
            made.chmod(0o777)
        below = Path(self.name, *["in"] * OUTSIDE)
        self.here = Side(os.fsencode(self.local / below))
        self.there = [Side(os.fsencode(mount / below)) for mount in self.mounts]
        self.on: dict[int, tuple[int, int]] = {}  # handle -> its mount, and who opened it
        self.next = 0

    def teardown(self) -> None:
        """The whole trees, through each mount, while files are open and after."""
        self._settle(-1)
        self._compare(*self.there)
        for handle in list(self.on):
            self._close(handle)
        self._compare(*self.there)
        for side in (self.here, *self.there):
            side.close()
        shutil.rmtree(self.local / self.name)
        shutil.rmtree(self.mounts[0] / self.name)
        assert not os.path.lexists(self.mounts[1] / self.name)

    def _compare(self, *sides: Side) -> None:
        expected = tree(self.here)
        room_here = room(self.here, expected)
        for side in sides:
            assert_equal(tree(side), expected)
            for path, size in room(side, expected).items():
                assert size <= room_here[path], f"{path!r} takes {size} bytes"

    def _both(self, which: int, step: Step, *watched: bytes | int, user: int = 0) -> Any:
        """Do it on both sides; the local outcome. `watched`: paths or handles."""
        self._settle(which)
        mount = self.there[which]
        before = stamps(self.here, watched), stamps(mount, watched)
        began = now_ns()
        expected, found = outcome(step, self.here, user), outcome(step, mount, user)
        assert_equal(found, expected)
        check_stamps(before, (stamps(self.here, watched), stamps(mount, watched)), began)
        return expected

    def _settle(self, which: int) -> None:
        """What was written through handles of the other mount is promised from now on."""
        for handle, (mount, _) in self.on.items():
            if mount != which:
                os.fsync(self.there[mount].descriptors[handle])

    def _close(self, handle: int) -> None:
        for side in (self.here, self.there[self.on.pop(handle)[0]]):
            os.close(side.descriptors.pop(handle))

    @initialize(directories=st.sets(DIRECTORIES), files=st.sets(FILES))
    def populate(self, directories: set[bytes], files: set[bytes]) -> None:
        """A program in an empty tree is mostly refused."""
        for name in sorted(directories):
            self._both(0, partial(_make_directory, name))
        for name in sorted(files - directories):
            self._both(1, partial(_make_file, name))

    # --- names

    @rule(which=MOUNTS, user=USERS, name=PATHS, mode=MODES)
    def mkdir(self, which: int, user: int, name: bytes, mode: int) -> None:
        self._both(which, lambda side: os.mkdir(side.path(name), mode), name, user=user)

    @rule(which=MOUNTS, user=USERS, name=PATHS)
    def rmdir(self, which: int, user: int, name: bytes) -> None:
        self._both(which, lambda side: os.rmdir(side.path(name)), name, user=user)

    @rule(which=MOUNTS, user=USERS, name=PATHS)
    def unlink(self, which: int, user: int, name: bytes) -> None:
        self._both(which, lambda side: os.unlink(side.path(name)), name, user=user)

    @rule(
        which=MOUNTS,
        user=USERS,
        old=PATHS,
        new=PATHS,
        flags=st.sampled_from([0, 0, 0, NOREPLACE, EXCHANGE]),
    )
    def rename(self, which: int, user: int, old: bytes, new: bytes, flags: int) -> None:
        self._both(
            which, lambda side: rename2(side.path(old), side.path(new), flags), old, new, user=user
        )

    @rule(which=MOUNTS, user=USERS, old=PATHS, new=PATHS)
    def link(self, which: int, user: int, old: bytes, new: bytes) -> None:
        def step(side: Side) -> None:
            os.link(side.path(old), side.path(new), follow_symlinks=False)

        self._both(which, step, old, new, user=user)

    @rule(
        which=MOUNTS,
        user=USERS,
        content=st.one_of(PATHS, st.sampled_from([b".", b"..", b"x" * 1000])),
        name=PATHS,
    )
    def symlink(self, which: int, user: int, content: bytes, name: bytes) -> None:
        self._both(which, lambda side: os.symlink(content, side.path(name)), name, user=user)

    @rule(which=MOUNTS, user=USERS, name=PATHS, kind=st.sampled_from([stat.S_IFIFO, stat.S_IFSOCK]))
    def mknod(self, which: int, user: int, name: bytes, kind: int) -> None:
        self._both(which, lambda side: os.mknod(side.path(name), kind | 0o640), name, user=user)

    # --- attributes

    @rule(which=MOUNTS, user=USERS, name=PATHS)
    def look(self, which: int, user: int, name: bytes) -> None:
        def step(side: Side) -> object:
            path = side.path(name)
            listed = outcome(lambda _: sorted(os.listdir(path)), side)
            target = outcome(lambda _: os.readlink(path), side)
            return facts(os.lstat(path)), listed, target, outcome(lambda _: os.stat(path)[0], side)

        self._both(which, step, user=user)

    @rule(which=MOUNTS, user=USERS, name=PATHS, mode=MODES)
    def chmod(self, which: int, user: int, name: bytes, mode: int) -> None:
        self._both(which, lambda side: os.chmod(side.path(name), mode), name, user=user)

    @precondition(lambda _: os.geteuid() == 0)
    @rule(
        which=MOUNTS,
        user=USERS,
        name=PATHS,
        uid=st.sampled_from([-1, 0, 1000]),
        gid=st.sampled_from([-1, 0, 1000]),
    )
    def chown(self, which: int, user: int, name: bytes, uid: int, gid: int) -> None:
        if (uid, gid) != (-1, -1):  # whether that moves ctime POSIX leaves open
            self._both(which, lambda side: os.lchown(side.path(name), uid, gid), name, user=user)

    @rule(which=MOUNTS, user=USERS, name=PATHS, atime_ns=TIMES, mtime_ns=TIMES)
    def utime(self, which: int, user: int, name: bytes, atime_ns: int, mtime_ns: int) -> None:
        def step(side: Side) -> tuple[int, int]:
            path = side.path(name)
            os.utime(path, ns=(atime_ns, mtime_ns), follow_symlinks=False)
            found = os.lstat(path)
            return found.st_atime_ns, found.st_mtime_ns

        self._both(which, step, name, user=user)

    @rule(which=MOUNTS, user=USERS, name=PATHS)
    def touch(self, which: int, user: int, name: bytes) -> None:
        self._both(which, lambda side: os.utime(side.path(name)), name, user=user)

    @rule(which=MOUNTS, user=USERS, name=PATHS, size=OFFSETS)
    def truncate(self, which: int, user: int, name: bytes, size: int) -> None:
        self._both(which, lambda side: os.truncate(side.path(name), size), name, user=user)

    @rule(
        which=MOUNTS,
        user=USERS,
        name=PATHS,
        key=KEYS,
        value=st.binary(max_size=300),
        flags=st.sampled_from([0, 0, os.XATTR_CREATE, os.XATTR_REPLACE]),
    )
    def setxattr(
        self, which: int, user: int, name: bytes, key: str, value: bytes, flags: int
    ) -> None:
        def step(side: Side) -> None:
            os.setxattr(side.path(name), key, value, flags, follow_symlinks=False)

        self._both(which, step, name, user=user)

    @rule(which=MOUNTS, user=USERS, name=PATHS, key=KEYS)
    def removexattr(self, which: int, user: int, name: bytes, key: str) -> None:
        def step(side: Side) -> None:
            os.removexattr(side.path(name), key, follow_symlinks=False)

        self._both(which, step, name, user=user)

    # --- handles

    @precondition(lambda self: len(self.on) < HANDLES_MAX)
    @rule(which=MOUNTS, user=USERS, name=PATHS, flags=FLAGS, mode=MODES)
    def open(self, which: int, user: int, name: bytes, flags: int, mode: int) -> None:
        handle, self.next = self.next, self.next + 1

        def step(side: Side) -> int:
            descriptor = os.open(side.path(name), flags | os.O_NONBLOCK, mode)
            kind = stat.S_IFMT(os.fstat(descriptor).st_mode)
            if kind in (stat.S_IFREG, stat.S_IFDIR):
                side.descriptors[handle] = descriptor
            else:
                os.close(descriptor)
            return kind

        if self._both(which, step, name, user=user) in (stat.S_IFREG, stat.S_IFDIR):
            self.on[handle] = which, user

    def _at_handle(self, pick: int, step: Callable[[int], Any]) -> Any:
        handle = list(self.on)[pick % len(self.on)]
        which, user = self.on[handle]
        return self._both(which, lambda side: step(side.descriptors[handle]), handle, user=user)

    @precondition(lambda self: self.on)
    @rule(pick=st.integers(0, HANDLES_MAX), offset=OFFSETS, length=LENGTHS, tag=st.integers(1, 255))
    def pwrite(self, pick: int, offset: int, length: int, tag: int) -> None:
        self._at_handle(pick, lambda at: os.pwrite(at, bytes([tag]) * length, offset))

    @precondition(lambda self: self.on)
    @rule(pick=st.integers(0, HANDLES_MAX), length=LENGTHS, tag=st.integers(1, 255))
    def write(self, pick: int, length: int, tag: int) -> None:
        self._at_handle(pick, lambda at: os.write(at, bytes([tag]) * length))

    @precondition(lambda self: self.on)
    @rule(pick=st.integers(0, HANDLES_MAX), offset=OFFSETS, length=LENGTHS)
    def pread(self, pick: int, offset: int, length: int) -> None:
        self._at_handle(pick, lambda at: os.pread(at, length, offset))

    @precondition(lambda self: self.on)
    @rule(pick=st.integers(0, HANDLES_MAX), size=OFFSETS)
    def ftruncate(self, pick: int, size: int) -> None:
        self._at_handle(pick, lambda at: os.ftruncate(at, size))

    @precondition(lambda self: self.on)
    @rule(pick=st.integers(0, HANDLES_MAX), offset=st.integers(-10, SIZE_MAX))
    def seek(self, pick: int, offset: int) -> None:
        def step(at: int) -> tuple[object, ...]:
            _require_file(os.fstat(at))
            end = os.lseek(at, 0, os.SEEK_END)
            return end, os.lseek(at, offset, os.SEEK_SET), os.read(at, 100)

        self._at_handle(pick, step)

    @precondition(lambda self: self.on)
    @rule(pick=st.integers(0, HANDLES_MAX))
    def fstat(self, pick: int) -> None:
        def step(at: int) -> object:
            found = os.fstat(at)
            return facts(found), stat.S_ISDIR(found.st_mode) and sorted(os.listdir(at))

        self._at_handle(pick, step)

    @precondition(lambda self: self.on)
    @rule(pick=st.integers(0, HANDLES_MAX), mode=MODES, key=KEYS, value=st.binary(max_size=100))
    def fchmod(self, pick: int, mode: int, key: str, value: bytes) -> None:
        """And attributes through the handle: it may have lost its name."""

        def attribute(at: int) -> None:
            if not _removed(at):
                os.setxattr(at, key, value)

        def times(at: int) -> None:
            if not _removed(at):
                os.utime(at, ns=(len(value), len(value)))

        def bits(at: int) -> None:
            if not _removed(at):
                os.fchmod(at, mode)

        for step in (bits, attribute, times):
            self._at_handle(pick, step)

    @precondition(lambda self: self.on)
    @rule(pick=st.integers(0, HANDLES_MAX), datasync=st.booleans())
    def fsync(self, pick: int, datasync: bool) -> None:
        self._at_handle(pick, os.fdatasync if datasync else os.fsync)

    @precondition(lambda self: self.on)
    @rule(pick=st.integers(0, HANDLES_MAX), offset=OFFSETS, content=st.binary(max_size=20))
    def map_shared(self, pick: int, offset: int, content: bytes) -> None:
        def step(at: int) -> bytes:
            _require_file(os.fstat(at))
            size = os.fstat(at).st_size
            if not size or fcntl.fcntl(at, fcntl.F_GETFL) & os.O_APPEND:
                return b""
            with mmap.mmap(at, size) as mapped:
                start = offset % size
                piece = content[: size - start]
                mapped[start : start + len(piece)] = piece
                return mapped[:1000]

        self._at_handle(pick, step)

    @precondition(lambda self: self.on)
    @rule(pick=st.integers(0, HANDLES_MAX))
    def close(self, pick: int) -> None:
        self._close(list(self.on)[pick % len(self.on)])

    @rule(which=MOUNTS, name=PATHS, tag=st.integers(1, 255))
    def rewrite(self, which: int, name: bytes, tag: int) -> None:
        """As many bytes, and the time before: nothing but the content shows it (`rsync -t`)."""

        def step(side: Side) -> bytes:
            path = side.path(name)
            _require_file(os.stat(path))
            with open(path, "r+b", buffering=0) as file:
                before = os.fstat(file.fileno())
                file.write(bytes([tag]) * before.st_size)
            os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
            return _read(path)

        if isinstance(self._both(which, step), bytes):
            self._both(1 - which, lambda side: _read(side.path(name)))

    @rule()
    def agree(self) -> None:
        """Both mounts tell the same times of all there is."""
        self._settle(-1)
        names = tuple(path[1:] for path in tree(self.here))
        assert_equal(*(stamps(side, names) for side in self.there))

    @rule(which=MOUNTS)
    def compare(self, which: int) -> None:
        self._settle(which)
        self._compare(self.there[which])


def _make_directory(name: bytes, side: Side) -> None:
    os.mkdir(side.path(name))
    os.chmod(side.path(name), 0o777)


def _make_file(name: bytes, side: Side) -> None:
    with open(side.path(name), "wb") as file:
        file.write(name[-1:] * 10_000)
    os.chmod(side.path(name), 0o666)


def _removed(at: int) -> bool:
    """A directory that was removed: stale for whoever would change it."""
    found = os.fstat(at)
    return not found.st_nlink and stat.S_ISDIR(found.st_mode)


def _require_file(found: os.stat_result) -> None:
    """What is said of positions in directories differs between filesystems, too."""
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "not a file")


def _read(path: bytes) -> bytes:
    with open(path, "rb") as file:
        return file.read()
