"""Many small files: created, looked at, read and renamed one after the other.

Names are a function of their number, so that a fresh mount can be asked for
them without first listing a directory.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator

DIRECTORIES = 10
FILE_BYTES = 4096
CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL


def _directories(root: str) -> list[str]:
    return [f"{root}/d{number}" for number in range(DIRECTORIES)]


def _paths(root: str, count: int) -> Iterator[str]:
    each = max(1, count // DIRECTORIES)
    for directory in _directories(root):
        for number in range(each):
            yield f"{directory}/file-{number:05d}"


def make_directory(path: str) -> None:
    """Make a directory and its parents."""
    os.makedirs(path, exist_ok=True)


def make_file(path: str) -> None:
    """Make an empty file."""
    os.close(os.open(path, CREATE, 0o644))


def create(root: str, count: int, size: int) -> float:
    """Files created a second, each with `size` bytes, to the closing fsync of each directory."""
    content = random.Random(3).randbytes(size)
    directories = _directories(root)
    for directory in directories:
        os.makedirs(directory)
    made = 0
    start = time.perf_counter()
    for path in _paths(root, count):
        fd = os.open(path, CREATE, 0o644)
        if size:
            os.write(fd, content)
        os.close(fd)
        made += 1
    for directory in directories:
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        os.fsync(fd)
        os.close(fd)
    return made / (time.perf_counter() - start)


def stat_all(root: str, count: int, size: int) -> float:
    """stat(2) calls a second on names never asked for before."""
    paths = list(_paths(root, count))
    wrong = 0
    start = time.perf_counter()
    for path in paths:
        wrong += os.stat(path).st_size != size
    seconds = time.perf_counter() - start
    if wrong:
        raise OSError(f"{wrong} files have another size than was written")
    return len(paths) / seconds


def read_all(root: str, count: int, size: int) -> float:
    """Files opened, read whole and closed a second."""
    content = random.Random(3).randbytes(size)
    paths = list(_paths(root, count))
    wrong = 0
    start = time.perf_counter()
    for path in paths:
        fd = os.open(path, os.O_RDONLY)
        wrong += os.read(fd, size + 1) != content
        os.close(fd)
    seconds = time.perf_counter() - start
    if wrong:
        raise OSError(f"{wrong} files have another content than was written")
    return len(paths) / seconds


def rename_all(root: str, count: int) -> float:
    """Renames a second, each to a free name in the same directory."""
    pairs = [(path, f"{path}.renamed") for path in _paths(root, count)]
    start = time.perf_counter()
    for old, new in pairs:
        os.rename(old, new)
    return len(pairs) / (time.perf_counter() - start)


def count_files(root: str) -> int:
    """Files below `root`."""
    return sum(len(names) for _, _, names in os.walk(root))
