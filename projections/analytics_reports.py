"""Reports of the analytics view: questions that many ask, by name; `gfs report NAME`.

A report makes a statement of the words that somebody chose, and takes values for the
rest, which are bound: no text of a request is ever part of SQL. Without `path` a report is
about everything, what lies in the trash and what has no name too; with it about one tree,
each inode once. Times are in UTC; sizes in bytes.
"""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import duckdb
from starlette.requests import Request

from gfs.errors import InvalidArgument, NotFound
from projections import analytics_growth as growth
from projections.analytics_extensions import ADDED_UP
from projections.analytics_kept import POWER, day
from projections.analytics_largest import Largest
from projections.analytics_tree import BELOW, NOTHING, Words, climbing, inode_at
from projections.core.counting import AGES, DAY_NS, SIZES
from projections.queries import number, parameters

ROWS_DEFAULT, ROWS_MAX = 20, 10_000
TIME_MAX_NS = (1 << 63) - 1
PATTERN_CHARACTERS_MAX = 1000
_FILE = "mode & 61440 = 32768"
_OWN = "mode & 61440 <> 16384"
_COLUMNS = (
    "ino, size, uid, make_timestamp_ns(mtime_ns) AS mtime,"
    " make_timestamp_ns(atime_ns) AS atime, nlink"
)
LARGE_COLUMNS = ("path", "ino", "size", "uid", "mtime", "atime", "nlink")
# Where the inodes of `best` are: their least name, its directory's path.
_LEAST = (
    "least AS MATERIALIZED (SELECT ino, home.parent AS parent, home.name AS name FROM ("
    "SELECT ino, min({'parent': parent, 'name': name}) AS home"
    " FROM dirents SEMI JOIN best USING (ino) GROUP BY ino))"
)
_PATH = "coalesce(p.path, '<orphans>') || '/' || coalesce(l.name, b.ino::VARCHAR)"
_PLACED = "best b LEFT JOIN least l USING (ino) LEFT JOIN places p ON p.ino = l.parent"
_DAYS = (0, 1, 7, 30, 90, 365, 1095)  # an age counts at the greatest that is not above it
_BUCKET = "CASE {} ELSE 1095 END".format(
    " ".join(f"WHEN days < {above} THEN {low}" for low, above in itertools.pairwise(_DAYS))
)
_GROUPS = {"owner": "uid", "group": "gid", "kind": "kind_of(mode)"}
_SUMS = (
    "count(*) AS files, sum(size)::BIGINT AS bytes,"
    " sum((stored + 511) // 512 * 512)::BIGINT AS disk_bytes"
)


def _source(words: Words) -> str:
    """The inodes a report is about."""
    return "(SELECT i.* FROM inodes i SEMI JOIN below USING (ino))" if words.in_tree else "inodes"


def _begin(words: Words) -> str:
    return BELOW if words.in_tree else NOTHING


def _top(order: str, condition: str = _OWN) -> Callable[[Words], str]:
    """Files in some order, each with the path of its least name."""

    def sql(words: Words) -> str:
        return (
            f"{_begin(words)}, best AS MATERIALIZED ("
            f"SELECT {_COLUMNS} FROM {_source(words)}"
            f" WHERE {condition} ORDER BY {order}, ino LIMIT $n), {_LEAST}{climbing('least')}"
            f" SELECT {_PATH} AS path, b.* FROM {_PLACED} ORDER BY {order}, b.ino"
        )

    return sql


def _duplicates(words: Words) -> str:
    """Files of the same size and digest, a row each: those with most bytes to spare first."""
    like = f"{_FILE} AND size > 0 AND digest <> 0"
    return (
        f"{_begin(words)}, source AS MATERIALIZED (SELECT ino, size, uid, digest"
        f" FROM {_source(words)} WHERE {like}), alike AS MATERIALIZED (SELECT size, digest,"
        " count(*) AS files, (count(*) - 1) * size AS spare_bytes FROM source"
        " GROUP BY size, digest HAVING count(*) > 1 ORDER BY spare_bytes DESC, digest LIMIT $n"
        "), best AS MATERIALIZED (SELECT s.*, a.files, a.spare_bytes FROM source s"
        f" JOIN alike a ON a.size = s.size AND a.digest = s.digest), {_LEAST}{climbing('least')}"
        f" SELECT {_PATH} AS path, b.* FROM {_PLACED}"
        " ORDER BY spare_bytes DESC, digest, path"
    )


def _crowded(words: Words) -> str:
    here = " SEMI JOIN tree ON tree.ino = dirents.parent" if words.in_tree else ""
    return (
        f"{_begin(words)}, most AS (SELECT parent, count(*) AS entries,"
        f" count(*) FILTER (kind = 16384) AS directories FROM dirents{here}"
        f" GROUP BY parent ORDER BY entries DESC, parent LIMIT $n){climbing('most')}"
        " SELECT CASE p.path WHEN '' THEN '/' ELSE coalesce(p.path, '<orphans>') END AS path,"
        " most.parent AS ino, entries, directories FROM most"
        " LEFT JOIN places p ON p.ino = most.parent ORDER BY entries DESC, most.parent"
    )


def _sizes(words: Words) -> str:
    if not words.in_tree:
        return (
            "SELECT key AS from_bytes, sum(files)::BIGINT AS files, sum(bytes)::BIGINT AS bytes"
            f" FROM counts WHERE of = '{SIZES}' GROUP BY key HAVING sum(files) <> 0 ORDER BY 1"
        )
    return (
        f"{_begin(words)} SELECT {POWER} AS from_bytes,"
        " count(*) AS files, sum(size)::BIGINT AS bytes"
        f" FROM {_source(words)} WHERE {_FILE} GROUP BY ALL ORDER BY 1"
    )


def _ages(words: Words) -> str:
    """Days are those of UTC: what was changed yesterday is a day old, at any hour."""
    if words.in_tree:
        rows = (
            f"SELECT $now // {DAY_NS} - {day(words.of)} AS days, 1 AS files, size AS bytes"
            f" FROM {_source(words)} WHERE {_FILE}"
        )
    else:
        rows = (
            f"SELECT $now // {DAY_NS} - key AS days, files, bytes FROM counts"
            f" WHERE of = '{words.of}'"
        )
    return (
        f"{_begin(words)} SELECT {_BUCKET} AS from_days, sum(files)::BIGINT AS files,"
        f" sum(bytes)::BIGINT AS bytes FROM ({rows}) GROUP BY ALL HAVING sum(files) <> 0 ORDER BY 1"
    )


def _sums(words: Words) -> str:
    if words.by == "extension" and not words.in_tree:  # what is no file has no extension
        return (
            "SELECT extension, sum(files)::BIGINT AS files, sum(bytes)::BIGINT AS bytes,"
            f" sum(disk_bytes)::BIGINT AS disk_bytes FROM ({ADDED_UP} UNION ALL"
            f" SELECT '', {_SUMS} FROM inodes WHERE NOT ({_FILE})) GROUP BY extension"
            " HAVING sum(files) <> 0 ORDER BY bytes DESC, 1 LIMIT $n"
        )
    if words.by == "extension":
        source = f"{_source(words)} i LEFT JOIN homes h USING (ino)"
        key = "coalesce(h.extension, '') AS extension"
    else:
        source = _source(words)
        key = _GROUPS[words.by] + (" AS kind" if words.by == "kind" else "")
    return (
        f"{_begin(words)} SELECT {key}, {_SUMS} FROM {source}"
        " GROUP BY ALL ORDER BY bytes DESC, 1 LIMIT $n"
    )


def _extensions(words: Words) -> str:
    if not words.in_tree:
        return f"{ADDED_UP} ORDER BY bytes DESC, extension LIMIT $n"
    return (
        f"{_begin(words)} SELECT coalesce(h.extension, '') AS extension, {_SUMS}"
        f" FROM {_source(words)} i LEFT JOIN homes h USING (ino) WHERE {_FILE}"
        " GROUP BY ALL ORDER BY bytes DESC, extension LIMIT $n"
    )


@dataclass(frozen=True)
class Report:
    """What is asked; `takes`: parameters besides `wait`."""

    title: str
    sql: Callable[[Words], str]
    takes: tuple[str, ...]
    history: bool = False  # answered from the history
    since_days: float | None = None  # default of `since_ns`; None: everything since 1970
    by: tuple[str, ...] = ("",)  # what `by` may be, the default first
    of: tuple[str, ...] = ("",)
    rows: int = ROWS_DEFAULT  # default of `n`
    is_of_large: bool = False  # the files in `large` are enough for it, if they are many enough


REPORTS = {
    "largest": Report(
        "Files by size",
        _top("size DESC"),
        ("path", "n"),
        is_of_large=True,
    ),
    "newest": Report("Files by time of change", _top("mtime DESC"), ("path", "n")),
    "oldest": Report("Files not changed for longest", _top("mtime"), ("path", "n")),
    "links": Report("Files with most names", _top("nlink DESC"), ("path", "n")),
    "cold": Report(
        "Largest files neither read nor written since (90 days)",
        _top("size DESC", f"{_FILE} AND greatest(atime_ns, mtime_ns) < $since"),
        ("path", "n", "since_ns"),
        since_days=90,
    ),
    "duplicates": Report(
        "Files that are likely alike, by size and digest: `n` contents of most bytes to spare",
        _duplicates,
        ("path", "n"),
    ),
    "crowded": Report("Directories with most entries", _crowded, ("path", "n")),
    "sizes": Report("Histogram of sizes, by powers of two", _sizes, ("path",)),
    "ages": Report(
        "Histogram of ages in days: of mtime, atime, ctime, created, used (read or written)",
        _ages,
        ("path", "of"),
        of=AGES,
    ),
    "extensions": Report("Histogram of extensions", _extensions, ("path", "n"), rows=ROWS_MAX),
    "sums": Report(
        "Inodes and bytes by owner, group, extension or kind",
        _sums,
        ("path", "by", "n"),
        by=("owner", "group", "extension", "kind"),
        rows=ROWS_MAX,
    ),
    "growth": Report(
        "What came and went, by hour, day, month or owner",
        growth.over_time,
        ("path", "by", "owner", "since_ns", "uid"),
        history=True,
        by=("hour", "day", "month", "owner"),
    ),
    "growing": Report(
        "What grew most since (7 days): files, directories, trees right below the path, owners",
        growth.growing,
        ("path", "by", "n", "since_ns", "uid"),
        history=True,
        since_days=7,
        by=("file", "directory", "tree", "owner"),
    ),
    "active": Report(
        "Directories in which most happened since (1 hour)",
        growth.active,
        ("path", "n", "since_ns", "uid"),
        history=True,
        since_days=1 / 24,
    ),
    "deleted": Report(
        "Who deleted what, newest first, and whether it lies in the trash still",
        growth.deleted,
        ("path", "n", "since_ns", "uid", "name"),
        history=True,
    ),
}


def _chosen(request: Request, name: str, report: Report, known: tuple[str, ...]) -> str:
    if name not in report.takes:
        return known[0]
    found = request.query_params.get(name, known[0])
    if found not in known:
        raise InvalidArgument(f"{name} is one of {', '.join(known)}, not {found[:40]!r}")
    return found


@dataclass(frozen=True)
class Asked:
    """A report and the values somebody gave it."""

    report: Report
    words: Words
    values: dict[str, Any]
    path: str | None

    def statement(self, connection: duckdb.DuckDBPyConnection) -> tuple[str, dict[str, Any]]:
        """SQL and what is bound in it.

        Raises: UsageError, NotFound: there is no such path.
        """
        top = {} if self.path is None else {"top": inode_at(connection, self.path)}
        sql = self.report.sql(self.words)
        bound = {key: one for key, one in self.values.items() if re.search(rf"\${key}\b", sql)}
        return sql, bound | top

    def largest(
        self, connection: duckdb.DuckDBPyConnection, largest: Largest
    ) -> list[tuple[Any, ...]] | None:
        """Parent, name and columns of the files asked for; None if they are not all kept."""
        if not self.report.is_of_large or self.path is not None:
            return None
        return largest.rows(connection, self.values["n"])


def asked_report(request: Request, name: str, *chosen: str) -> Asked:
    """The report that a request wants; parameters `chosen` have said which it is.

    Raises: NotFound, InvalidArgument.
    """
    report = REPORTS.get(name)
    if report is None:
        raise NotFound(f"no report {name[:40]!r}; there are {', '.join(REPORTS)}")
    parameters(request, *report.takes, *chosen)
    path = request.query_params.get("path")
    words = Words(
        by=_chosen(request, "by", report, report.by),
        of=_chosen(request, "of", report, report.of),
        in_tree=path is not None,
        per_owner=number(request, "owner", 0, 1) == 1,
    )
    return Asked(report, words, _values(request, report), path)


def _values(request: Request, report: Report) -> dict[str, Any]:
    now = time.time_ns()
    since = 0 if report.since_days is None else now - int(report.since_days * DAY_NS)
    pattern = request.query_params.get("name", "*")
    if len(pattern) > PATTERN_CHARACTERS_MAX:
        raise InvalidArgument(f"name has more than {PATTERN_CHARACTERS_MAX} characters")
    return {
        "n": max(1, number(request, "n", report.rows, ROWS_MAX)),
        "since": number(request, "since_ns", since, TIME_MAX_NS),
        "uid": number(request, "uid", -1, 1 << 40),
        "name": pattern,
        "now": now,
    }


def described() -> list[dict[str, Any]]:
    """All reports, for people and programs."""
    return [
        {"report": name, "title": one.title, "takes": list(one.takes)}
        for name, one in REPORTS.items()
    ]
