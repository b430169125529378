"""HTTP of the search view: find, search, du, top, owners, deletions, SQL."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import apsw
from starlette.requests import Request
from starlette.responses import Response

from gfs.errors import UsageError
from gfs.ids import MIB
from projections import find_run
from projections.find_queries import FindQueries
from projections.find_run import COLUMNS, SELECTED
from projections.patterns import glob_of
from projections.queries import QueryService, number, parameters, sql_request
from projections.search_schema import LARGE_BYTES, ROOT
from projections.sql_guard import Readers, run_sql

T = TypeVar("T")
SQL_ANSWER_BYTES = 64 * MIB
_NAMES = ("path", *COLUMNS)
_FILES = "SELECT ino, files FROM directories WHERE ino IN (?, ?)"
_TREE = "(d.ino = ?1 OR (d.path > ?2 AND d.path < ?3))"


class SearchQueries:
    """The handlers."""

    def __init__(self, service: QueryService) -> None:
        self._service = service
        self._readers = Readers(service.view.path)
        self._seconds = service.config.query_s
        history = service.view.history_path
        self._history = None if history is None else Readers(history)
        named = FindQueries(service, self._reading)
        self.find, self.search = named.find, named.search

    @contextmanager
    def _reading(self) -> Iterator[apsw.Connection]:
        with self._readers.reading(self._service.view.generation, self._seconds) as connection:
            yield connection

    async def _ask(self, request: Request, query: Callable[[apsw.Connection], T]) -> Any:
        """Freshness, then what `query` gives on a reading connection."""
        fresh = await self._service.fresh(request)

        def run() -> T:
            with self._reading() as connection:
                return query(connection)

        return fresh, await self._service.run(run)

    async def du(self, request: Request) -> Response:
        """``GET /du?path=/a&depth=1``: sums of what is there, and of directories below it."""
        parameters(request, "path", "depth")
        path = request.query_params.get("path", "/")
        depth = number(request, "depth", 0, 1000)
        most = self._service.config.query_rows
        fresh, rows = await self._ask(
            request, lambda connection: sums_at(connection, path, depth, most)
        )
        below = rows[1 : most + 1]
        cut = len(rows) > most + 1
        return self._service.answer(fresh, **rows[0] | {"path": path}, below=below, truncated=cut)

    async def top(self, request: Request) -> Response:
        """``GET /top?n=20&path=/a``: the largest files."""
        parameters(request, "n", "path")
        count = number(request, "n", 20, 10_000)
        path = request.query_params.get("path", "/")
        fresh, rows = await self._ask(request, lambda connection: largest(connection, path, count))
        return self._service.answer(
            fresh, rows=[dict(zip(_NAMES, row, strict=True)) for row in rows]
        )

    async def owners(self, request: Request) -> Response:
        """``GET /owners``: sums per uid."""
        parameters(request)
        return await self._table(request, "owners", "bytes")

    async def extensions(self, request: Request) -> Response:
        """``GET /extensions``: sums per extension."""
        parameters(request)
        return await self._table(request, "extensions", "bytes")

    async def _table(self, request: Request, table: str, order: str) -> Response:
        fresh, rows = await self._ask(
            request,
            lambda connection: _dicts(
                connection, f"SELECT * FROM {table} ORDER BY {order} DESC LIMIT 10000"
            ),
        )
        return self._service.answer(fresh, rows=rows)

    async def deletions(self, request: Request) -> Response:
        """``GET /deletions?name=GLOB&uid=N&since_ns=N``: who deleted what, newest first."""
        parameters(request, "name", "uid", "since_ns", "limit")
        wanted = {
            "name": glob_of(request.query_params.get("name", "*")) or "*",
            "uid": number(request, "uid", -1, 1 << 40),
            "since": number(request, "since_ns", 0, 1 << 62),
            "limit": self._service.limit_of(request, 100, 100_000),
        }
        sql = (
            "SELECT * FROM deletions WHERE time_ns >= :since AND name GLOB :name"
            " AND (:uid < 0 OR uid = :uid) ORDER BY time_ns DESC LIMIT :limit"
        )
        return await self._past(request, sql, wanted)

    async def growth(self, request: Request) -> Response:
        """``GET /growth?since_ns=N``: by hour and owner."""
        parameters(request, "since_ns")
        hour = number(request, "since_ns", 0, 1 << 62) // (3600 * 10**9)
        sql = "SELECT * FROM growth WHERE hour >= :hour ORDER BY hour, uid LIMIT 100000"
        return await self._past(request, sql, {"hour": hour})

    async def _past(self, request: Request, sql: str, bound: dict[str, Any]) -> Response:
        fresh = await self._service.fresh(request, history=True)
        readers = self._history
        if readers is None:
            raise UsageError("this view keeps no history")

        def run() -> list[dict[str, Any]]:
            with readers.reading(0, self._seconds) as connection:
                return _dicts(connection, sql, bound)

        return self._service.answer(fresh, rows=await self._service.run(run))

    async def sql(self, request: Request) -> Response:
        """``POST /sql`` {"sql": ..., "parameters": [...]}: one SELECT over the view."""
        asked = await sql_request(request)
        limit = min(asked.limit or self._service.config.query_rows, self._service.config.query_rows)

        def ask(connection: apsw.Connection) -> Any:
            return run_sql(
                connection,
                asked.sql,
                asked.parameters,
                rows_max=limit,
                bytes_max=SQL_ANSWER_BYTES,
            )

        fresh, found = await self._ask(request, ask)
        return self._service.answer(
            fresh, columns=found.columns, rows=found.rows, truncated=found.truncated
        )


def largest(connection: apsw.Connection, path: str, count: int) -> list[Any]:
    """Rows (path, `COLUMNS`) of the largest files below a directory.

    Raises: NotFound, NotADirectory, UsageError.
    """
    ino, spelled = find_run.directory_of(connection, path)
    files: dict[Any, Any] = {row[0]: row[1] for row in connection.execute(_FILES, (ino, ROOT))}
    bound = (ino, spelled + "/", spelled + "0", count)
    if files[ino] ** 2 <= files[ROOT] * count:
        source = "directories d CROSS JOIN inodes i ON i.home = d.ino"
        return connection.execute(_largest(source), bound).fetchall()
    # From the top of the index of sizes: such a tree has a file among every few.
    source = "inodes i INDEXED BY inodes_size CROSS JOIN directories d ON d.ino = i.home"
    rows = connection.execute(_largest(source, f"i.size >= {LARGE_BYTES}"), bound).fetchall()
    if len(rows) == min(count, files[ino]):
        return rows
    source = "inodes i CROSS JOIN directories d ON d.ino = i.home"
    return connection.execute(_largest(source), bound).fetchall()


def _largest(source: str, condition: str = "true") -> str:
    return (
        f"SELECT d.path || '/' || i.name, {SELECTED} FROM {source}"
        f" WHERE {condition} AND {_TREE} AND i.mode & 61440 != 16384"
        " ORDER BY i.size DESC LIMIT ?4"
    )


def sums_at(connection: apsw.Connection, path: str, depth: int, most: int) -> list[dict[str, Any]]:
    """Sums of what is at `path`, itself included, then of at most `most` + 1 directories below."""
    ino = find_run.resolve(connection, path)
    sums = (
        "SELECT CASE WHEN d.path = '' THEN '/' ELSE d.path END AS path, d.files,"
        " d.directories, d.bytes + ifnull(i.size, 0) AS bytes,"
        " d.disk_bytes + (ifnull(i.stored, 0) + 511) / 512 * 512 AS disk_bytes, 1 AS itself"
        " FROM directories d LEFT JOIN inodes i ON i.ino = d.ino WHERE "
    )
    own = _dicts(connection, sums + "d.ino = ?", (ino,))
    if not own:
        file = (
            "SELECT ? AS path, 1 AS files, 0 AS directories, size AS bytes,"
            " (stored + 511) / 512 * 512 AS disk_bytes, 0 AS itself FROM inodes WHERE ino = ?"
        )
        return _dicts(connection, file, (path, ino))
    if depth == 0:
        return own
    # Level by level, by the index of parents: a directory's files are not looked at.
    below = (
        "WITH RECURSIVE level (ino, depth) AS (SELECT ino, 1 FROM directories WHERE parent = ?1"
        " UNION ALL SELECT x.ino, l.depth + 1 FROM level l CROSS JOIN directories x"
        " ON x.parent = l.ino WHERE l.depth < ?2) "
    )
    where = "d.ino IN (SELECT ino FROM level) ORDER BY d.path LIMIT ?3"
    return own + _dicts(connection, below + sums + where, (ino, depth, most + 1))


def _dicts(connection: apsw.Connection, sql: str, bound: Any = ()) -> list[dict[str, Any]]:
    cursor = connection.cursor()
    names: list[str] = []
    found = []
    for row in cursor.execute(sql, bound):
        names = names or [name for name, _ in cursor.get_description()]
        found.append(dict(zip(names, row, strict=True)))
    return found
