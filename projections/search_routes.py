"""What the search view can be asked: paths and parameters, as `gfs.routes` has them."""

from __future__ import annotations

from gfs.routes import Operation, Parameter
from projections.queries import SQL_PARAMETERS, WAIT, SqlRequest
from projections.search_queries import FindRequest, SearchQueries

PATH = Parameter("path", "only what lies below this directory", default="/")
_NUL = Parameter("nul", "paths ended by NUL instead of rows", "flag", default=0)
_LIMIT = Parameter("limit", "rows at most", "number", most=100_000, default=100)
_SINCE = Parameter("since_ns", "nanoseconds since 1970: only what came later", "number", default=0)
_ROWS = "application/x-ndjson"


def operations(queries: SearchQueries) -> list[Operation]:
    """The table, with the handlers of `queries`."""
    return [*_names(queries), *_sums(queries), *_past(queries), *sql_operations(queries)]


def _names(queries: SearchQueries) -> list[Operation]:
    start = Parameter("path", "where to start", many=True, example="/")
    word = Parameter("word", "a word of find's expression", many=True, example="-true")
    return [
        Operation(
            "/find",
            queries.find,
            "find(1): a row a line, or paths",
            (start, word, _NUL, WAIT),
            answers=_ROWS,
        ),
        Operation(
            "/find",
            queries.find,
            "find(1), asked by a body",
            (WAIT,),
            "POST",
            FindRequest,
            _ROWS,
        ),
        Operation(
            "/search",
            queries.search,
            "Names that contain a text, in any case",
            (
                Parameter("q", "the text", required=True),
                Parameter("glob", "the text is a shell pattern", "flag", default=0),
                Parameter("trash", "what lies in the trash, too", "flag", default=0),
                *(PATH, _LIMIT, WAIT),
            ),
        ),
    ]


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
