"""A tree with one of everything that a copy may lose, and the comparison of two trees.

Usage: trees make DIRECTORY, trees compare ONE OTHER.
"""

from __future__ import annotations

import os
import random
import stat
import sys
from collections.abc import Iterator
from typing import Any

PLAIN = 200
Facts = dict[str, Any]


def make(directory: str) -> int:
    """Files of many sizes and modes, links, times, attributes, odd names."""
    rng = random.Random(1)
    os.makedirs(f"{directory}/plain")
    for number in range(PLAIN):
        path = f"{directory}/plain/file{number}"
        _write(path, rng.randbytes(rng.choice((0, 1, 4095, 4096, 4097, 100_000))))
        os.utime(path, ns=(10**18 + number, 10**18 + number * 1_000_001))
    odd = f"{directory}/odd"
    os.mkdir(odd)
    for name in (
        b"with space",
        b"new\nline",
        b"\xff\xfe",
        b"-rf",
        b"*",
        "ümlaut".encode(),
        b"n" * 255,
    ):
        _write(os.path.join(odd.encode(), name), name)
    for mode in (0o000, 0o400, 0o755, 0o1777, 0o2755, 0o4755):
        path = f"{odd}/mode{mode:o}"
        _write(path, b"mode")
        os.chmod(path, mode)
    if os.geteuid() == 0:
        for number in (1, 65534, 4_000_000_000):
            _write(f"{odd}/owner{number}", b"owner")
            os.chown(f"{odd}/owner{number}", number, number)
        os.mknod(f"{odd}/device", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    os.mkfifo(f"{odd}/fifo")
    os.symlink("nowhere/" * 100, f"{odd}/dangling")
    os.link(f"{odd}/mode755", f"{odd}/hard")
    os.link(f"{odd}/dangling", f"{odd}/hard-symlink")
    with open(f"{odd}/sparse", "wb") as file:
        file.seek(3_000_000)
        file.write(b"end")
    os.setxattr(f"{odd}/hard", "user.colour", b"blue\0")
    os.setxattr(odd, "user.empty", b"")
    os.utime(f"{odd}/dangling", ns=(5, 7), follow_symlinks=False)
    for path, mtime in ((odd, 12345), (f"{directory}/plain", -(10**18)), (directory, 2**61)):
        os.utime(path, ns=(1, mtime))
    return 0


def compare(one: str, other: str) -> int:
    """Print what differs; 0 if nothing does."""
    left, right = dict(_walk(one.encode())), dict(_walk(other.encode()))
    differs = 0
    for path in sorted(left.keys() | right.keys()):
        mine, theirs = left.get(path, {}), right.get(path, {})
        for key in sorted(mine.keys() | theirs.keys()):
            if mine.get(key) != theirs.get(key):
                differs = 1
                print(f"{path!r} {key}: {mine.get(key)!r:.80} and {theirs.get(key)!r:.80}")
    return differs


def _walk(root: bytes) -> Iterator[tuple[bytes, Facts]]:
    """Every path below a root with what is to be kept of it."""
    first: dict[int, bytes] = {}
    todo = [b""]
    for at in todo:
        full = root + at
        found = os.lstat(full)
        if stat.S_ISDIR(found.st_mode):
            todo += sorted(at + b"/" + name for name in os.listdir(full))
        yield at, _facts(full, found) | {"same as": first.setdefault(found.st_ino, at)}


def _facts(path: bytes, found: os.stat_result) -> Facts:
    facts: Facts = {
        "mode": oct(found.st_mode),
        "owner": (found.st_uid, found.st_gid),
        "device": found.st_rdev,
        "xattrs": {
            name: os.getxattr(path, name, follow_symlinks=False)
            for name in sorted(os.listxattr(path, follow_symlinks=False))
        },
    }
    if stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode) or stat.S_ISLNK(found.st_mode):
        facts["mtime"] = found.st_mtime_ns  # of others rsync keeps none
    if stat.S_ISLNK(found.st_mode):
        facts["target"] = os.readlink(path)
    if stat.S_ISREG(found.st_mode):
        facts["links"] = found.st_nlink
        with open(path, "rb") as file:
            facts["content"] = file.read()
    return facts


def _write(path: str | bytes, data: bytes) -> None:
    with open(path, "wb") as file:
        file.write(data)


if __name__ == "__main__":
    what, *words = sys.argv[1:]
    sys.exit(make(*words) if what == "make" else compare(*words))
