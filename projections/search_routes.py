"""What the search view can be asked: paths and parameters, as `gfs.routes` has them."""

from __future__ import annotations

from collections.abc import Iterator

from gfs.routes import Operation, Parameter
from projections.find_queries import FindRequest
from projections.name_search import NUMBERS, RANGES, SIZES
from projections.queries import SQL_PARAMETERS, WAIT, SqlRequest
from projections.search_queries import SearchQueries

PATH = Parameter("path", "only what lies below this directory", default="/")
_NUL = Parameter("nul", "paths ended by NUL instead of rows", "flag", default=0)
_LIMIT = Parameter("limit", "rows at most", "number", most=100_000, default=100)
_SINCE = Parameter("since_ns", "nanoseconds since 1970: only what came later", "number", default=0)
_AFTER = Parameter("after", "`next` of the page before", example="")
_ROWS = "application/x-ndjson"


def operations(queries: SearchQueries) -> list[Operation]:
    """The table, with the handlers of `queries`."""
    return [*_names(queries), *_sums(queries), *_past(queries), *sql_operations(queries)]


def _names(queries: SearchQueries) -> list[Operation]:
    start = Parameter("path", "where to start", many=True, example="/")
    word = Parameter("word", "a word of find's expression", many=True, example="-true")
    told, asked = "find(1): a row a line, or paths", "find(1), asked by a body"
    return [
        Operation("/find", queries.find, told, (start, word, _NUL, WAIT), answers=_ROWS),
        Operation("/find", queries.find, asked, (WAIT,), "POST", FindRequest, _ROWS),
        Operation(
            "/search",
            queries.search,
            "Names of files that fit all that is given, a page at a time",
            (*_texts(), *_numbers(), *_switches(), PATH, _LIMIT, _AFTER, WAIT),
        ),
    ]


def _texts() -> Iterator[Parameter]:
    yield Parameter("q", "part of the name, in any case")
    yield Parameter("regex", "a regular expression for the name")
    yield Parameter("ext", "what follows the last dot")
    yield Parameter("kind", "letters of f d l c b p s", example="f")
    yield Parameter("perm", "octal mode; - before it: all these bits, /: any", example="644")
    yield Parameter("xattr", "NAME or NAME=VALUE")
    yield Parameter("target", "a shell pattern for where a symbolic link points")


def _numbers() -> Iterator[Parameter]:
    for name in (*NUMBERS, *SIZES):
        yield Parameter(name, f"{name.replace('_', ', ')}", "number", most=(1 << 63) - 1)
    for name in RANGES:
        about = f"nanoseconds since 1970: {name.replace('_', ' ')} it"
        yield Parameter(name, about, "number")


def _switches() -> Iterator[Parameter]:
    yield Parameter("glob", "q is a shell pattern for the whole name", "flag", default=0)
    yield Parameter("fold", "patterns fit in any case", "flag", default=0)
    yield Parameter("trash", "what lies in the trash, too", "flag", default=0)


def _sums(queries: SearchQueries) -> list[Operation]:
    depth = Parameter("depth", "directories down to here, too", "number", most=1000, default=0)
    count = Parameter("n", "how many", "number", most=10_000, default=20)
    return [
        Operation("/du", queries.du, "Sums of everything at a path", (PATH, depth, WAIT)),
        Operation("/top", queries.top, "The largest files", (count, PATH, WAIT)),
        Operation("/owners", queries.owners, "Sums by owner", (WAIT,)),
        Operation("/extensions", queries.extensions, "Sums by extension", (WAIT,)),
    ]


def _past(queries: SearchQueries) -> list[Operation]:
    by_name = Parameter("name", "a shell pattern for the name", default="*")
    uid = Parameter("uid", "only what this user did", "number", most=1 << 40)
    return [
        Operation(
            "/deletions",
            queries.deletions,
            "Who deleted what, newest first",
            (by_name, uid, _SINCE, _LIMIT, WAIT),
        ),
        Operation("/growth", queries.growth, "What came and went, by hour", (_SINCE, WAIT)),
    ]


def sql_operations(queries: SearchQueries) -> list[Operation]:
    """Free SQL: works on any view in SQLite."""
    about = "One SELECT over the view (SQLite)"
    return [
        Operation("/sql", queries.sql, about, (*SQL_PARAMETERS, WAIT)),
        Operation("/sql", queries.sql, about, (WAIT,), "POST", SqlRequest),
    ]
