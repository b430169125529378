"""What the analytics view can be asked: paths and parameters, as `gfs.routes` has them.

Reports come from their own table (`projections.analytics_reports`): each is a path here,
with the parameters that it takes.
"""

from __future__ import annotations

from gfs.routes import Operation, Parameter
from projections.analytics_queries import AnalyticsQueries
from projections.analytics_reports import REPORTS, ROWS_MAX, Report
from projections.queries import SQL_PARAMETERS, WAIT, SqlRequest

_TIMES = ("mtime", "atime", "ctime", "created")
_SINCE = Parameter("since_ns", "nanoseconds since 1970: only what came later", "number", default=0)
_PATH = Parameter("path", "only what lies below this directory", example="/")
_COUNT = Parameter("n", "rows at most", "number", most=ROWS_MAX, default=20)
# Parameters of reports; `by` and `of` have words that the report itself names.
_OF_REPORTS = {
    "path": _PATH,
    "n": _COUNT,
    "since_ns": Parameter("since_ns", "nanoseconds since 1970", "number"),
    "uid": Parameter("uid", "only this user's", "number", most=1 << 40),
    "of": Parameter("of", "which time", choices=(*_TIMES, "used"), default="mtime"),
    "name": Parameter("name", "a shell pattern for the name", default="*"),
}


def operations(queries: AnalyticsQueries) -> list[Operation]:
    """The table, with the handlers of `queries`."""
    by_period = Parameter("by", "in steps of", choices=("hour", "day", "month"), default="hour")
    by_order = Parameter(
        "by", "the order", choices=("size", "newest", "oldest", "links"), default="size"
    )
    by_group = Parameter(
        "by", "what is summed", choices=("owner", "group", "extension", "kind"), default="owner"
    )
    of = Parameter("of", "of what", choices=("size", *_TIMES), default="size")
    owner = Parameter("owner", "by owner, too", "flag", default=0)
    return [
        Operation("/histogram", queries.histogram, "Files by size or age", (of, WAIT)),
        Operation(
            "/growth", queries.growth, "What came and went", (by_period, owner, _SINCE, WAIT)
        ),
        Operation("/top", queries.top, "First files in an order", (by_order, _COUNT, WAIT)),
        Operation("/sums", queries.sums, "Files and bytes of a tree", (by_group, _PATH, WAIT)),
        *_reports(queries),
        *sql_operations(queries),
    ]


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
    by = Parameter("by", "in steps of, or by whom", choices=report.by)
    known = _OF_REPORTS | {"by": by}
    return (*(known[name] for name in report.takes), WAIT)


def sql_operations(queries: AnalyticsQueries) -> list[Operation]:
    """Free SQL: works on any view in DuckDB."""
    about = "One SELECT over the view (DuckDB)"
    return [
        Operation("/sql", queries.sql, about, (*SQL_PARAMETERS, WAIT)),
        Operation("/sql", queries.sql, about, (WAIT,), "POST", SqlRequest),
    ]
