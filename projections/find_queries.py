"""HTTP of `find` (rows as they come) and `search` (a page at a time)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import apsw
import msgspec
from starlette.requests import Request
from starlette.responses import Response

from gfs import findexpr
from gfs.errors import UsageError
from gfs.findprogram import compiled
from gfs.findtests import Host
from gfs.findtree import DEPTH_MAX, And, Predicate, check
from projections import find_run
from projections.find_run import COLUMNS, Question, Start
from projections.name_search import page_of, search_of
from projections.queries import QueryService, RowsResponse, out_of_time, parameters
from projections.storage import identity

NAMES = ("path", *COLUMNS)
STARTS_MAX = 1000
Reading = Callable[[], AbstractContextManager[apsw.Connection]]


class FindRequest(msgspec.Struct, forbid_unknown_fields=True):
    """Body of ``POST /find``: `expression` in find's words, or `predicate`, a tree, or both.

    `paths` are absolute; `shown` is how a start is to be printed (`.`, a mountpoint).
    `prune`, `tests`, `order` are those of `find_run.Question`.
    """

    paths: list[Start] = []
    expression: list[str] = []
    predicate: Predicate | None = None
    prune: Predicate | None = None
    tests: list[Predicate] = []
    order: str = ""
    mindepth: int = 0
    maxdepth: int = DEPTH_MAX
    nul: bool = False


class FindQueries:
    """The handlers; `reading` gives a connection for a while."""

    def __init__(self, service: QueryService, reading: Reading) -> None:
        self._service = service
        self._reading = reading

    async def find(self, request: Request) -> Response:
        """``GET /find?path=/a&word=-name&word=*.log`` or ``POST /find``."""
        asked = await _find_request(request)
        starts, question = _question(asked)
        fresh = await self._service.fresh(request)

        @contextmanager
        def rows() -> Iterator[Iterator[dict[str, Any]]]:
            with self._reading() as connection:
                found = find_run.find(connection, starts, question)
                yield (_row(row) for row in self._bounded(found))

        return RowsResponse(self._service, fresh, rows(), nul=asked.nul)

    def _bounded(self, rows: Iterator[tuple[Any, ...]]) -> Iterator[tuple[Any, ...]]:
        """The rows; what SQLite says of the question as an error of ours.

        Raises: TimedOut, UsageError.
        """
        try:
            yield from rows
        except apsw.InterruptError:
            raise out_of_time(self._service.config.query_s) from None
        except (apsw.SQLError, apsw.TooBigError) as error:
            raise UsageError(f"the expression is too large: {error}") from None

    async def search(self, request: Request) -> Response:
        """``GET /search?q=TEXT&ext=log&path=/a``: names that fit, a page at a time."""
        asked = search_of(request)
        fresh = await self._service.fresh(request)

        def run() -> tuple[list[Any], str]:
            with self._reading() as connection:
                return page_of(connection, asked, identity(self._service.view.path)[1])

        rows, more = await self._service.run(run)
        found = [dict(zip(NAMES, row, strict=True)) for row in rows]
        return self._service.answer(fresh, rows=found, truncated=bool(more), next=more or None)


def _row(row: tuple[Any, ...]) -> dict[str, Any]:
    found = dict(zip(NAMES, row, strict=False))
    if len(row) > len(NAMES):
        found["tests"] = row[len(NAMES) :]
    return found


async def _find_request(request: Request) -> FindRequest:
    if request.method == "GET":
        parameters(request, "path", "word", "nul")
        query = request.query_params
        paths = [Start(path) for path in query.getlist("path")]
        return FindRequest(paths, query.getlist("word"), nul=query.get("nul", "0") == "1")
    try:
        return msgspec.json.decode(await request.body(), type=FindRequest)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise UsageError(f"body: {error}") from None


def _question(asked: FindRequest) -> tuple[list[Start], Question]:
    """What the request asks for.

    Raises: UsageError.
    """
    told = findexpr.parse(asked.expression, Host(time.time_ns()))
    if findexpr.acts(told.tree):
        raise UsageError("a view only finds; `gfs find` acts on what is found")
    program = compiled(told)
    conditions = [program.where, *([asked.predicate] if asked.predicate is not None else [])]
    prunes = [one for one in (program.prune, asked.prune) if one is not None]
    for one in (*conditions, *prunes, And(asked.tests)):
        check(one)
    if len(prunes) > 1:
        raise UsageError("-prune in the words, or `prune`: not both")
    if asked.order not in ("", "down", "up"):
        raise UsageError(f"unknown order {asked.order[:20]!r}")
    starts = asked.paths or [Start(path) for path in told.paths]
    if len(starts) > STARTS_MAX:
        raise UsageError(f"more than {STARTS_MAX} start points")
    question = Question(
        And(conditions),
        prunes[0] if prunes else None,
        asked.tests,
        max(told.mindepth, asked.mindepth),
        min(told.maxdepth, asked.maxdepth),
        asked.order or ("up" if told.depth_first else ""),
    )
    return [Start("/", one.shown or "/") if one.path == "." else one for one in starts], question
