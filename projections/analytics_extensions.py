"""Sums of all regular files by extension, kept among the `counts` as differences that add up.

`projections.core.naming` tells what a batch changes. Most of that it knows by itself; of a file
with several names, or whose content changed under a name that did not, the names are asked. To
look at all names takes longer than all else that is done for a small batch's extensions.
"""

from __future__ import annotations

import stat
from collections.abc import Mapping
from typing import Any

import duckdb

from projections.core.following import DirentKey, Items
from projections.core.naming import ByExtension, add, renamed, suffix_of
from projections.duck_rows import among

EXTENSION = "extension"  # what such counts are of
CountsRow = tuple[Any, ...]  # as the table `counts` has them
_DISK = "(stored + 511) // 512 * 512"
ADDED_UP = (
    "SELECT extension, sum(files)::BIGINT AS files, sum(bytes)::BIGINT AS bytes,"
    f" sum(disk_bytes)::BIGINT AS disk_bytes FROM counts WHERE of = '{EXTENSION}'"
    " GROUP BY extension HAVING sum(files) <> 0"
)
_SUMS = (
    f"SELECT '{EXTENSION}' AS of, 0 AS key, coalesce(h.extension, '') AS extension,"
    " {sign} * count(*) AS files, {sign} * sum(size)::BIGINT AS bytes,"
    f" {{sign}} * sum({_DISK})::BIGINT AS disk_bytes"
    " FROM (SELECT * FROM {inodes} WHERE mode & 61440 = 32768) i LEFT JOIN {homes} h USING (ino)"
    " GROUP BY ALL"
)
SUMS = _SUMS.format(sign=1, inodes="inodes", homes="homes")  # of all inodes, as `counts` has them
# Extensions of the least names of some inodes: to ask `homes` would look at all names.
_LEAST = (
    "(SELECT ino, min({{'parent': parent, 'name': name, 'extension': extension}}).extension"
    " AS extension FROM dirents WHERE {some} GROUP BY ino)"
)
_ONLY = "SELECT ino, extension FROM dirents WHERE {some}"
_LINKS = "SELECT ino, parent, name, extension FROM dirents WHERE {some}"
Links = dict[int, dict[DirentKey, str]]  # extensions by name, by inode


def take_out(changes: ByExtension, connection: duckdb.DuckDBPyConnection) -> Links:
    """Before the items change: what those count for whom the rows must be asked.

    Returns:
      All names, with their extensions, of the files with several.
    """
    _ask(changes, connection, -1)
    links: Links = {ino: {} for ino, *_ in changes.linked}
    if links:
        some, bound = among("ino", list(links))
        found = connection.execute(_LINKS.format(some=some), bound).fetchall()
        for ino, parent, name, extension in found:
            links[ino][parent, name] = extension
    return links


def put_in(
    changes: ByExtension, links: Links, items: Items, connection: duckdb.DuckDBPyConnection
) -> list[CountsRow]:
    """After the items have changed; what is known goes into `counts` with the caller's."""
    _ask(changes, connection, 1)
    sums: dict[str, list[int]] = {}
    for suffix, more in changes.known.items():
        _add(sums, _lower(suffix, connection), *more)
    if changes.resized:
        some, bound = among("ino", [ino for ino, *_ in changes.resized])
        extensions = dict(connection.execute(_ONLY.format(some=some), bound).fetchall())
        for ino, size, on_disk in changes.resized:
            _add(sums, extensions.get(ino, ""), 0, size, on_disk)
    if changes.linked:
        after = renamed(links, items)
        for ino, old, new in changes.linked:
            if old is not None:
                add(sums, _counts_at(links[ino], connection), -1, old)
            if new is not None:
                add(sums, _counts_at(after[ino], connection), 1, new)
    return [(EXTENSION, 0, one, *found) for one, found in sums.items() if any(found)]


def _add(sums: dict[str, list[int]], extension: str, files: int, size: int, on_disk: int) -> None:
    found = sums.setdefault(extension, [0, 0, 0])
    found[0] += files
    found[1] += size
    found[2] += on_disk


def _counts_at(links: Mapping[DirentKey, str | None], connection: duckdb.DuckDBPyConnection) -> str:
    """Extension of the least of a regular file's names; "" if it has none."""
    if not links:
        return ""
    least = min(links)
    known = links[least]
    return _lower(suffix_of(least[1]), connection) if known is None else known


def extension_of(name: str, kind: int, connection: duckdb.DuckDBPyConnection) -> str:
    """What the macro of that name gives, of a name and the type bits of st_mode."""
    return _lower(suffix_of(name), connection) if stat.S_ISREG(kind) else ""


def _lower(suffix: str, connection: duckdb.DuckDBPyConnection) -> str:
    """As the rows have it: not every letter is to Python what it is to DuckDB."""
    if suffix.isascii():
        return suffix.lower()
    ((lower,),) = connection.execute("SELECT lower($1::VARCHAR)", [suffix]).fetchall()
    return str(lower)


def _ask(changes: ByExtension, connection: duckdb.DuckDBPyConnection, sign: int) -> None:
    if changes.asked:
        _count("ino IN (SELECT unnest($1))", sign, connection, [changes.asked])


def put_in_copy(connection: duckdb.DuckDBPyConnection, numbers: str) -> None:
    """Add inodes that a snapshot made; `numbers` is the SQL condition that they fulfil."""
    _count(numbers, 1, connection, [])


def _count(
    some: str, sign: int, connection: duckdb.DuckDBPyConnection, bound: list[list[int]]
) -> None:
    inodes, homes = f"(SELECT * FROM inodes WHERE {some})", _LEAST.format(some=some)
    sums = _SUMS.format(sign=sign, inodes=inodes, homes=homes)
    connection.execute(f"INSERT INTO counts {sums}", bound)
