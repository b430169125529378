"""What strangers may send to the views over HTTP: refused or bounded, and the next is answered.

A real process keeps both views with small limits. Every request must end in time with
an answer, and with one line of a reason if it is no success; after each the views
answer again, with the numbers that they had before.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from bench.events import apply_to_state, staged, wait_at
from tests.unit.projections.test_queries import ENDLESS, HOSTILE_DUCKDB, HOSTILE_SQLITE
from tests.unit.projections.views import history

pytestmark = [pytest.mark.slow, pytest.mark.timeout(60)]

QUERY_S = 0.5
MEMORY_BYTES = 64 << 20
ENDS_S = 10.0  # QUERY_S and what a busy machine takes
FINE = (200, 400, 404, 405, 413, 414, 431, 501, 504)
GROWTH_KIB_MAX = 900 << 10  # of the process, whatever is asked


@dataclass(frozen=True)
class Ask:
    """One request; `query` is sent as it stands."""

    path: str
    query: str = ""
    body: bytes | None = None

    def __str__(self) -> str:
        return f"{self.path}?{self.query} {self.body or b''!r}"[:150]


# Every parameter of every route gets each of these.
PARAMETERS = {
    "/find": ("path", "word", "nul", "wait"),
    "/search": ("q", "regex", "ext", "kind", "perm", "xattr", "target", "uid", "gid", "ino",
                "links", "size_min", "size_max", "mtime_after", "atime_before", "created_after",
                "path", "limit", "after", "glob", "fold", "trash"),
    "/du": ("path", "depth"),
    "/top": ("path", "n"),
    "/owners": ("wait",),
    "/extensions": ("x",),
    "/deletions": ("name", "uid", "since_ns", "limit"),
    "/growth": ("since_ns",),
    "/sql": ("q", "limit"),
    "/analytics/histogram": ("of",),
    "/analytics/growth": ("by", "owner"),
    "/analytics/top": ("by", "n"),
    "/analytics/sums": ("by", "path"),
    "/analytics/report/largest": ("path", "n"),
    "/analytics/report/deleted": ("name", "uid", "since_ns", "n"),
    "/analytics/report/ages": ("of", "path"),
    "/analytics/sql": ("q", "limit"),
}  # fmt: skip
VALUES = (
    quote("x' OR 1=1; DROP TABLE inodes; --"), quote("') UNION SELECT * FROM sqlite_schema --"),
    "%00", "a%00b", "%ff%fe", "%ed%a0%80", "-1", "1e9", "9" * 30, "9" * 20000, quote("é" * 3000),
    quote("*a" * 2000), quote("(" * 2000), quote("[" * 2000), quote("../" * 500 + "etc/passwd"),
)  # fmt: skip
INJECTED = [
    Ask(path, f"{name}={value}" + ("&q=a" if path == "/search" and name != "q" else ""))
    for path, names in PARAMETERS.items()
    for name in names
    for value in VALUES
]


def deep(count: int) -> bytes:
    return (
        b'{"predicate":' + b'{"is":"not","part":' * count + b'{"is":"empty"}' + b"}" * (count + 1)
    )


def find(**fields: Any) -> Ask:
    return Ask("/find", body=json.dumps({"paths": [{"path": "/"}], **fields}).encode())


def words(text: str) -> Ask:
    return Ask("/find", "path=/&" + "&".join(f"word={quote(word)}" for word in text.split(" ")))


def sql(statement: str, view: str = "", **more: Any) -> Ask:
    return Ask(f"{view}/sql", body=json.dumps({"sql": statement, **more}).encode())


BOMB = "a*" * 1500 + "b"
OPEN = "[\\]"  # a set that is never closed
OTHERS = [
    # Patterns that make engines go back and try again.
    *(Ask("/search", f"regex={quote(one)}") for one in (
        "(a+)+$", "(a*)*b", "((a|aa)+)+$", "(.*a){200}", "(x+x+)+y", "(((((.*)*)*)*)*)*z",
        "((a{100}){100}){100}", "a{1001}", "(?P<x>", "[[:bogus:]]", "\\C\\Q", "(" * 500 + ")" * 500,
        "(a?){500}a{500}", ".{1000}.{1000}.{1000}", "[\\x{0}-\\x{10ffff}]{1000}",
    )),
    Ask("/search", f"q={quote(BOMB)}&glob=1"),
    Ask("/search", f"q={quote('[' * 3000)}&glob=1"),
    Ask("/search", f"q={quote('?' * 4000)}&glob=1"),
    Ask("/search", f"target={quote(OPEN * 1300)}"),
    Ask("/search", f"target={quote(BOMB)}&fold=1"),
    Ask("/deletions", f"name={quote(BOMB)}"),
    Ask("/search", f"q=a&{'&'.join(f'x{n}=1' for n in range(5000))}"),
    words(f"-name {BOMB}"), words(f"-path {BOMB}"), words(f"-iname {'[!é]' * 900}"),
    words("-regex " + "\\(.*\\)*" * 300), words("-regex " + "\\(" * 800),
    words("-regextype posix-extended -regex (a{100}){100}"), words("-regextype x"),
    # Expressions beyond all measure, and what a view must not do.
    words("( " * 2000 + "-true" + " )" * 2000), words("! " * 3000 + "-true"),
    words("-name x " + "-o -name x " * 1500), words("-delete"), words("-exec rm {} ;"),
    words("-printf %p"), words("-ls"), words("-quit"), words("-nouser"),
    words("-fprint /tmp/hostile"),
    words("-newer /no/such/file"), words("-samefile relative"),
    words("-maxdepth 99999999999999999"),
    words("-inum 999999999999999999"), words("-size +999999999999999999G"),
    words("-newermt 0000-00-00"), words("-newermt @99999999999999999999"),
    Ask("/find", body=deep(150)), Ask("/find", body=deep(5000)), Ask("/find", body=deep(50000)),
    find(predicate={"is": "or", "parts": [{"is": "name", "pattern": "*"}] * 5000}),
    find(predicate={"is": "and", "parts": []}), find(predicate={"is": "or", "parts": []}),
    find(predicate={"is": "oneof", "attribute": "uid", "values": list(range(50_000))}),
    find(predicate={"is": "oneof", "attribute": "uid; DROP", "values": [1]}),
    find(predicate={"is": "number", "attribute": "1=1 --", "sign": "", "n": 1}),
    find(predicate={"is": "age", "which": "m; --"}), find(predicate={"is": "nothing"}),
    find(predicate={"is": "regex", "pattern": "(", "whole": True}),
    find(predicate={"is": "name", "pattern": "\x00"}), find(order="sideways"),
    find(predicate={"is": "xattr", "name": "x' OR '1'='1", "value": "\x00"}),
    find(tests=[{"is": "empty"}] * 3000), find(mindepth=-1), find(maxdepth=1 << 80),
    find(tests=[{"is": "regex", "pattern": "x"}] * 1900),
    find(tests=[{"is": "regex", "pattern": f"(.*{n}){{90}}"} for n in range(99)]),
    find(prune={"is": "and", "parts": [{"is": "name", "pattern": "*"}] * 1900}),
    find(tests=[{"is": "name", "pattern": "*a[[:alpha:]\\x]", "whole": True}] * 1900),
    find(prune={"is": "or", "parts": [{"is": "name", "pattern": "*a[[:alpha:]\\x]"}] * 800}),
    find(prune={"is": "always", "value": True}), find(unknown=1), find(nul="yes"),
    find(expression=["-name", "\ud800"]), Ask("/find", body=b'{"paths":[{"path":"/\\ud800"}]}'),
    Ask("/find", body=b"\xff\xfe\x00"), Ask("/find", body=b"[" * 100_000), Ask("/find", body=b""),
    Ask("/find", body=b"{}" * 3), Ask("/find", body=b"x" * 2_000_000),
    Ask("/find", body=json.dumps({"paths": [{"path": "/"}] * 800}).encode()),
    Ask("/find", body=json.dumps({"paths": [{"path": "/" + "a/" * 100_000}]}).encode()),
    # SQL: parameters, sizes, and forms that lists of statements do not have.
    *(sql("SELECT ?", view, parameters=values) for view in ("", "/analytics") for values in (
        list(range(40_000)), [1e308], ["\x00"], [None, None], ["x" * 900_000], [1 << 62],
    )),
    *(Ask(f"{view}/sql", body=body) for view in ("", "/analytics") for body in (
        b"", b"[]", b'{"sql":1}', b'{"sql":"SELECT 1","limit":-1}', b'{"sql":"SELECT \\u0000"}',
        b'{"sql":"SELECT \'\\ud800\'"}', b'{"sql":"SELECT 1","parameters":[[1]]}',
        b'{"sql":"SELECT 1","parameters":[99999999999999999999999]}', b'\xff{"sql":"SELECT 1"}',
    )),
    *(sql(statement, view) for view in ("", "/analytics") for statement in (
        f"{ENDLESS} SELECT * FROM c", f"{ENDLESS} SELECT x, x FROM c ORDER BY 1 DESC",
        "SELECT 1" + " UNION ALL SELECT 1" * 5000, "SELECT " + "1+" * 20_000 + "1",
        "SELECT " + ",".join(["1"] * 5000), "SELECT " + "abs(" * 3000 + "1" + ")" * 3000,
        "WITH " + ",".join(f"t{n} AS (SELECT 1)" for n in range(2000)) + " SELECT 1",
        "SELECT * FROM " + ", ".join(f"dirents d{n}" for n in range(60)),
        "SELECT * FROM dirents a, dirents b, dirents c, dirents d ORDER BY a.name || d.name",
        "SELECT a.name FROM dirents a WHERE a.name LIKE '" + "%a" * 4000 + "'",
        "SELECT '" + "x" * 90_000 + "' FROM dirents a, dirents b", "SELECT \x00 1", "/*", "--", ";",
    )),
    sql("SELECT regex('a', 'a', 0, 0)"), sql("SELECT fnmatch('a', 'a', 0)"),
    sql("SELECT * FROM names WHERE names MATCH '" + "a" * 50_000 + "'"),
    sql("SELECT * FROM names WHERE names MATCH '\"'"), sql("SELECT count(*) FROM names_data"),
    sql("SELECT json_extract('" + "[" * 2000 + "', '$')"),
    sql("SELECT * FROM json_each(zeroblob(9))"),
    sql("SELECT group_concat(name, (SELECT group_concat(name) FROM dirents)) FROM dirents"),
    sql("SELECT count(*) FROM dirents WHERE name GLOB '" + "*a" * 2000 + "'"),
    sql("SELECT regexp_matches(repeat('a', 30000), '(a+)+$')", "/analytics"),
    sql("SELECT * FROM sniff_csv('/etc/passwd')", "/analytics"),
    sql("SELECT * FROM duckdb_secrets()", "/analytics"),
    sql("SELECT array_agg(a.name || b.name) FROM dirents a, dirents b, dirents c", "/analytics"),
    sql("FROM range(10) SELECT " + "[" * 3000 + "1" + "]" * 3000, "/analytics"),
    sql("SELECT * FROM dirents a POSITIONAL JOIN range(1000000000)", "/analytics"),
    # Paths and methods that are not there.
    Ask("/../../etc/passwd"), Ask("/search/%2e%2e/sql"), Ask("/nothing"),
    Ask("/analytics/report/x'--"),
    Ask("/analytics/report/" + "x" * 5000), Ask("/sums"), Ask("/du", body=b"{}"),
]  # fmt: skip
STATEMENTS = [
    *(sql(statement) for statement in HOSTILE_SQLITE),
    *(sql(statement, "/analytics") for statement in HOSTILE_DUCKDB),
]
PROBES = (
    ("/sql", "SELECT count(*), sum(uid) FROM inodes"),
    ("/analytics/sql", "SELECT count(*), sum(uid)::BIGINT FROM inodes"),
)


class Views:
    """Both views in one process, and what they answered at first."""

    def __init__(self, client: httpx.Client, pid: int, log: Path) -> None:
        self.client, self.pid, self.log = client, pid, log
        self.before = self.probe()

    def probe(self) -> list[Any]:
        found = []
        for path, statement in PROBES:
            answer = self.client.post(path, json={"sql": statement})
            assert answer.status_code == 200, answer.text
            found.append(answer.json()["rows"])
        return found

    def memory_kib(self) -> int:
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1])
        raise AssertionError("no such process")

    def ask(self, one: Ask) -> None:
        """Send it; what comes must be an answer, in time, with a reason."""
        began = time.monotonic()
        url = httpx.URL(str(self.client.base_url).rstrip("/") + one.path)
        url = url.copy_with(query=one.query.encode()) if one.query else url
        method = "GET" if one.body is None else "POST"
        try:
            answer = self.client.request(method, url, content=one.body)
        except httpx.RemoteProtocolError:
            if one.path != "/find":
                raise
            return  # an answer that had begun, and cannot be taken for a whole one
        assert time.monotonic() - began < ENDS_S, one
        assert answer.status_code in FINE, (one, answer.status_code, answer.text[:300])
        assert len(answer.content) < 100 << 20
        if answer.status_code != 200:
            text = answer.text
            assert "Traceback" not in text
            assert "internal" not in text
            assert "\n" not in text.rstrip("\n")
            if text.startswith("{"):
                assert answer.json()["message"]
        assert "root:" not in answer.text
        assert not list(Path("/tmp").glob("hostile*"))


@pytest.fixture(scope="module")
def views(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Views]:
    model, records = history(7, 400)
    with staged(tmp_path_factory.mktemp("hostile")) as stage:
        stage.append(records)
        apply_to_state(stage.state_path, records)
        stage.start_stream()
        flags = ("--query-s", str(QUERY_S), "--query-rows", "1000", "--wait-s", "0.2",
                 "--query-memory-bytes", str(MEMORY_BYTES))  # fmt: skip
        with stage.start_view("all", *flags) as client:
            for view in ("/search", "/analytics"):
                base = f"{client.base_url}{view}"
                with httpx.Client(
                    base_url=base, headers=client.headers, timeout=60, verify=False
                ) as own:
                    wait_at(own, model.position)
            pid = stage.processes["projections-all"].pid
            yield Views(client, pid, stage.directory / "projections-all.log")


def test_there_are_enough_of_them() -> None:
    assert len({str(one) for one in OTHERS}) >= 100
    assert len(OTHERS) + len(STATEMENTS) >= 200
    assert len(INJECTED) >= 500


@pytest.mark.parametrize("start", range(0, len(OTHERS), 10))
def test_what_is_hostile_is_refused_or_bounded(views: Views, start: int) -> None:
    for one in OTHERS[start : start + 10]:
        views.ask(one)
        assert views.probe() == views.before, one


def test_a_find_that_takes_too_long_is_told_so(views: Views) -> None:
    parts = [{"is": "name", "pattern": f"*q{n}[[:alpha:]\\x]", "whole": True} for n in range(900)]
    asked = {"paths": [{"path": "/"}] * 8, "predicate": {"is": "or", "parts": parts}}
    answer = views.client.post("/find", json=asked)
    assert answer.status_code == 504, answer.text
    assert answer.json()["message"] == f"the query took longer than {QUERY_S:g} s and was ended"
    assert views.probe() == views.before


@pytest.mark.parametrize("start", range(0, len(STATEMENTS), 10))
def test_hostile_statements_are_refused_or_bounded_over_http(views: Views, start: int) -> None:
    for one in STATEMENTS[start : start + 10]:
        views.ask(one)
        assert views.probe() == views.before, one


@pytest.mark.parametrize("path", PARAMETERS)
def test_a_parameter_is_a_value_and_never_a_part_of_the_question(views: Views, path: str) -> None:
    for one in INJECTED:
        if one.path == path:
            views.ask(one)
    assert views.probe() == views.before


def test_after_all_that_the_process_is_the_same_and_no_larger(views: Views) -> None:
    assert views.memory_kib() < GROWTH_KIB_MAX
    assert "Traceback" not in views.log.read_text(errors="replace")
