"""HTTP of the analytics view: histograms, growth, top lists, sums by anything, free SQL.

DuckDB has no connection that can only read, so a statement from somebody is parsed
first (one SELECT), then run in a read-only transaction on an instance that reaches
no file, network, extension or setting.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import duckdb
import msgspec
from starlette.requests import Request
from starlette.responses import Response

from gfs.errors import InvalidArgument, NotFound, NotReady, TooLarge, UsageError
from gfs.ids import MIB
from projections.analytics_export import export_lines
from projections.analytics_largest import Largest
from projections.analytics_past import Past, asked_past
from projections.analytics_places import Places
from projections.analytics_reports import LARGE_COLUMNS, Asked, asked_report, described
from projections.queries import (
    Collected,
    Deadline,
    QueryService,
    RowsResponse,
    collect,
    out_of_time,
    parameters,
    sql_request,
)
from projections.storage import DuckStore

Bound = Sequence[Any] | Mapping[str, Any]  # by place, or by name
SQL_ANSWER_BYTES = 64 * MIB
SQL_BYTES_MAX = 100_000
TOP = {"size": "largest", "newest": "newest", "oldest": "oldest", "links": "links"}


class AnalyticsQueries:
    """The handlers."""

    def __init__(self, service: QueryService) -> None:
        self._service = service
        self._seconds = service.config.query_s
        self._places = Places()
        self._largest = Largest()

    @contextmanager
    def _reading(self, seconds: float) -> Iterator[duckdb.DuckDBPyConnection]:
        store = self._service.view.store
        if not isinstance(store, DuckStore):
            raise NotReady("the view is being built")
        with (
            store.reader() as connection,
            Deadline(seconds, connection.interrupt) as deadline,
        ):
            try:
                connection.execute("BEGIN TRANSACTION READ ONLY")
                yield connection
                connection.execute("ROLLBACK")
            except duckdb.InterruptException:
                if deadline.passed:
                    raise out_of_time(seconds) from None
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
            with self._reading(self._seconds) as connection:
                return query(connection)

        found = await self._service.run(run)
        return self._service.answer(
            fresh, columns=found.columns, rows=found.rows, truncated=found.truncated
        )

    async def histogram(self, request: Request) -> Response:
        """``GET /histogram?of=size|mtime|...``: the reports `sizes` and `ages`."""
        if request.query_params.get("of", "size") == "size":
            return await self._report(request, "sizes", "of")
        return await self._report(request, "ages")

    async def growth(self, request: Request) -> Response:
        """``GET /growth?by=hour|day&owner=1``: what came and went."""
        return await self._report(request, "growth")

    async def top(self, request: Request) -> Response:
        """``GET /top?by=size|newest|oldest|links&n=20``: files, with their paths."""
        by = request.query_params.get("by", "size")
        if by not in TOP:
            raise InvalidArgument(f"by is one of {', '.join(TOP)}, not {by[:40]!r}")
        return await self._report(request, TOP[by], "by")

    async def sums(self, request: Request) -> Response:
        """``GET /sums?by=owner|group|extension|kind&path=/a``: files and bytes, of a tree."""
        return await self._report(request, "sums")

    async def reports(self, request: Request) -> Response:
        """``GET /report``: which there are."""
        parameters(request)
        return self._service.answer(await self._service.fresh(request), reports=described())

    async def report(self, request: Request) -> Response:
        """``GET /report/NAME?...``: one of `projections.analytics_reports`."""
        return await self._report(request, request.url.path.rpartition("/")[2])

    async def _report(self, request: Request, name: str, *chosen: str) -> Response:
        """A report; parameters `chosen` have said which it is."""
        asked = asked_report(request, name, *chosen)
        if asked.report.history and self._service.view.history_path is None:
            raise NotFound("this view keeps no history ([projections] history)")
        rows_max = self._service.config.query_rows

        def ask(connection: duckdb.DuckDBPyConnection) -> Collected:
            return report_of(connection, asked, rows_max, self._places, self._largest)

        return await self._ask(request, ask, history=asked.report.history)

    async def history(self, request: Request) -> Response:
        """``GET /history?path=/a`` or ``?ino=N``: what happened to a file, newest first."""
        asked = asked_past(request)
        if self._service.view.history_path is None:
            raise NotFound("this view keeps no history ([projections] history)")
        fresh = await self._service.fresh(request, history=True)

        def run() -> Past:
            with self._reading(self._seconds) as connection:
                return asked.answer(connection)

        found = await self._service.run(run)
        fields = {name: getattr(found, name) for name in ("ino", "path", "state", "others")}
        return self._service.answer(
            fresh, **fields, columns=found.columns, rows=found.rows, truncated=found.truncated
        )

    async def export(self, request: Request) -> Response:
        """``GET /export?path=/a``: every inode with its path, NDJSON, as of one position."""
        parameters(request, "path")
        path = request.query_params.get("path")
        fresh = await self._service.fresh(request)

        @contextmanager
        def lines() -> Iterator[Iterator[msgspec.Raw]]:
            with self._reading(self._service.config.export_s) as connection:
                yield export_lines(connection, path, fresh.fields())

        return RowsResponse(self._service, fresh, lines())

    async def sql(self, request: Request) -> Response:
        """``POST /sql`` {"sql": ..., "parameters": [...]}: one SELECT over the view."""
        asked = await sql_request(request)
        most = self._service.config.query_rows
        limit = most if asked.limit is None else min(asked.limit, most)

        def ask(connection: duckdb.DuckDBPyConnection) -> Collected:
            check_statement(connection, asked.sql)
            return run_statement(connection, asked.sql, asked.parameters, limit)

        return await self._ask(request, ask, history="history" in asked.sql.lower())


def report_of(
    connection: duckdb.DuckDBPyConnection,
    asked: Asked,
    rows_max: int,
    places: Places,
    largest: Largest,
) -> Collected:
    """Answer a report, from the largest files if they are what it is about.

    Raises: TooLarge, UsageError, NotFound.
    """
    found = asked.largest(connection, largest)
    if found is None:
        return run_statement(connection, *asked.statement(connection), rows_max)
    paths = places.paths(connection, {parent for parent, *_ in found})
    rows = [
        (f"{paths.get(parent, '<orphans>')}/{name or rest[0]}", *rest)
        for parent, name, *rest in found
    ]
    return collect(list(LARGE_COLUMNS), iter(rows), rows_max, SQL_ANSWER_BYTES)


def check_statement(connection: duckdb.DuckDBPyConnection, sql: str) -> None:
    """Let one SELECT through.

    Raises: UsageError, TooLarge.
    """
    if len(sql) > SQL_BYTES_MAX:
        raise TooLarge(f"a statement may have {SQL_BYTES_MAX} characters")
    try:
        statements = connection.extract_statements(sql)
    except (duckdb.Error, UnicodeError) as error:
        raise UsageError(f"SQL: {_first_line(error)}") from None
    if len(statements) != 1:
        raise UsageError("SQL: one statement at a time")
    if statements[0].type not in (duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN):
        raise UsageError("SQL: only SELECT")


def run_statement(
    connection: duckdb.DuckDBPyConnection, sql: str, bound: Bound, rows_max: int
) -> Collected:
    """Rows of a statement, `rows_max` at most.

    Raises: TooLarge, UsageError.
    """
    try:
        result = connection.execute(sql, bound)
        columns = [column[0] for column in result.description or ()]
        return collect(columns, _pages(result), rows_max, SQL_ANSWER_BYTES)
    except duckdb.InterruptException:
        raise
    except duckdb.OutOfMemoryException:
        raise TooLarge("SQL: the query needs more memory than it may have") from None
    except (duckdb.Error, UnicodeError) as error:
        raise UsageError(f"SQL: {_first_line(error)}") from None


def _first_line(error: Exception) -> str:
    """DuckDB says what is wrong in a line, then shows the place in several."""
    return str(error).partition("\n")[0]


def _pages(result: duckdb.DuckDBPyConnection) -> Iterator[Any]:
    while rows := result.fetchmany(1000):
        yield from rows
