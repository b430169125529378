"""HTTP of the search view: find, search, du, top, owners, deletions, SQL."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import apsw
import msgspec
from starlette.requests import Request
from starlette.responses import Response

from gfs import findexpr
from gfs.errors import InvalidArgument, UsageError
from gfs.ids import MIB
from projections import find_run
from projections.find_query import TRIGRAM, glob_of, like_of
from projections.find_run import COLUMNS, Start
from projections.queries import QueryService, RowsResponse, number, parameters, sql_request
from projections.search_schema import ROOT
from projections.sql_guard import Readers, run_sql

T = TypeVar("T")
SEARCH_ROWS = 1000
SQL_ANSWER_BYTES = 64 * MIB
_NAMES = ("path", *COLUMNS)
_PLACE = "CASE WHEN d.path = '' THEN '/' || e.name ELSE d.path || '/' || e.name END"
_TREE = "(d.ino = ?1 OR (d.path > ?2 AND d.path < ?3))"
_OUTSIDE_TRASH = "d.path < '<'"  # '' and '/...' sort before '<trash>' and '<orphans>'


class FindRequest(msgspec.Struct, forbid_unknown_fields=True):
    """Body of ``POST /find``: `expression` in find's words, or `predicate`, a tree.

    `paths` are absolute; `shown` is how a start is to be printed (`.`, a mountpoint).
    """

    paths: list[Start] = []
    expression: list[str] = []
    predicate: msgspec.Raw = msgspec.field(default_factory=msgspec.Raw)
    mindepth: int = 0
    maxdepth: int = findexpr.DEPTH_MAX
    nul: bool = False


class SearchQueries:
    """The handlers."""

    def __init__(self, service: QueryService) -> None:
        self._service = service
        self._readers = Readers(service.view.path)
        self._seconds = service.config.query_s
        history = service.view.history_path
        self._history = None if history is None else Readers(history)

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

    async def find(self, request: Request) -> Response:
        """``GET /find?path=/a&word=-name&word=*.log`` or ``POST /find``."""
        asked = await _find_request(request)
        told = findexpr.parse(asked.expression, now_ns=time.time_ns())
        predicate = told.predicate
        if bytes(asked.predicate):
            predicate = findexpr.And([predicate, findexpr.from_json(bytes(asked.predicate))])
        starts = asked.paths or [Start(path) for path in told.paths]
        fresh = await self._service.fresh(request)

        @contextmanager
        def rows() -> Iterator[Iterator[dict[str, Any]]]:
            with self._reading() as connection:
                found = find_run.find(
                    connection,
                    [Start("/", one.shown or "/") if one.path == "." else one for one in starts],
                    predicate,
                    mindepth=max(told.mindepth, asked.mindepth),
                    maxdepth=min(told.maxdepth, asked.maxdepth),
                )
                yield (dict(zip(_NAMES, row, strict=True)) for row in found)

        return RowsResponse(self._service, fresh, rows(), nul=asked.nul)

    async def search(self, request: Request) -> Response:
        """``GET /search?q=TEXT`` part of a name, any case; ``glob=1``: a shell pattern."""
        parameters(request, "q", "glob", "limit", "trash", "path")
        query = request.query_params.get("q", "")
        if not query:
            raise InvalidArgument("q is missing")
        limit = self._service.limit_of(request, 100, SEARCH_ROWS * 100)
        sql, bound = _search_sql(query, request.query_params.get("glob", "0") == "1")
        if request.query_params.get("trash", "0") != "1":
            sql += f" AND {_OUTSIDE_TRASH}"
        path = request.query_params.get("path", "/")

        def ask(connection: apsw.Connection) -> list[Any]:
            statement, values = sql, dict(bound)
            if path != "/":
                ino, spelled = find_run.directory_of(connection, path)
                statement += " AND (d.ino = :top OR (d.path > :low AND d.path < :high))"
                values |= {"top": ino, "low": spelled + "/", "high": spelled + "0"}
            values["limit"] = limit + 1
            return connection.execute(statement + " LIMIT :limit", values).fetchall()

        fresh, rows = await self._ask(request, ask)
        found = [dict(zip(_NAMES, row, strict=True)) for row in rows[:limit]]
        return self._service.answer(fresh, rows=found, truncated=len(rows) > limit)

    async def du(self, request: Request) -> Response:
        """``GET /du?path=/a&depth=1``: sums of what is there, and of directories below it."""
        parameters(request, "path", "depth")
        path = request.query_params.get("path", "/")
        depth = number(request, "depth", 0, 1000)
        most = self._service.config.query_rows
        fresh, rows = await self._ask(
            request, lambda connection: _du(connection, path, depth, most)
        )
        below = rows[1 : most + 1]
        cut = len(rows) > most + 1
        return self._service.answer(fresh, **rows[0] | {"path": path}, below=below, truncated=cut)

    async def top(self, request: Request) -> Response:
        """``GET /top?n=20&path=/a``: the largest files."""
        parameters(request, "n", "path")
        count = number(request, "n", 20, 10_000)
        path = request.query_params.get("path", "/")

        def ask(connection: apsw.Connection) -> list[Any]:
            ino, spelled = find_run.directory_of(connection, path)
            columns = ", ".join(f"i.{name}" for name in COLUMNS)
            # Walks the index of sizes from the top, so it ends after a few rows.
            sql = (
                f"SELECT {_PLACE}, {columns} FROM inodes i INDEXED BY inodes_size"
                " CROSS JOIN dirents e ON e.ino = i.ino AND e.parent = i.home"
                f" CROSS JOIN directories d ON d.ino = e.parent WHERE {_TREE}"
                " AND i.mode & 61440 != 16384"
                " AND e.name = (SELECT min(x.name) FROM dirents x"
                " WHERE x.ino = i.ino AND x.parent = i.home) ORDER BY i.size DESC LIMIT ?4"
            )
            return connection.execute(sql, (ino, spelled + "/", spelled + "0", count)).fetchall()

        fresh, rows = await self._ask(request, ask)
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


async def _find_request(request: Request) -> FindRequest:
    if request.method == "GET":
        parameters(request, "path", "word", "nul")
        query = request.query_params
        paths = [Start(path) for path in query.getlist("path")]
        return FindRequest(paths, query.getlist("word"), nul=query.get("nul", "0") == "1")
    try:
        return msgspec.json.decode(await request.body(), type=FindRequest)
    except msgspec.MsgspecError as error:
        raise UsageError(f"body: {error}") from None


def _search_sql(query: str, glob: bool) -> tuple[str, dict[str, Any]]:
    """Statement without LIMIT, and what is bound in it."""
    columns = ", ".join(f"i.{name}" for name in COLUMNS)
    joins = "CROSS JOIN directories d ON d.ino = e.parent CROSS JOIN inodes i ON i.ino = e.ino"
    indexed = len(query) >= TRIGRAM and not (glob and any(one in query for one in "*?[\\"))
    source = "dirents e"
    bound: dict[str, Any] = {"q": query}
    if indexed:
        source = "names n CROSS JOIN dirents e ON e.id = n.rowid"
    elif glob:
        longest = max((part for part in _literals(query)), key=len, default="")
        if len(longest) >= TRIGRAM and longest.isascii():
            source = "names n CROSS JOIN dirents e ON e.id = n.rowid"
            indexed, bound["like"] = True, like_of(longest)
    condition = "instr(lower(e.name), lower(:q)) > 0"
    if glob:
        pattern = glob_of(query)
        condition = "e.name GLOB :glob" if pattern is not None else "fnmatch(:q, e.name, 0)"
        if pattern is not None:
            bound["glob"] = pattern
    if indexed:
        bound.setdefault("like", like_of(query))
        condition = f"n.name LIKE :like AND {condition}"
    if ":q" not in condition:
        del bound["q"]
    return f"SELECT {_PLACE}, {columns} FROM {source} {joins} WHERE {condition}", bound


def _literals(pattern: str) -> list[str]:
    if "[" in pattern or "\\" in pattern:
        return []
    return pattern.replace("?", "*").split("*")


def _du(connection: apsw.Connection, path: str, depth: int, most: int) -> list[dict[str, Any]]:
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
    if depth == 1:
        where = "d.parent = ? ORDER BY d.path LIMIT ?"
        return own + _dicts(connection, sums + where, (ino, most + 1))
    spelled = "" if ino == ROOT else own[0]["path"]
    limits = "length(substr(d.path, ?3)) - length(replace(substr(d.path, ?3), '/', '')) <= ?4"
    where = f"d.path > ?1 AND d.path < ?2 AND {limits} ORDER BY d.path LIMIT ?5"
    bound = (spelled + "/", spelled + "0", len(spelled) + 1, depth, most + 1)
    return own + _dicts(connection, sums + where, bound)


def _dicts(connection: apsw.Connection, sql: str, bound: Any = ()) -> list[dict[str, Any]]:
    cursor = connection.cursor()
    names: list[str] = []
    found = []
    for row in cursor.execute(sql, bound):
        names = names or [name for name, _ in cursor.get_description()]
        found.append(dict(zip(names, row, strict=True)))
    return found
