"""`search`: names, attributes, targets that fit every parameter given, a page at a time.

Parameters become a predicate of `find`, so both mean the same by a pattern or a size.
Pages go by the number of the row, which an index of names gives in order: a page
costs what it shows. `next` of an answer is `after` of the next question; once the view
was built anew it is refused, since numbers mean something else then.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial
from typing import Any

import apsw
from starlette.requests import Request

from gfs.errors import InvalidArgument
from gfs.findtree import (
    Age,
    And,
    Contains,
    Name,
    Number,
    Permissions,
    Predicate,
    Regex,
    Target,
    Type,
    Xattr,
    check,
)
from projections.find_query import Where, attribute_of, inode_of, match_of, name_words
from projections.find_run import NAMES, SELECTED, WALKED, Source, directory_of, resolve, sources
from projections.queries import number, parameters

ROWS_MAX = 100_000
_FIRST, _LAST = -1 << 62, (1 << 63) - 1  # before and behind all numbers of rows
_OUTSIDE_TRASH = "d.path < '<'"  # '' and '/...' sort before '<trash>' and '<orphans>'
_HOLDS = "SELECT files + directories FROM directories WHERE ino = ?"
_TEXTS = ("q", "regex", "ext", "kind", "perm", "xattr", "target")
NUMBERS = {"uid": "uid", "gid": "gid", "ino": "ino", "links": "links"}
SIZES = ("size_min", "size_max")
_TIMES = {"mtime": "m", "atime": "a", "ctime": "c", "created": "B"}
RANGES = [f"{name}_{end}" for name in _TIMES for end in ("after", "before")]
_SWITCHES = ("glob", "fold", "trash")
_KNOWN = (*_TEXTS, *NUMBERS, *SIZES, *RANGES, *_SWITCHES, "path", "limit", "after")


@dataclass(frozen=True)
class Search:
    """One question: what must hold, below which directory, and which page."""

    predicate: Predicate
    path: str
    trash: bool
    limit: int
    after: str


def search_of(request: Request) -> Search:
    """The question that the parameters ask.

    Raises: InvalidArgument, UsageError.
    """
    parameters(request, *_KNOWN)
    query = request.query_params
    tests = [*_texts(request), *_numbers(request), *_times(request)]
    if not tests:
        raise InvalidArgument(f"nothing to look for: give one of {', '.join(_TEXTS)}")
    return Search(
        check(And(tests)),
        query.get("path", "/"),
        _switch(request, "trash"),
        max(1, number(request, "limit", 100, ROWS_MAX)),
        query.get("after", ""),
    )


def _texts(request: Request) -> list[Predicate]:
    query = request.query_params
    found: list[Predicate] = []
    fold = _switch(request, "fold")
    if text := query.get("q"):
        found.append(Name(text, fold) if _switch(request, "glob") else Contains(text))
    if text := query.get("regex"):
        found.append(Regex(text, fold, whole=False))
    if text := query.get("ext"):
        ending = "".join(f"\\{letter}" if letter in "*?[\\" else letter for letter in text)
        found += [Contains(f".{text}"), Name(f"?*.{ending}", fold=True)]
    if text := query.get("kind"):
        found.append(Type(text.replace(",", "")))
    if text := query.get("perm"):
        found.append(_permissions(text))
    if text := query.get("xattr"):
        name, equals, value = text.partition("=")
        found.append(Xattr(name, value if equals else None))
    if text := query.get("target"):
        found.append(Target(text, fold))
    return found


def _permissions(text: str) -> Permissions:
    how = text[0] if text[0] in "-/" else ""
    bits = text[len(how) :]
    if not (0 < len(bits) <= 5 and set(bits) <= set("01234567")):
        raise InvalidArgument(f"perm must be an octal mode, not {text[:40]!r}")
    return Permissions(int(bits, 8), how)


def _numbers(request: Request) -> list[Predicate]:
    query = request.query_params
    most = (1 << 63) - 1
    found: list[Predicate] = [
        Number(attribute, "", number(request, name, 0, most))
        for name, attribute in NUMBERS.items()
        if name in query
    ]
    if "size_min" in query:
        found.append(Number("size", "+", number(request, "size_min", 0, most) - 1))
    if "size_max" in query:
        found.append(Number("size", "-", number(request, "size_max", 0, most) + 1))
    return found


def _times(request: Request) -> list[Predicate]:
    """Nanoseconds: after (not at) one moment, up to another."""
    query = request.query_params
    found: list[Predicate] = []
    for name, which in _TIMES.items():
        ends = [
            number(request, f"{name}_{end}", 0, 1 << 62) if f"{name}_{end}" in query else None
            for end in ("after", "before")
        ]
        if ends != [None, None]:
            found.append(Age(which, *ends))
    return found


def _switch(request: Request, name: str) -> bool:
    value = request.query_params.get(name, "0")
    if value not in ("0", "1"):
        raise InvalidArgument(f"{name} must be 0 or 1, not {value[:40]!r}")
    return value == "1"


def page_of(connection: apsw.Connection, asked: Search, build: int) -> tuple[list[Any], str]:
    """Rows (path, `COLUMNS`) of one page, and the next page's `after`; "" if there is none.

    `build` tells this file from one that was built at another time.

    Raises: InvalidArgument, NotFound, NotADirectory, UsageError.
    """
    after = _after(asked.after, build)
    rows: list[Any] = []
    for source in sources(connection):  # links have numbers below 0
        numbers = (max(after, 0), _LAST) if source is NAMES else (after, 0)
        rows += _rows(connection, asked, source, numbers, asked.limit + 1 - len(rows))
    more = f"{build}-{rows[asked.limit - 1][-1]}" if len(rows) > asked.limit else ""
    return [row[:-1] for row in rows[: asked.limit]], more


def _rows(
    connection: apsw.Connection, asked: Search, source: Source, numbers: tuple[int, int], limit: int
) -> list[Any]:
    """At most `limit` rows with numbers in (first, last], each with its number at its end."""
    place = f"d.path || '/' || {source.name}"
    where = Where(partial(resolve, connection), lambda path, which: 0, place, source.name)
    limits = [where.sql(asked.predicate)]
    few = False
    if asked.path != "/":
        ino, path = directory_of(connection, asked.path)
        top, low, high = map(where.bind, (ino, path + "/", path + "0"))
        limits.append(f"(d.ino = {top} OR (d.path > {low} AND d.path < {high}))")
        few = connection.execute(_HOLDS, (ino,)).get <= WALKED
    elif not asked.trash:
        limits.append(_OUTSIDE_TRASH)
    tables, number_of_row = _tables(asked.predicate, where, source, few)
    after, last = map(where.bind, numbers)
    limits.append(f"{number_of_row} > {after} AND {number_of_row} <= {last}")
    sql = (
        f"SELECT {place}, {SELECTED}, {source.number} FROM {tables}"
        f" WHERE {' AND '.join(limits)} ORDER BY {number_of_row} LIMIT {limit}"
    )
    return connection.execute(sql, where.parameters).fetchall()


def _tables(predicate: Predicate, where: Where, source: Source, few: bool) -> tuple[str, str]:
    """Where rows come from, and the number that they come in the order of."""
    if (inode := inode_of(predicate, where)) is not None:
        return f"{source.rows} AND {source.ino} = {where.bind(inode)}", source.number
    if few:
        return source.entries, source.number
    if (words := name_words(predicate)) is not None:
        return source.words.format(where.bind(match_of(words))), "n.rowid"
    if (attribute := attribute_of(predicate)) is not None:
        return f"{source.holders} AND x.name = {where.bind(attribute.name)}", source.number
    return source.rows, source.number


def _after(text: str, build: int) -> int:
    found = re.fullmatch(r"([0-9]{1,20})-(-?[0-9]{1,19})", text or f"{build}-{_FIRST}", re.ASCII)
    if found is None:
        raise InvalidArgument(f"after must be the `next` of an answer, not {text[:40]!r}")
    if int(found[1]) != build:
        raise InvalidArgument("the view was built anew since that page: begin again")
    return int(found[2])
