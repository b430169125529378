"""Sums of all regular files by extension, kept among the `counts` as differences that add up.

`projections.core.naming` tells what a batch changes. Most of that it knows by itself; the names of
other files are asked (`projections.analytics_names`).
"""

from __future__ import annotations

from typing import Any

import duckdb

from gfs.changes import Image
from projections.analytics_names import Change, lower
from projections.core.counting import counted
from projections.core.naming import add_image

EXTENSION = "extension"  # what such counts are of
CountsRow = tuple[Any, ...]  # as `counts` has them
Sums = dict[str, list[int]]  # by extension: files, bytes, bytes on disk
_DISK = "(stored + 511) // 512 * 512"
ADDED_UP = (
    "SELECT extension, sum(files)::BIGINT AS files, sum(bytes)::BIGINT AS bytes,"
    f" sum(disk_bytes)::BIGINT AS disk_bytes FROM counts WHERE of = '{EXTENSION}'"
    " GROUP BY extension HAVING sum(files) <> 0"
)
_SUMS = (
    f"SELECT '{EXTENSION}' AS of, 0 AS key, coalesce(h.extension, '') AS extension,"
    " count(*) AS files, sum(size)::BIGINT AS bytes,"
    f" sum({_DISK})::BIGINT AS disk_bytes"
    " FROM (SELECT * FROM {inodes} WHERE mode & 61440 = 32768) i LEFT JOIN {homes} h USING (ino)"
    " GROUP BY ALL"
)
SUMS = _SUMS.format(inodes="inodes", homes="homes")  # of all inodes, as `counts` has them
# Extensions of the least names of some inodes: to ask `homes` would look at all names.
_LEAST = (
    "(SELECT ino, min({{'parent': parent, 'name': name, 'extension': extension}}).extension"
    " AS extension FROM dirents WHERE {some} GROUP BY ino)"
)
_SIZES = (
    "SELECT ino, size, stored FROM main_inodes"
    " WHERE mode & 61440 = 32768 AND ino IN (SELECT unnest($1))"
)


def counts_of(change: Change, connection: duckdb.DuckDBPyConnection) -> list[CountsRow]:
    """What is to be added to `main_counts`."""
    sums = sums_of(change, connection)
    for ino, size, disk in change.sums.resized:
        add(sums, change.before(ino), 0, size, disk)
    return rows_of(change, sums)


def rows_of(change: Change, sums: Sums) -> list[CountsRow]:
    """Rows of `counts`: those of `sums`, and of the histograms."""
    rows: list[CountsRow] = [
        (EXTENSION, 0, one, *found) for one, found in sums.items() if any(found)
    ]
    rows += [(of, key, "", *found, 0) for (of, key), found in counted(change.files).items()]
    return rows


def sums_of(change: Change, connection: duckdb.DuckDBPyConnection) -> Sums:
    """What changes by extension, but for files that are only resized."""
    sums: Sums = {}
    for suffix, more in change.sums.known.items():
        add(sums, lower(suffix, connection), *more)
    _add_asked(change, sums, connection)
    return sums


def _add_asked(change: Change, sums: Sums, connection: duckdb.DuckDBPyConnection) -> None:
    """Files that count at names which the batch does not tell."""
    olds, news, others = change.items.old_inodes, change.items.inodes, list[int]()
    for ino in change.sums.asked:
        if ino not in news:
            others.append(ino)
            continue
        if (old := olds.get(ino)) is not None:
            add_image(sums, change.before(ino), -1, old)
        if (new := news[ino]) is not None:
            add_image(sums, change.extension_after(ino), 1, new)
    if others:  # the batch has no image of them
        for ino, size, stored in connection.execute(_SIZES, [others]).fetchall():
            image = Image(size=size, stored=stored)
            add_image(sums, change.before(ino), -1, image)
            add_image(sums, change.extension_after(ino), 1, image)


def add(sums: Sums, extension: str, files: int, size: int, disk: int) -> None:
    """Count so many files, bytes and bytes on disk more."""
    found = sums.setdefault(extension, [0, 0, 0])
    found[0] += files
    found[1] += size
    found[2] += disk


def put_in_copy(connection: duckdb.DuckDBPyConnection, numbers: str) -> None:
    """Add inodes that a snapshot made; `numbers` is the SQL condition that they fulfil."""
    inodes, homes = f"(SELECT * FROM inodes WHERE {numbers})", _LEAST.format(some=numbers)
    connection.execute(f"INSERT INTO main_counts {_SUMS.format(inodes=inodes, homes=homes)}")
