"""What happened to one file: through its renames and links, also when it is gone.

A path is resolved as the namespace is now, and where it leads nowhere by the names that
inodes had: of several inodes that were at a path the newest is meant, the others are
told. Paths in the answer are those that the directories have now (or had last); the
name in them is that of the time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import duckdb
from starlette.requests import Request

from gfs.errors import InvalidArgument, NotFound
from gfs.ids import ROOT_INO, TRASH_INO
from projections.analytics_tree import parts_of
from projections.queries import number, parameters

ROWS_DEFAULT, ROWS_MAX = 100, 100_000
TIME_MAX_NS = (1 << 63) - 1
SEVERAL_MAX = 20  # inodes that were at one path
_LOOKUPS_MAX = 500  # for one path
_DEPTH_MAX = 4096
_TRASH = "<trash>"
_NOW_AT = "SELECT ino FROM dirents WHERE parent = ? AND name = ?"
_ONCE_AT = (
    "SELECT ino, max(position) AS last FROM history.events"
    " WHERE from_parent = ? AND from_name = ? GROUP BY ino ORDER BY last DESC LIMIT ?"
)
_PLACE_NOW = "SELECT parent, name FROM dirents WHERE ino = ? ORDER BY parent, name LIMIT 1"
_PLACE_LAST = (
    "SELECT from_parent, from_name FROM history.events WHERE ino = ?"
    f" AND from_parent NOT IN (0, {TRASH_INO})"
    " ORDER BY position DESC LIMIT 1"
)
_WHO = "uid, pid, host, mount, epoch || '-' || position AS cursor"
COLUMNS = (
    "time_ns", "event", "parent", "name", "from_parent", "from_name", "size", "size_before",
    "detail", "uid", "pid", "host", "mount", "cursor",
)  # fmt: skip
_OF_FILE = f"""
SELECT time_ns, event, parent, name, from_parent, from_name, size, size_before, detail, {_WHO},
  position, rowid AS place FROM history.events WHERE ino = $ino AND {{time}}
"""
# A copy of a directory that the file lies in copies the file, if that was there.
_COPIED_TO = f"""
SELECT time_ns, 'copied-to', parent, name, 0, '', 0, 0,
  to_json({{{{'operation': operation, 'source': source, 'root': root, 'count': inodes}}}})::VARCHAR,
  {_WHO}, position, 0 FROM history.copies
WHERE list_contains($above, source) AND time_ns >= $born AND {{time}}
"""
_COPIED_FROM = f"""
SELECT time_ns, 'copied', parent, name, 0, '', 0, 0,
  to_json({{{{'operation': operation, 'source': source, 'root': root, 'count': inodes}}}})::VARCHAR,
  {_WHO}, position, 0 FROM history.copies
WHERE $ino > first AND $ino < first + inodes AND $ino <> root AND {{time}}
"""
_LATER, _EARLIER = "position DESC, place DESC", "position, place"
_BORN = "SELECT created_ns FROM inodes WHERE ino = ?"
_FIRST = "SELECT min(time_ns) FROM history.events WHERE ino = ?"


@dataclass
class Past:
    """An answer; rows as `COLUMNS`, places made into paths: see `columns`."""

    ino: int
    path: str | None  # now, or last outside the trash; None: no name of it is known
    state: str  # "there", "trash" or "gone"
    others: list[int]  # inodes that were at the path before
    rows: list[list[Any]] = field(default_factory=list)
    truncated: bool = False

    columns = (
        "time_ns", "event", "path", "from_path", "size", "size_before", "detail",
        "uid", "pid", "host", "mount", "cursor",
    )  # fmt: skip


def inodes_ever_at(connection: duckdb.DuckDBPyConnection, path: str) -> list[int]:
    """Inodes that are, or were, at a path: the one there now first, then the newest.

    Raises: UsageError, NotFound.
    """
    budget = [_LOOKUPS_MAX]
    found = dict.fromkeys(_below(connection, int(ROOT_INO), parts_of(path), budget))
    if not found:
        raise NotFound(f"{path}: nothing is known to have been there")
    return list(found)


def _below(
    connection: duckdb.DuckDBPyConnection, ino: int, names: list[str], budget: list[int]
) -> Iterator[int]:
    """What may be meant by a path that begins at `ino`, best first."""
    level = [ino]
    for name in names:
        level = list(dict.fromkeys(
            child for one in level for child in _children(connection, one, name, budget)
        ))[:SEVERAL_MAX]  # fmt: skip
    yield from level


def _children(
    connection: duckdb.DuckDBPyConnection, parent: int, name: str, budget: list[int]
) -> Iterator[int]:
    budget[0] -= 1
    if budget[0] < 0:
        return
    for (ino,) in connection.execute(_NOW_AT, [parent, name]).fetchall():
        yield ino
    for ino, _ in connection.execute(_ONCE_AT, [parent, name, SEVERAL_MAX]).fetchall():
        yield ino


class Paths:
    """Paths of directories as they are now, or were when they went; looked up once each."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection = connection
        self._known: dict[int, str] = {ROOT_INO: "", TRASH_INO: _TRASH}

    def of(self, ino: int) -> str:
        """Path of a directory; "<gone INO>" begins it where that is not known."""
        chain: list[tuple[int, str]] = []
        here, seen = ino, set[int]()
        while here not in self._known and here not in seen and len(seen) < _DEPTH_MAX:
            seen.add(here)
            place = self.place(here)
            if place is None:
                self._known[here] = f"<gone {here}>"
                break
            chain.append((here, place[1]))
            here = place[0]
        path = self._known.get(here, f"<gone {here}>")
        for one, name in reversed(chain):
            path = self._known[one] = f"{path}/{name}"
        return path

    def place(self, ino: int) -> tuple[int, str] | None:
        """Directory and name of an inode, now or last."""
        return self._one(_PLACE_NOW, ino) or self.place_last(ino)

    def place_last(self, ino: int) -> tuple[int, str] | None:
        """Directory and name that an inode was last taken from, the trash left out."""
        return self._one(_PLACE_LAST, ino)

    def _one(self, sql: str, ino: int) -> tuple[int, str] | None:
        row = self._connection.execute(sql, [ino]).fetchone()
        return None if row is None else (int(row[0]), str(row[1]))

    def join(self, parent: int, name: str) -> str | None:
        """Path of a place; None for no place."""
        return None if not parent else f"{self.of(parent)}/{name}"

    def above(self, ino: int) -> list[int]:
        """The inode and the directories it lies in, up to a root."""
        found: dict[int, None] = {}
        here: int | None = ino
        while here is not None and here not in found and len(found) < _DEPTH_MAX:
            found[here] = None
            place = None if here in (ROOT_INO, TRASH_INO) else self.place(here)
            here = None if place is None else place[0]
        return list(found)


def _standing(paths: Paths, ino: int, *, is_there: bool) -> tuple[str | None, str]:
    """Path and state of an inode."""
    if ino == ROOT_INO:
        return "/", "there"
    place = paths.place(ino)
    path = None if place is None else paths.join(*place)
    in_trash = path is not None and path.startswith(_TRASH)
    if place is not None and place[0] == TRASH_INO:
        before = paths.place_last(ino)
        path = path if before is None else paths.join(*before)
    return path, "trash" if in_trash and is_there else "there" if is_there else "gone"


@dataclass(frozen=True)
class AskedPast:
    """What somebody asks about one file: at most `limit` rows of [since_ns, until_ns]."""

    path: str | None
    ino: int | None
    limit: int
    since_ns: int
    until_ns: int
    oldest_first: bool

    def answer(self, connection: duckdb.DuckDBPyConnection) -> Past:
        """Raises: UsageError; NotFound: nothing was ever known of it."""
        if self.ino is not None:
            return _past(connection, self, [self.ino])
        assert self.path is not None
        return _past(connection, self, inodes_ever_at(connection, self.path))


def asked_past(request: Request) -> AskedPast:
    """The parameters of a request.

    Raises: InvalidArgument.
    """
    parameters(request, "path", "ino", "limit", "since_ns", "until_ns", "order")
    path, order = request.query_params.get("path"), request.query_params.get("order", "newest")
    if order not in ("newest", "oldest"):
        raise InvalidArgument("order is one of newest, oldest")
    ino = number(request, "ino", 0, (1 << 63) - 1) or None
    if (path is None) == (ino is None):
        raise InvalidArgument("give either path or ino")
    return AskedPast(
        path,
        ino,
        max(1, number(request, "limit", ROWS_DEFAULT, ROWS_MAX)),
        number(request, "since_ns", 0, TIME_MAX_NS),
        number(request, "until_ns", TIME_MAX_NS, TIME_MAX_NS),
        order == "oldest",
    )


def _past(connection: duckdb.DuckDBPyConnection, asked: AskedPast, inodes: list[int]) -> Past:
    ino = inodes[0]
    paths = Paths(connection)
    born = connection.execute(_BORN, [ino]).fetchone()
    first = connection.execute(_FIRST, [ino]).fetchone()
    known = [row[0] for row in (born, first) if row is not None and row[0] is not None]
    if not known:
        raise NotFound(f"inode {ino}: nothing is known of it")
    path, state = _standing(paths, ino, is_there=born is not None)
    found = Past(ino, path, state, inodes[1:])
    bound = {
        "ino": ino,
        "above": paths.above(ino),
        "born": min(known),
        "since": asked.since_ns,
        "until": asked.until_ns,
        "limit": asked.limit + 1,
    }
    time = "time_ns BETWEEN $since AND $until"
    parts = " UNION ALL ".join(
        one.format(time=time) for one in (_OF_FILE, _COPIED_TO, _COPIED_FROM)
    )
    order = _EARLIER if asked.oldest_first else _LATER
    rows = connection.execute(f"{parts} ORDER BY {order} LIMIT $limit", bound).fetchall()
    found.truncated = len(rows) > asked.limit
    for row in rows[: asked.limit]:
        named = dict(zip(COLUMNS, row, strict=False))
        to = paths.join(named.pop("parent"), named.pop("name"))
        came_from = paths.join(named.pop("from_parent"), named.pop("from_name"))
        found.rows.append(
            [named.pop("time_ns"), named.pop("event"), to, came_from, *named.values()]
        )
    return found
