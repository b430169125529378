"""What a batch changes in the histograms of all regular files: sizes, and ages by the day.

Counts are kept as differences that add up, so that a question about everything reads some
thousand rows and no inode. A day is one of UTC since 1970; what lies before counts on the day
that integer division by DuckDB gives, so that rows and counts can be compared.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from gfs.changes import Image
from projections.core.following import FileChange

DAY_NS = 86400 * 10**9
SIZES = "size"
AGES = ("mtime", "atime", "ctime", "created", "used")

Counts = dict[tuple[str, int], list[int]]  # (of what, key) -> files and bytes more or less


def day_of(time_ns: int) -> int:
    """The day that a time counts at."""
    return time_ns // DAY_NS if time_ns >= 0 else -(-time_ns // DAY_NS)


def keys_of(image: Image) -> tuple[int, ...]:
    """Where a file counts: by size, then by each of `AGES`."""
    size = image.size
    atime, mtime = image.atime_ns // DAY_NS, image.mtime_ns // DAY_NS
    ctime, created = image.ctime_ns // DAY_NS, image.created_ns // DAY_NS
    if atime < 0 or mtime < 0 or ctime < 0 or created < 0:
        atime, mtime = day_of(image.atime_ns), day_of(image.mtime_ns)
        ctime, created = day_of(image.ctime_ns), day_of(image.created_ns)
    used = max(mtime, atime)
    return 1 << (size.bit_length() - 1) if size else 0, mtime, atime, ctime, created, used


def counted(files: Iterable[FileChange]) -> Counts:
    """What is to be added to the counts; nothing that adds up to nothing."""
    alike: dict[tuple[int, ...], list[int]] = {}  # by all keys of a file: few in most batches
    for _, old, new in files:
        before = None if old is None else keys_of(old)
        after = None if new is None else keys_of(new)
        if old is not None and new is not None and before is not None and before == after:
            if new.size != old.size:
                _add(alike, before, 0, new.size - old.size)
            continue
        if before is not None and old is not None:
            _add(alike, before, -1, -old.size)
        if after is not None and new is not None:
            _add(alike, after, 1, new.size)
    found: Counts = {}
    for keys, (number, size) in alike.items():
        if number or size:
            for key in zip((SIZES, *AGES), keys, strict=True):
                _add(found, key, number, size)
    return {key: sums for key, sums in found.items() if sums[0] or sums[1]}


def _add(found: dict[Any, list[int]], key: Any, files: int, size: int) -> None:
    sums = found.get(key)
    if sums is None:
        found[key] = [files, size]
    else:
        sums[0] += files
        sums[1] += size
