"""Random programs on two mounts and on a local directory, which must see the same.

A step is one system call, or a few, made with a local directory and, by the same path, with
one of two mounts of one cluster. Results, errors and what moved of the times are compared at
once, whole trees now and then and at the end. Between mounts data is promised once it is
fsynced or closed, so handles of the other mount are fsynced before each step; names are
promised at once.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
from hypothesis import note
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

NOREPLACE, EXCHANGE = 1, 2
AT_FDCWD = -100
HANDLES_MAX = 6
SIZE_MAX = 300_000
LIBC = ctypes.CDLL(None, use_errno=True)

NAMES = st.sampled_from([b"a", b"b", b"c"])
ODD_NAMES = st.sampled_from([b"\xff\xfe", b"n" * 255, b"n" * 256, b"sp ace\n"])
PATHS = st.one_of(
    NAMES,
    st.lists(NAMES, min_size=2, max_size=3).map(b"/".join),
    st.tuples(NAMES, ODD_NAMES).map(b"/".join),
)
FLAGS = st.tuples(
    st.sampled_from([os.O_RDONLY, os.O_WRONLY, os.O_RDWR, os.O_RDWR]),
    st.sampled_from([0, os.O_CREAT, os.O_CREAT, os.O_CREAT | os.O_EXCL]),
    st.sampled_from([0, 0, 0, os.O_TRUNC, os.O_APPEND, os.O_NOFOLLOW, os.O_DIRECTORY]),
).map(sum)
MODES = st.sampled_from([0o644, 0o600, 0o755, 0o2755, 0o4755, 0o1777, 0o000])
OFFSETS = st.one_of(st.integers(0, 100), st.integers(0, SIZE_MAX), st.sampled_from([4096, 65536]))
LENGTHS = st.one_of(st.integers(0, 100), st.integers(0, 70_000), st.sampled_from([4096, 131072]))
TIMES = st.integers(-(2**31) * 10**9, 2**33 * 10**9)  # 1901 to 2242
KEYS = st.sampled_from(["user.k1", "user.k2", "user." + "x" * 100])


class Side:
    """The local directory or a mount: paths, and descriptors by the number of their handle."""

    def __init__(self, root: bytes) -> None:
        self.root = root
        self.descriptors: dict[int, int] = {}

    def path(self, name: bytes) -> bytes:
        return self.root + b"/" + name


Step = Callable[[Side], Any]


def outcome(step: Step, side: Side) -> Any:
    """What it returned, or the name of its error."""
    try:
        return step(side)
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, str(error))


def facts(found: os.stat_result) -> tuple[int, ...]:
    """What must be equal of an inode's attributes."""
    size = 0 if stat.S_ISDIR(found.st_mode) else found.st_size
    return found.st_mode, found.st_nlink, found.st_uid, found.st_gid, size, found.st_rdev


def rename2(old: bytes, new: bytes, flags: int) -> None:
    """renameat2(2)."""
    if LIBC.renameat2(AT_FDCWD, old, AT_FDCWD, new, flags):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def tree(side: Side) -> dict[bytes, object]:
    """Everything below the root: attributes, content, targets, extended attributes."""
    found: dict[bytes, object] = {}
    todo = [b""]
    for at in todo:
        for name in sorted(os.listdir(side.path(at))):
            path = at + b"/" + name
            full = side.path(path)
            one = os.lstat(full)
            content: object = None
            if stat.S_ISDIR(one.st_mode):
                todo.append(path)
            elif stat.S_ISLNK(one.st_mode):
                content = os.readlink(full)
            elif stat.S_ISREG(one.st_mode):
                with open(full, "rb") as file:
                    content = file.read()
            keys = sorted(os.listxattr(full, follow_symlinks=False))
            values = [os.getxattr(full, key, follow_symlinks=False) for key in keys]
            found[path] = facts(one), content, keys, values
    return found


def stamps(side: Side, name: bytes) -> dict[bytes, tuple[int, int]]:
    """mtime and ctime of a path and of its directory, in nanoseconds."""
    found = {}
    for path in {name, os.path.dirname(name)}:
        try:
            one = os.lstat(side.path(path))
        except OSError:
            continue
        found[path] = one.st_mtime_ns, one.st_ctime_ns
    return found


class Programs(RuleBasedStateMachine):
    """See the module's text. Set `local` and `mounts` (directories) before a run."""

    local: Path
    mounts: tuple[Path, Path]
    runs = 0

    def __init__(self) -> None:
        super().__init__()
        Programs.runs += 1
        name = f"run{Programs.runs}"
        (self.local / name).mkdir(parents=True)
        (self.mounts[0] / name).mkdir()
        self.here = Side(os.fsencode(self.local / name))
        self.there = [Side(os.fsencode(mount / name)) for mount in self.mounts]
        self.on: dict[int, int] = {}  # handle -> mount that it was opened on
        self.next = 0

    def teardown(self) -> None:
        """The whole trees, through each mount, while files are open and after."""
        self._settle(-1)
        expected = tree(self.here)
        for side in self.there:
            assert_equal(tree(side), expected)
        for handle in list(self.on):
            self._close(handle)
        for side in self.there:
            assert_equal(tree(side), expected)
        shutil.rmtree(self.here.root)
        shutil.rmtree(self.there[0].root)
        assert not os.path.lexists(self.there[1].root)

    def _both(self, which: int, step: Step, *watched: bytes) -> Any:
        """Do it on both sides; the local outcome."""
        self._settle(which)
        mount = self.there[which]
        before = [(stamps(self.here, name), stamps(mount, name)) for name in watched]
        expected, found = outcome(step, self.here), outcome(step, mount)
        assert_equal(found, expected)
        for name, (mine, theirs) in zip(watched, before, strict=True):
            now, there = stamps(self.here, name), stamps(mount, name)
            for path in mine.keys() & now.keys() & theirs.keys() & there.keys():
                for what, kind in enumerate(("mtime", "ctime")):
                    moved = mine[path][what] != now[path][what]
                    stood = theirs[path][what] == there[path][what]
                    assert not (moved and stood), f"{kind} of {path!r} did not move"
        return expected

    def _settle(self, which: int) -> None:
        """What was written through handles of the other mount is promised from now on."""
        for handle, mount in self.on.items():
            if mount != which:
                os.fsync(self.there[mount].descriptors[handle])

    def _close(self, handle: int) -> None:
        for side in (self.here, self.there[self.on.pop(handle)]):
            os.close(side.descriptors.pop(handle))

    # --- names

    @rule(which=st.integers(0, 1), name=PATHS, mode=MODES)
    def mkdir(self, which: int, name: bytes, mode: int) -> None:
        self._both(which, lambda side: os.mkdir(side.path(name), mode), name)

    @rule(which=st.integers(0, 1), name=PATHS)
    def rmdir(self, which: int, name: bytes) -> None:
        self._both(which, lambda side: os.rmdir(side.path(name)), name)

    @rule(which=st.integers(0, 1), name=PATHS)
    def unlink(self, which: int, name: bytes) -> None:
        self._both(which, lambda side: os.unlink(side.path(name)), name)

    @rule(
        which=st.integers(0, 1),
        old=PATHS,
        new=PATHS,
        flags=st.sampled_from([0, 0, 0, NOREPLACE, EXCHANGE]),
    )
    def rename(self, which: int, old: bytes, new: bytes, flags: int) -> None:
        self._both(which, lambda side: rename2(side.path(old), side.path(new), flags), old, new)

    @rule(which=st.integers(0, 1), old=PATHS, new=PATHS)
    def link(self, which: int, old: bytes, new: bytes) -> None:
        def step(side: Side) -> None:
            os.link(side.path(old), side.path(new), follow_symlinks=False)

        self._both(which, step, old, new)

    @rule(
        which=st.integers(0, 1),
        content=st.one_of(PATHS, st.sampled_from([b".", b"..", b"x" * 1000])),
        name=PATHS,
    )
    def symlink(self, which: int, content: bytes, name: bytes) -> None:
        self._both(which, lambda side: os.symlink(content, side.path(name)), name)

    @rule(which=st.integers(0, 1), name=PATHS, kind=st.sampled_from([stat.S_IFIFO, stat.S_IFSOCK]))
    def mknod(self, which: int, name: bytes, kind: int) -> None:
        self._both(which, lambda side: os.mknod(side.path(name), kind | 0o640), name)

    # --- attributes

    @rule(which=st.integers(0, 1), name=PATHS)
    def look(self, which: int, name: bytes) -> None:
        def step(side: Side) -> object:
            path = side.path(name)
            listed = outcome(lambda _: sorted(os.listdir(path)), side)
            target = outcome(lambda _: os.readlink(path), side)
            return facts(os.lstat(path)), listed, target, outcome(lambda _: os.stat(path)[0], side)

        self._both(which, step)

    @rule(which=st.integers(0, 1), name=PATHS, mode=MODES)
    def chmod(self, which: int, name: bytes, mode: int) -> None:
        self._both(which, lambda side: os.chmod(side.path(name), mode), name)

    @precondition(lambda _: os.geteuid() == 0)
    @rule(
        which=st.integers(0, 1),
        name=PATHS,
        uid=st.sampled_from([-1, 0, 1000]),
        gid=st.sampled_from([-1, 0, 1000]),
    )
    def chown(self, which: int, name: bytes, uid: int, gid: int) -> None:
        self._both(which, lambda side: os.lchown(side.path(name), uid, gid), name)

    @rule(which=st.integers(0, 1), name=PATHS, atime_ns=TIMES, mtime_ns=TIMES)
    def utime(self, which: int, name: bytes, atime_ns: int, mtime_ns: int) -> None:
        def step(side: Side) -> tuple[int, int]:
            path = side.path(name)
            os.utime(path, ns=(atime_ns, mtime_ns), follow_symlinks=False)
            found = os.lstat(path)
            return found.st_atime_ns, found.st_mtime_ns

        self._both(which, step, name)

    @rule(which=st.integers(0, 1), name=PATHS, size=OFFSETS)
    def truncate(self, which: int, name: bytes, size: int) -> None:
        self._both(which, lambda side: os.truncate(side.path(name), size), name)

    @rule(
        which=st.integers(0, 1),
        name=PATHS,
        key=KEYS,
        value=st.binary(max_size=300),
        flags=st.sampled_from([0, 0, os.XATTR_CREATE, os.XATTR_REPLACE]),
    )
    def setxattr(self, which: int, name: bytes, key: str, value: bytes, flags: int) -> None:
        def step(side: Side) -> None:
            os.setxattr(side.path(name), key, value, flags, follow_symlinks=False)

        self._both(which, step, name)

    @rule(which=st.integers(0, 1), name=PATHS, key=KEYS)
    def removexattr(self, which: int, name: bytes, key: str) -> None:
        def step(side: Side) -> None:
            os.removexattr(side.path(name), key, follow_symlinks=False)

        self._both(which, step, name)

    # --- handles

    @precondition(lambda self: len(self.on) < HANDLES_MAX)
    @rule(which=st.integers(0, 1), name=PATHS, flags=FLAGS, mode=MODES)
    def open(self, which: int, name: bytes, flags: int, mode: int) -> None:
        handle, self.next = self.next, self.next + 1

        def step(side: Side) -> int:
            descriptor = os.open(side.path(name), flags | os.O_NONBLOCK, mode)
            kind = stat.S_IFMT(os.fstat(descriptor).st_mode)
            if kind == stat.S_IFREG:
                side.descriptors[handle] = descriptor
            else:
                os.close(descriptor)
            return kind

        if self._both(which, step, name) == stat.S_IFREG:
            self.on[handle] = which

    def _at_handle(self, pick: int, step: Callable[[int], Any]) -> None:
        handle = list(self.on)[pick % len(self.on)]
        self._both(self.on[handle], lambda side: step(side.descriptors[handle]))

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
            end = os.lseek(at, 0, os.SEEK_END)
            return end, os.lseek(at, offset, os.SEEK_SET), os.read(at, 100)

        self._at_handle(pick, step)

    @precondition(lambda self: self.on)
    @rule(pick=st.integers(0, HANDLES_MAX))
    def fstat(self, pick: int) -> None:
        self._at_handle(pick, lambda at: facts(os.fstat(at)))

    @precondition(lambda self: self.on)
    @rule(pick=st.integers(0, HANDLES_MAX), datasync=st.booleans())
    def fsync(self, pick: int, datasync: bool) -> None:
        self._at_handle(pick, os.fdatasync if datasync else os.fsync)

    @precondition(lambda self: self.on)
    @rule(pick=st.integers(0, HANDLES_MAX), offset=OFFSETS, content=st.binary(max_size=20))
    def map_shared(self, pick: int, offset: int, content: bytes) -> None:
        def step(at: int) -> bytes:
            size = os.fstat(at).st_size
            if not size:
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

    @rule(which=st.integers(0, 1))
    def compare(self, which: int) -> None:
        self._settle(which)
        assert_equal(tree(self.there[which]), tree(self.here))


def assert_equal(found: Any, expected: Any) -> None:
    """Raise with what differs, and no more of it than a person reads."""
    if found == expected:
        return
    if isinstance(found, dict) and isinstance(expected, dict):
        for path in sorted(found.keys() | expected.keys()):
            if found.get(path) != expected.get(path):
                note(f"{path!r}: {found.get(path)!r:.300} instead of {expected.get(path)!r:.300}")
    raise AssertionError(f"{found!r:.300} instead of {expected!r:.300}")
