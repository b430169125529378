"""HTTP of the analytics view: histograms, growth, top lists, sums by anything, free SQL.

DuckDB has no connection that can only read, so a statement from somebody is parsed
first (one SELECT), then run in a read-only transaction on an instance that reaches
no file, network, extension or setting.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import duckdb
from starlette.requests import Request
from starlette.responses import Response

from gfs.errors import InvalidArgument, NotReady, TooLarge, UsageError
from gfs.ids import MIB
from projections.analytics_reports import asked_report, described
from projections.analytics_tree import BELOW, inode_at
from projections.queries import (
    Collected,
    Deadline,
    QueryService,
    collect,
    number,
    out_of_time,
    parameters,
    sql_request,
)
from projections.storage import DuckStore

Bound = Sequence[Any] | Mapping[str, Any]  # by place, or by name
SQL_ANSWER_BYTES = 64 * MIB
SQL_BYTES_MAX = 100_000
_DAY_NS = 86400 * 10**9
_SIZE_HISTOGRAM = """
SELECT CASE WHEN size = 0 THEN 0 ELSE (1::BIGINT << floor(log2(size))::INTEGER) END AS from_bytes,
  count(*) AS files, sum(size)::BIGINT AS bytes
FROM inodes WHERE mode & 61440 = 32768 GROUP BY ALL ORDER BY 1
"""
_AGE_HISTOGRAM = """
SELECT CASE WHEN days < 1 THEN 0 WHEN days < 7 THEN 1 WHEN days < 30 THEN 7 WHEN days < 90 THEN 30
  WHEN days < 365 THEN 90 WHEN days < 1095 THEN 365 ELSE 1095 END AS from_days,
  count(*) AS files, sum(size)::BIGINT AS bytes
FROM (SELECT size, (?::BIGINT - {column}) // {day} AS days FROM inodes WHERE mode & 61440 = 32768)
GROUP BY ALL ORDER BY 1
"""
_GROUPS = {
    "owner": "uid",
    "group": "gid",
    "extension": "extension",
    "kind": "kind",
}
_TOP = {
    "size": "size DESC",
    "newest": "mtime DESC",
    "oldest": "mtime",
    "links": "nlink DESC",
}


class AnalyticsQueries:
    """The handlers."""

    def __init__(self, service: QueryService) -> None:
        self._service = service
        self._seconds = service.config.query_s

    @contextmanager
    def _reading(self) -> Iterator[duckdb.DuckDBPyConnection]:
        store = self._service.view.store
        if not isinstance(store, DuckStore):
            raise NotReady("the view is being built")
        with (
            store.reader() as connection,
            Deadline(self._seconds, connection.interrupt) as deadline,
        ):
            try:
                connection.execute("BEGIN TRANSACTION READ ONLY")
                yield connection
                connection.execute("ROLLBACK")
            except duckdb.InterruptException:
                if deadline.passed:
                    raise out_of_time(self._seconds) from None
                raise NotReady("the view is being replaced; ask again") from None

    async def _ask(
        self,
        request: Request,
        query: Callable[[duckdb.DuckDBPyConnection], Collected],
        *,
        history: bool = False,
    ) -> Response:
        fresh = await self._service.fresh(request, history=history)

        def run() -> Collected:
            with self._reading() as connection:
                return query(connection)

        found = await self._service.run(run)
        return self._service.answer(
            fresh, columns=found.columns, rows=found.rows, truncated=found.truncated
        )

    async def _rows(self, request: Request, sql: str, bound: Sequence[Any] = ()) -> Response:
        rows_max = self._service.config.query_rows
        return await self._ask(request, lambda connection: _run(connection, sql, bound, rows_max))

    async def histogram(self, request: Request) -> Response:
        """``GET /histogram?of=size|mtime|atime|created``: regular files by size or age."""
        parameters(request, "of")
        of = request.query_params.get("of", "size")
        if of == "size":
            return await self._rows(request, _SIZE_HISTOGRAM)
        if of not in ("mtime", "atime", "ctime", "created"):
            raise InvalidArgument("of is one of size, mtime, atime, ctime, created")
        sql = _AGE_HISTOGRAM.format(column=f"{of}_ns", day=_DAY_NS)
        return await self._rows(request, sql, [time.time_ns()])

    async def growth(self, request: Request) -> Response:
        """``GET /growth?by=hour|day&owner=1``: what came and went."""
        parameters(request, "by", "owner", "since_ns")
        by = request.query_params.get("by", "hour")
        if by not in ("hour", "day", "month"):
            raise InvalidArgument("by is one of hour, day, month")
        owner = ", uid" if request.query_params.get("owner", "0") == "1" else ""
        sql = (
            f"SELECT date_trunc('{by}', hour) AS since{owner},"
            " sum(created)::BIGINT AS created, sum(removed)::BIGINT AS removed,"
            " sum(bytes_added)::BIGINT AS bytes_added, sum(bytes_removed)::BIGINT AS bytes_removed"
            " FROM history.growth WHERE hour >= make_timestamp_ns(?::BIGINT)::TIMESTAMP"
            f" GROUP BY ALL ORDER BY since{owner}"
        )
        since = number(request, "since_ns", 0, 1 << 62)
        rows_max = self._service.config.query_rows
        return await self._ask(
            request, lambda connection: _run(connection, sql, [since], rows_max), history=True
        )

    async def top(self, request: Request) -> Response:
        """``GET /top?by=size|newest|oldest|links&n=20``: files, with their paths."""
        parameters(request, "by", "n")
        by = request.query_params.get("by", "size")
        if by not in _TOP:
            raise InvalidArgument(f"by is one of {', '.join(_TOP)}")
        sql = (
            "WITH best AS (SELECT * FROM files WHERE kind != 'd'"
            f" ORDER BY {_TOP[by]}, ino LIMIT ?)"
            " SELECT d.path || '/' || best.name AS path, best.* EXCLUDE (parent, name)"
            f" FROM best LEFT JOIN directories d ON d.ino = best.parent ORDER BY {_TOP[by]}"
        )
        return await self._rows(request, sql, [number(request, "n", 20, 10_000)])

    async def sums(self, request: Request) -> Response:
        """``GET /sums?by=owner|group|extension|kind&path=/a``: files and bytes, of a tree."""
        parameters(request, "by", "path")
        by = request.query_params.get("by", "owner")
        if by not in _GROUPS:
            raise InvalidArgument(f"by is one of {', '.join(_GROUPS)}")
        sql = (
            f"SELECT {_GROUPS[by]}, count(*) AS files, sum(size)::BIGINT AS bytes,"
            " sum(disk_bytes)::BIGINT AS disk_bytes FROM files{} GROUP BY ALL"
            f" ORDER BY bytes DESC, {_GROUPS[by]}"
        )
        path = request.query_params.get("path")
        if path is None:
            return await self._rows(request, sql.format(""))
        rows_max = self._service.config.query_rows

        def ask(connection: duckdb.DuckDBPyConnection) -> Collected:
            bound = {"top": inode_at(connection, path)}
            return _run(
                connection, BELOW + sql.format(" SEMI JOIN below USING (ino)"), bound, rows_max
            )

        return await self._ask(request, ask)

    async def reports(self, request: Request) -> Response:
        """``GET /report``: which there are."""
        parameters(request)
        return self._service.answer(await self._service.fresh(request), reports=described())

    async def report(self, request: Request) -> Response:
        """``GET /report/NAME?...``: one of `projections.analytics_reports`."""
        asked = asked_report(request, request.url.path.rpartition("/")[2])
        rows_max = self._service.config.query_rows

        def ask(connection: duckdb.DuckDBPyConnection) -> Collected:
            return _run(connection, *asked.statement(connection), rows_max)

        return await self._ask(request, ask, history=asked.report.history)

    async def sql(self, request: Request) -> Response:
        """``POST /sql`` {"sql": ..., "parameters": [...]}: one SELECT over the view."""
        asked = await sql_request(request)
        most = self._service.config.query_rows
        limit = most if asked.limit is None else min(asked.limit, most)

        def ask(connection: duckdb.DuckDBPyConnection) -> Collected:
            check_statement(connection, asked.sql)
            return _run(connection, asked.sql, asked.parameters, limit)

        return await self._ask(request, ask, history="history" in asked.sql.lower())


def check_statement(connection: duckdb.DuckDBPyConnection, sql: str) -> None:
    """Let one SELECT through.

    Raises: UsageError, TooLarge.
    """
    if len(sql) > SQL_BYTES_MAX:
        raise TooLarge(f"a statement may have {SQL_BYTES_MAX} characters")
    try:
        statements = connection.extract_statements(sql)
    except (duckdb.Error, UnicodeError) as error:
        raise UsageError(f"SQL: {error}") from None
    if len(statements) != 1:
        raise UsageError("SQL: one statement at a time")
    if statements[0].type not in (duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN):
        raise UsageError("SQL: only SELECT")


def _run(connection: duckdb.DuckDBPyConnection, sql: str, bound: Bound, rows_max: int) -> Collected:
    try:
        result = connection.execute(sql, bound)
        columns = [column[0] for column in result.description or ()]
        return collect(columns, _pages(result), rows_max, SQL_ANSWER_BYTES)
    except duckdb.InterruptException:
        raise
    except duckdb.OutOfMemoryException:
        raise TooLarge("SQL: the query needs more memory than it may have") from None
    except (duckdb.Error, UnicodeError) as error:
        raise UsageError(f"SQL: {error}") from None


def _pages(result: duckdb.DuckDBPyConnection) -> Iterator[Any]:
    while rows := result.fetchmany(1000):
        yield from rows
