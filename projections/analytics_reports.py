"""Reports of the analytics view: questions that many ask, by name; `gfs report NAME`.

A report is a statement and the parameters it takes. `source` in it is the inodes it is
about: all of them, those in the trash and those without a name too, or with `path` those
of one tree, each once. Times are in UTC; sizes in bytes. What was deleted and what grew
come from the history, which begins when the view first ran and outlives rebuilds.
"""

from __future__ import annotations

import itertools
import re
import time
from dataclasses import dataclass
from typing import Any

import duckdb
from starlette.requests import Request

from gfs.errors import InvalidArgument, NotFound
from projections.analytics_tree import BELOW, inode_at
from projections.queries import number, parameters

DAY_NS = 86400 * 10**9
ROWS_DEFAULT, ROWS_MAX = 20, 10_000
_FILE = "mode & 61440 = 32768"
_OWN = "mode & 61440 != 16384"
_TIMES = ("mtime", "atime", "ctime", "created", "used")
_PERIODS = ("hour", "day", "month", "owner")
_ALL = "inodes"
_OF_TREE = "(SELECT i.* FROM inodes i SEMI JOIN below USING (ino))"
_COLUMNS = (
    "ino, size, uid, make_timestamp_ns(mtime_ns) AS mtime,"
    " make_timestamp_ns(atime_ns) AS atime, nlink"
)


def _named(best: str, order: str) -> str:
    """The inodes that `best` chooses, with the path of the least name of each."""
    return (
        f", best AS ({best} LIMIT $n), least AS ("
        "SELECT ino, min({'parent': parent, 'name': name}) AS home"
        " FROM dirents SEMI JOIN best USING (ino) GROUP BY ino)"
        " SELECT coalesce(d.path, '<orphans>') || '/' || coalesce(l.home.name, b.ino::VARCHAR)"
        " AS path, b.* FROM best b LEFT JOIN least l USING (ino)"
        f" LEFT JOIN directories d ON d.ino = l.home.parent ORDER BY {order}, b.ino"
    )


def _top(order: str, condition: str = _OWN) -> str:
    best = f"SELECT {_COLUMNS} FROM {{source}} WHERE {condition} ORDER BY {order}, ino"
    return _named(best, order)


@dataclass(frozen=True)
class Report:
    """What is asked; `takes`: parameters besides `wait`; `since_days`: default of `since_ns`."""

    title: str
    sql: str  # begins behind WITH RECURSIVE ...; {source}, {of} and {by} are filled in
    takes: tuple[str, ...]
    history: bool = False
    since_days: int | None = None  # None: everything since 1970
    by: tuple[str, ...] = ()


_DAYS = (0, 1, 7, 30, 90, 365, 1095)  # an age counts at the greatest that is not above it
_BUCKET = "CASE {} ELSE 1095 END".format(
    " ".join(f"WHEN days < {above} THEN {low}" for low, above in itertools.pairwise(_DAYS))
)
REPORTS = {
    "largest": Report("Files by size", _top("size DESC"), ("path", "n")),
    "newest": Report("Files by time of change", _top("mtime DESC"), ("path", "n")),
    "oldest": Report("Files not changed for longest", _top("mtime"), ("path", "n")),
    "links": Report("Files with most names", _top("nlink DESC"), ("path", "n")),
    "cold": Report(
        "Largest files neither read nor written since (90 days)",
        _top("size DESC", f"{_FILE} AND greatest(atime_ns, mtime_ns) < $since"),
        ("path", "n", "since_ns"),
        since_days=90,
    ),
    "crowded": Report(
        "Directories with most entries",
        ", most AS (SELECT parent AS ino, count(*) AS entries, count(*) FILTER (kind = 16384)"
        " AS directories FROM dirents WHERE parent IN (SELECT ino FROM {source})"
        " GROUP BY parent ORDER BY entries DESC, parent LIMIT $n)"
        " SELECT CASE d.path WHEN '' THEN '/' ELSE coalesce(d.path, '<orphans>') END AS path,"
        " most.* FROM most LEFT JOIN directories d USING (ino) ORDER BY entries DESC, ino",
        ("path", "n"),
    ),
    "sizes": Report(
        "Histogram of sizes, by powers of two",
        " SELECT CASE WHEN size = 0 THEN 0 ELSE 1::BIGINT << floor(log2(size))::INTEGER END"
        " AS from_bytes, count(*) AS files, sum(size)::BIGINT AS bytes"
        f" FROM {{source}} WHERE {_FILE} GROUP BY ALL ORDER BY 1",
        ("path",),
    ),
    "ages": Report(
        "Histogram of ages in days: of mtime, atime, ctime, created, used (read or written)",
        f" SELECT {_BUCKET}"
        " AS from_days, count(*) AS files, sum(size)::BIGINT AS bytes FROM (SELECT size,"
        f" ($now - {{of}}) // {DAY_NS} AS days FROM {{source}} WHERE {_FILE})"
        " GROUP BY ALL ORDER BY 1",
        ("path", "of"),
    ),
    "growth": Report(
        "What came and went, by hour, day, month or owner",
        " SELECT {by}, sum(created)::BIGINT AS created, sum(removed)::BIGINT AS removed,"
        " sum(bytes_added)::BIGINT AS bytes_added, sum(bytes_removed)::BIGINT AS bytes_removed"
        " FROM history.growth WHERE hour >= make_timestamp_ns($since)::TIMESTAMP"
        " AND ($uid < 0 OR uid = $uid) GROUP BY ALL ORDER BY 1",
        ("by", "since_ns", "uid"),
        history=True,
        by=_PERIODS,
    ),
    "deleted": Report(
        "Who deleted what, newest first, and whether it lies in the trash still",
        " SELECT make_timestamp_ns(x.time_ns) AS deleted, x.uid AS by_uid, x.host, x.mount,"
        " coalesce(d.path, '<gone ' || x.parent || '>') || '/' || x.name AS path, x.ino,"
        " kind_of(x.kind) AS kind, x.size, x.ino IN (SELECT ino FROM dirents WHERE parent = 2)"
        " AS in_trash FROM history.deletions x LEFT JOIN directories d ON d.ino = x.parent"
        " WHERE x.time_ns >= $since AND ($uid < 0 OR x.uid = $uid) AND x.name GLOB $name"
        " ORDER BY x.time_ns DESC, x.cursor DESC LIMIT $n",
        ("n", "since_ns", "uid", "name"),
        history=True,
    ),
}


def _chosen(request: Request, name: str, known: tuple[str, ...]) -> str:
    found = request.query_params.get(name, known[0])
    if found not in known:
        raise InvalidArgument(f"{name} is one of {', '.join(known)}")
    return found


@dataclass(frozen=True)
class Asked:
    """A report and the values somebody gave it."""

    report: Report
    sql: str
    bound: dict[str, Any]
    path: str | None

    def statement(self, connection: duckdb.DuckDBPyConnection) -> tuple[str, dict[str, Any]]:
        """SQL and what is bound in it.

        Raises: UsageError, NotFound: there is no such path.
        """
        if self.path is None:
            return "WITH nothing AS (SELECT 1)" + self.sql.replace("{source}", _ALL), self.bound
        top = {"top": inode_at(connection, self.path)}
        return BELOW + self.sql.replace("{source}", _OF_TREE), self.bound | top


def asked_report(request: Request, name: str) -> Asked:
    """The report that a request wants.

    Raises: NotFound, InvalidArgument.
    """
    report = REPORTS.get(name)
    if report is None:
        raise NotFound(f"no report {name[:40]!r}; there are {', '.join(REPORTS)}")
    parameters(request, *report.takes)
    now = time.time_ns()
    since = 0 if report.since_days is None else now - report.since_days * DAY_NS
    values: dict[str, Any] = {
        "n": max(1, number(request, "n", ROWS_DEFAULT, ROWS_MAX)),
        "since": number(request, "since_ns", since, 1 << 62),
        "uid": number(request, "uid", -1, 1 << 40),
        "name": request.query_params.get("name", "*"),
        "now": now,
    }
    sql = report.sql
    if "of" in report.takes:
        of = _chosen(request, "of", _TIMES)
        sql = sql.replace("{of}", "greatest(atime_ns, mtime_ns)" if of == "used" else f"{of}_ns")
    if report.by:
        by = _chosen(request, "by", report.by)
        sql = sql.replace("{by}", "uid" if by == "owner" else f"date_trunc('{by}', hour) AS since")
    bound = {key: value for key, value in values.items() if re.search(rf"\${key}\b", sql)}
    return Asked(report, sql, bound, request.query_params.get("path"))


def described() -> list[dict[str, Any]]:
    """All reports, for people and programs."""
    return [
        {"report": name, "title": one.title, "takes": list(one.takes)}
        for name, one in REPORTS.items()
    ]
