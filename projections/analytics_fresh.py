"""Small batches of the analytics view: shown at once, worked into the large tables later.

To find a row among a million DuckDB looks at all of them, so a batch costs three such looks
whatever it holds, and a view that somebody watches would do little else. Therefore a small batch
goes into a table of its own, which hides what it replaces (`analytics_fresh_schema`). Its lines
are kept in memory, and after some seconds are applied to the main tables as one batch.

The table is no journal: the log is. Whoever opens the view anew empties it, and takes for the
place of the view that of the main tables (`fresh_since`); the stream then tells the rest again.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable
from typing import Any

import duckdb

from gfs.changes import Cursor, Line
from projections import analytics_fresh_schema as schema
from projections.analytics_extensions import Sums, add, rows_of, sums_of
from projections.analytics_fresh_state import Rows, show
from projections.analytics_kept import ONE_MOVE_MORE
from projections.analytics_known import Known
from projections.analytics_large import homes_of
from projections.analytics_names import Change, extension_of, lower
from projections.analytics_rows import inode_rows
from projections.analytics_schema import INODE_COLUMNS, INODE_MADE
from projections.core.following import DirentKey, Items, items_of
from projections.core.naming import suffix_of
from projections.duck_rows import AS_THEY_ARE, put

_MIXED = schema.mixed(INODE_COLUMNS, INODE_MADE)
_DELETE = f"""
DELETE FROM fresh WHERE ino IN (SELECT unnest($1))
  AND what IN ('{schema.INODE}', '{schema.GONE}', '{schema.XATTR}')
  OR ino IN (SELECT unnest($2)) AND what IN ('{schema.NAME}', '{schema.NAMELESS}')
"""
_OTHERS = dict.fromkeys(name for name in INODE_COLUMNS if name != "ino")
_NAMELESS: DirentKey = (0, "")
_Row = tuple[Any, ...]


def begin_of_fresh(connection: duckdb.DuckDBPyConnection) -> Cursor | None:
    """Place of the main tables, if it is not that of the view."""
    rows = connection.execute("FROM fresh_since").fetchall()
    return Cursor(*rows[0]) if rows else None


def put_fresh(lines: list[Line], connection: duckdb.DuckDBPyConnection, known: Known) -> bool:
    """Show what lines of the stream bring about; False: they are to be applied, nothing is done.

    That is what makes rows of rows, or changes names and not their inodes.
    """
    if any(line.copy is not None for line in lines):
        return False
    fresh, (least, _) = known.fresh, known.bound_of_large(connection)
    change = Change(items_of(lines), connection, large=least, fresh=True)
    items, names, held = change.items, change.names, fresh.rows
    if not (names.lost.keys() | names.got.keys()) <= items.inodes.keys():
        return False
    homes = homes_of(change, change.large, connection)
    if fresh.is_empty:
        connection.execute("INSERT INTO fresh_since SELECT epoch, position FROM progress")
        show(_MIXED, connection)
    rows = _counts(change, held, connection)
    after = _names_after(change)
    _make_room(items, after, held, connection)
    rows += _inodes(items, homes)
    rows += _names(items, after, held, connection)
    put(connection, "fresh", rows)
    held.inodes.update(items.inodes)
    held.names.update(after)
    fresh.add(lines)
    return True


def _row(
    what: str,
    ino: int,
    place: DirentKey = _NAMELESS,
    *,
    extension: str = "",
    moved: int = 0,
    **others: object,
) -> _Row:
    """One that is no inode's; `others` are columns that an inode's has."""
    return (what, ino, *place, extension, moved, *(_OTHERS | others).values())


def _counts(change: Change, held: Rows, connection: duckdb.DuckDBPyConnection) -> list[_Row]:
    """Rows of sums: by extension, and of the histograms."""
    sums = sums_of(change, connection)
    owed = _resized(change, sums, held, connection)
    rows = [_row(schema.RESIZED, ino, size=size, stored_apart=disk) for ino, size, disk in owed]
    for of, key, extension, files, size, disk in rows_of(change, sums):
        sums_here = {"nlink": files, "size": size, "stored_apart": disk}
        rows.append(_row(schema.COUNT, key, (0, of), extension=extension, **sums_here))
    return rows


def _resized(
    change: Change, sums: Sums, held: Rows, connection: duckdb.DuckDBPyConnection
) -> list[tuple[int, int, int]]:
    """Bytes of files whose extension is not known; others go to `sums`.

    They count at the extension that the file has when somebody asks. So before its names change,
    of which a batch tells what they were, its bytes go to the extension that it has now.
    """
    owed, lost, got = [], change.names.lost, change.names.got
    for ino in held.resized.keys() & {*change.known, *lost, *got}:
        size, disk = held.resized.pop(ino)
        owed.append((ino, -size, -disk))
        known = change.knows(ino)
        before = change.before(ino) if known else lower(suffix_of(lost[ino][1]), connection)
        add(sums, before, 0, size, disk)
    for ino, size, disk in change.sums.resized:
        if names := held.names.get(ino):
            add(sums, extension_of(min(names)[1], stat.S_IFREG, connection), 0, size, disk)
        else:
            owed.append((ino, size, disk))
            before_size, before_disk = held.resized.get(ino, (0, 0))
            held.resized[ino] = before_size + size, before_disk + disk
    return owed


def _names_after(change: Change) -> dict[int, list[DirentKey]]:
    """All names that inodes come to have whose names change."""
    items, names = change.items, change.names
    after = dict[int, list[DirentKey]]()
    for ino in {**names.lost, **names.got}:
        if change.knows(ino):
            after[ino] = change.names_after(ino)
        else:
            after[ino] = [names.got[ino]] if ino in names.got else []
    for one in items.old_dirents.values():
        if stat.S_ISDIR(one.kind):
            after[one.ino] = []
    for key, new in items.dirents.items():
        if new is not None and stat.S_ISDIR(new.kind):
            after[new.ino] = [key]
    return after


def _make_room(
    items: Items, names: Iterable[int], held: Rows, connection: duckdb.DuckDBPyConnection
) -> None:
    """Take away rows of what has new ones."""
    inodes = held.inodes.intersection(items.inodes)
    named = held.names.keys() & set(names)
    if inodes or named:
        connection.execute(_DELETE, [[*inodes], [*named]])


def _inodes(items: Items, homes: dict[int, DirentKey]) -> list[_Row]:
    rows: list[_Row] = [
        (schema.INODE, row[0], *homes.get(row[0], _NAMELESS), "", 0, *row[1:])
        for row in inode_rows(items.inodes.items(), AS_THEY_ARE)
    ]
    for ino, one in items.inodes.items():
        if one is None:
            rows.append(_row(schema.GONE, ino))
            continue
        for name, value in one.attributes.items():
            rows.append(_row(schema.XATTR, ino, (0, name), target=value))
    return rows


def _names(
    items: Items,
    after: dict[int, list[DirentKey]],
    held: Rows,
    connection: duckdb.DuckDBPyConnection,
) -> list[_Row]:
    kinds = {one.ino: one.kind for one in items.old_dirents.values()}
    kinds |= {one.ino: one.kind for one in items.dirents.values() if one is not None}
    moved = {ino for ino in after if stat.S_ISDIR(kinds.get(ino, 0)) and after[ino]}
    moved &= {one.ino for one in items.old_dirents.values()}
    moves = 0
    if moved:
        held.moved |= moved
        ((moves,),) = connection.execute(ONE_MOVE_MORE).fetchall()
    rows = []
    for ino, places in after.items():
        more: dict[str, Any] = {"mode": kinds[ino], "moved": moves if ino in moved else 0}
        if not places:
            rows.append(_row(schema.NAMELESS, ino, **more))
        for place in places:
            extension = extension_of(place[1], kinds[ino], connection)
            rows.append(_row(schema.NAME, ino, place, extension=extension, **more))
    return rows
