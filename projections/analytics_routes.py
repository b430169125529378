"""What the analytics view can be asked: paths and parameters, as `gfs.routes` has them.

Reports come from their own table (`projections.analytics_reports`): each is a path here,
with the parameters that it takes.
"""

from __future__ import annotations

from gfs.routes import Operation, Parameter
from projections.analytics_past import ROWS_MAX as PAST_ROWS_MAX
from projections.analytics_queries import TOP, AnalyticsQueries
from projections.analytics_reports import REPORTS, ROWS_MAX, Report
from projections.queries import SQL_PARAMETERS, WAIT, SqlRequest

_SINCE = Parameter("since_ns", "nanoseconds since 1970: only what came later", "number")
_UNTIL = Parameter("until_ns", "only what came up to then", "number")
_PATH = Parameter("path", "only what lies below this directory", example="/")
_COUNT = Parameter("n", "rows at most", "number", most=ROWS_MAX)
_FLAG_OWNER = Parameter("owner", "by owner, too", "flag", default=0)
# Parameters of reports; `by` and `of` have words that the report itself names.
_OF_REPORTS = {
    "path": _PATH,
    "n": _COUNT,
    "owner": _FLAG_OWNER,
    "since_ns": _SINCE,
    "uid": Parameter("uid", "only this user's", "number", most=1 << 40),
    "name": Parameter("name", "a shell pattern for the name", default="*"),
}


def operations(queries: AnalyticsQueries) -> list[Operation]:
    """The table, with the handlers of `queries`."""
    of = Parameter("of", "of what", choices=("size", *REPORTS["ages"].of), default="size")
    by_order = Parameter("by", "the order", choices=tuple(TOP), default="size")
    return [
        Operation("/histogram", queries.histogram, "Files by size or age", (of, _PATH, WAIT)),
        Operation("/growth", queries.growth, "What came and went", _taken(REPORTS["growth"])),
        Operation("/top", queries.top, "First files in an order", (by_order, _PATH, _COUNT, WAIT)),
        Operation("/sums", queries.sums, "Files and bytes of a tree", _taken(REPORTS["sums"])),
        *_reports(queries),
        Operation(
            "/history",
            queries.history,
            "What happened to a file, by its path or number",
            (*_one_file(), _limit(), _SINCE, _UNTIL, _order(), WAIT),
            one_of=("path", "ino"),
        ),
        Operation(
            "/export",
            queries.export,
            "Every inode with its path, as of one position",
            (_PATH, WAIT),
            answers="application/x-ndjson",
        ),
        *sql_operations(queries),
    ]


def _one_file() -> tuple[Parameter, Parameter]:
    path = Parameter("path", "where it lies, or lay last", example="/")
    return path, Parameter("ino", "its inode number", "number", least=1, most=(1 << 63) - 1)


def _limit() -> Parameter:
    return Parameter("limit", "rows at most", "number", most=PAST_ROWS_MAX)


def _order() -> Parameter:
    return Parameter("order", "which first", choices=("newest", "oldest"), default="newest")


def _reports(queries: AnalyticsQueries) -> list[Operation]:
    return [
        Operation("/report", queries.reports, "Which reports there are", (WAIT,)),
        *(
            Operation(f"/report/{name}", queries.report, report.title, _taken(report))
            for name, report in REPORTS.items()
        ),
        # Any other name, so that the answer says which there are.
        Operation("/report/{name}", queries.report, "A report by its name", (_NAME,)),
    ]


_NAME = Parameter("name", "which report", where="path")


def _taken(report: Report) -> tuple[Parameter, ...]:
    words = {
        "by": Parameter("by", "what by", choices=report.by, default=report.by[0]),
        "of": Parameter("of", "of which time", choices=report.of, default=report.of[0]),
    }
    known = _OF_REPORTS | words
    return (*(known[name] for name in report.takes), WAIT)


def sql_operations(queries: AnalyticsQueries) -> list[Operation]:
    """Free SQL: works on any view in DuckDB."""
    about = "One SELECT over the view (DuckDB)"
    return [
        Operation("/sql", queries.sql, about, (*SQL_PARAMETERS, WAIT)),
        Operation("/sql", queries.sql, about, (WAIT,), "POST", SqlRequest),
    ]
