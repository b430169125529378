"""A local directory and mounts, side by side: the same call on each, and what is compared.

A mount is asked by the same path below its own root. The root is a descriptor, so that a
user who may not walk there still can be tried below it.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from hypothesis import note

AT_FDCWD = -100
TICK_NS = 20_000_000  # a kernel's coarse clock stands still for at most so long
NEAR_NS = 60 * 10**9  # what is meant by "now"
LIBC = ctypes.CDLL(None, use_errno=True)


class Side:
    """The local directory or a mount: paths, and descriptors by the number of their handle."""

    def __init__(self, root: bytes) -> None:
        self._root = os.open(root, os.O_PATH | os.O_DIRECTORY)
        self.root = b"/proc/self/fd/%d" % self._root
        self.descriptors: dict[int, int] = {}

    def path(self, name: bytes) -> bytes:
        return self.root + b"/" + name

    def close(self) -> None:
        os.close(self._root)


Step = Callable[[Side], Any]


def outcome(step: Step, side: Side, user: int = 0) -> Any:
    """What it returned, or the name of its error."""
    try:
        with acting_as(user):
            return step(side)
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, str(error))


@contextmanager
def acting_as(user: int) -> Iterator[None]:
    """Files are made and asked for by user and group of this number; only root can."""
    if not user:
        yield
        return
    LIBC.setfsgid(user)
    LIBC.setfsuid(user)
    try:
        yield
    finally:
        LIBC.setfsuid(0)
        LIBC.setfsgid(0)


def facts(found: os.stat_result) -> tuple[int, ...]:
    """What must be equal of an inode's attributes."""
    size = 0 if stat.S_ISDIR(found.st_mode) else found.st_size
    return found.st_mode, found.st_nlink, found.st_uid, found.st_gid, size, found.st_rdev


def rename2(old: bytes, new: bytes, flags: int) -> None:
    """renameat2(2)."""
    if LIBC.renameat2(AT_FDCWD, old, AT_FDCWD, new, flags):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


class Found(NamedTuple):
    """A name of a tree. `same_as`: the first name of this inode; `kind` as listed."""

    facts: tuple[int, ...]
    content: object
    attributes: dict[str, bytes]
    same_as: bytes
    kind: tuple[bool, ...]


def tree(side: Side) -> dict[bytes, Found]:
    """Everything below the root: attributes, content, targets, extended attributes, links."""
    found: dict[bytes, Found] = {}
    first: dict[int, bytes] = {}
    todo = [b""]
    for at in todo:
        with os.scandir(side.path(at)) as listed:
            entries = sorted(listed, key=lambda entry: entry.name)
        for entry in entries:
            path = at + b"/" + os.fsencode(entry.name)
            full = side.path(path)
            one = os.lstat(full)
            if stat.S_ISDIR(one.st_mode):
                todo.append(path)
            assert entry.inode() == one.st_ino, f"{path!r} is listed as another inode"
            found[path] = Found(
                facts(one),
                _content(full, one.st_mode),
                {key: os.getxattr(full, key, follow_symlinks=False) for key in _keys(full)},
                first.setdefault(one.st_ino, path),
                (entry.is_dir(follow_symlinks=False), entry.is_symlink()),
            )
    return found


def _keys(path: bytes) -> list[str]:
    return sorted(os.listxattr(path, follow_symlinks=False))


def _content(path: bytes, mode: int) -> object:
    if stat.S_ISLNK(mode):
        return os.readlink(path)
    if not stat.S_ISREG(mode):
        return None
    with open(path, "rb") as file:
        return file.read()


def room(side: Side, paths: Iterable[bytes]) -> dict[bytes, int]:
    """Bytes that the content of each regular file among `paths` takes."""
    found = {}
    for path in paths:
        one = os.lstat(side.path(path))
        if stat.S_ISREG(one.st_mode):
            found[path] = one.st_blocks * 512
    return found


Stamps = dict[object, tuple[int, int]]


def stamps(side: Side, watched: tuple[bytes | int, ...]) -> Stamps:
    """mtime and ctime of paths and their directories, or of handles, in nanoseconds."""
    found: Stamps = {}
    for one in watched:
        places = [one] if isinstance(one, int) else [one, os.path.dirname(one)]
        for place in places:
            try:
                if isinstance(place, int):
                    stated = os.fstat(side.descriptors[place])
                else:
                    stated = os.lstat(side.path(place))
            except (OSError, KeyError):
                continue
            found[place] = stated.st_mtime_ns, stated.st_ctime_ns
    return found


def check_stamps(before: tuple[Stamps, Stamps], after: tuple[Stamps, Stamps], began: int) -> None:
    """What moved locally moved on the mount, to now or to the same time, and nothing else did.

    Args:
      before, after: the step, of the local side and of the mount.
      began: when the step did, ns.
    """
    (mine, theirs), (now, there) = before, after
    for place in mine.keys() & now.keys() & theirs.keys() & there.keys():
        for what, kind in enumerate(("mtime", "ctime")):
            old, new = mine[place][what], now[place][what]
            old_there, new_there = theirs[place][what], there[place][what]
            about = f"{kind} of {place!r}: {old_there} -> {new_there}, locally {old} -> {new}"
            if old != new:
                assert old_there != new_there, f"did not move: {about}"
                near = abs(new - new_there) < NEAR_NS
                assert near, f"moved elsewhere: {about}"
            elif old < began - TICK_NS:  # else it may have moved by less than a tick
                assert old_there == new_there, f"moved: {about}"


def now_ns() -> int:
    """The clock that stamps are of."""
    return time.time_ns()


def assert_equal(found: Any, expected: Any) -> None:
    """Raise with what differs, and no more of it than a person reads."""
    if found == expected:
        return
    if isinstance(found, dict) and isinstance(expected, dict):
        for path in sorted(found.keys() | expected.keys()):
            if found.get(path) != expected.get(path):
                note(f"{path!r}: {found.get(path)!r:.300} instead of {expected.get(path)!r:.300}")
    raise AssertionError(f"{found!r:.300} instead of {expected!r:.300}")
