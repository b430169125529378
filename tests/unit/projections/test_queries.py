"""What a view answers over HTTP, and what it refuses: bounded, injection-proof, dated."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apsw
import httpx
import pytest
import trio

from bench.namespace_model import EPOCH, NamespaceModel
from gfs.changes import Cursor, bytes_of
from projections.__main__ import app
from projections.analytics_view import AnalyticsView
from projections.projection import Projection
from projections.queries import Deadline
from projections.search_view import SearchView
from projections.stream_source import StreamSource
from projections.worker import View
from projections.writer import Writer
from tests.logcheck import ExpectLog
from tests.unit.projections.views import apply_split, config, history

KEY = b"k" * 32


@dataclass
class Served:
    """Both views over one model, without a stream, asked through their ASGI app."""

    model: NamespaceModel
    client: httpx.AsyncClient
    views: list[View]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[NamespaceModel, list[View]]]:
    directory = tmp_path_factory.mktemp("views")
    model, records = history(7, 500)
    settings = config(directory, query_s=1.0, query_rows=1000, wait_s=0.2)
    views = []
    kinds: list[type[Projection]] = [SearchView, AnalyticsView]
    for kind in kinds:
        view = View(kind(settings), settings, StreamSource("http://x", "", None))
        view.store = view.projection.open_store(view.path, view.history_path)
        apply_split(view.projection, view.store, records, random.Random(1))
        view._writer = Writer(view.projection, settings, view.store)
        view.cursor = view.store.cursor
        view.rebuilding = False
        views.append(view)
    yield model, views
    for view in views:
        assert view.store is not None
        view.store.close()


@pytest.fixture
async def served(built: tuple[NamespaceModel, list[View]]) -> Any:
    model, views = built
    for view in views:
        view._moved = trio.Event()
    settings = config(Path("/nowhere"), query_s=1.0, query_rows=1000, wait_s=0.2)
    transport = httpx.ASGITransport(app(views, settings, KEY))
    from gfs.bearer import authorization

    async with httpx.AsyncClient(
        transport=transport, base_url="http://views", headers=authorization(KEY), timeout=30
    ) as client:
        yield Served(model, client, views)


async def get(served: Served, url: str, /, **query: Any) -> Any:
    answer = await served.client.get(url, params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()


def files_below(model: NamespaceModel, path: bytes) -> list[int]:
    return [
        ino
        for ino, inode in model.inodes.items()
        if ino > 2
        and model.links.get(ino)
        and visible(model, ino).startswith(path.rstrip(b"/") + b"/")
    ]


def visible(model: NamespaceModel, ino: int) -> bytes:
    """Path by the least link; b"" for what is in the trash."""
    parts: list[bytes] = []
    while ino != 1:
        if ino == 2:
            return b""
        parent, name = min(model.links[ino])
        parts.append(name)
        ino = parent
    return b"/" + b"/".join(reversed(parts))


async def test_every_answer_says_what_it_is_true_for(served: Served) -> None:
    asked = ["/status", "/du", "/top", "/owners", "/extensions", "/search?q=a", "/deletions",
             "/growth", "/sql?q=SELECT 1", "/analytics/status", "/analytics/histogram",
             "/analytics/histogram?of=mtime", "/analytics/growth", "/analytics/top",
             "/analytics/sums?by=extension", "/analytics/sql?q=SELECT 1", "/search/du"]  # fmt: skip
    for path in asked:
        answer = await served.client.get(path)
        assert answer.status_code == 200, (path, answer.text)
        body = answer.json()
        assert body["position"] == served.model.position
        assert body["epoch"] == EPOCH
        assert {"lag_ms", "rebuilding", "cursor"} <= body.keys()
        assert answer.headers["x-gfs-cursor"] == f"{EPOCH}-{served.model.position}"
        assert answer.headers["x-gfs-rebuilding"] == "0"
        assert body["suspect"] == []
        assert answer.headers["x-gfs-suspect"] == ""


async def test_du_of_every_directory_is_the_sum_below_it(served: Served) -> None:
    model = served.model
    for ino in model.children:
        path = visible(model, ino) if ino != 1 else b"/"
        if not path or b"\xff" in path:
            continue
        inside = files_below(model, path)
        answer = await get(served, "/du", path=path.decode())
        assert answer["files"] == sum(not model.inodes[one].is_directory for one in inside)
        assert answer["directories"] == sum(model.inodes[one].is_directory for one in inside)
        own = model.inodes[ino].size
        assert answer["bytes"] == own + sum(model.inodes[one].size for one in inside)
    below = await get(served, "/du", path="/", depth=1)
    names = {bytes_of(row["path"])[1:] for row in below["below"]}
    assert names == {
        name for name, ino in model.children[1].items() if model.inodes[ino].is_directory
    }
    deeper = await get(served, "/du", path="/", depth=3)
    paths = {path for ino in model.children if (path := visible(model, ino)) and ino != 1}
    assert {bytes_of(row["path"]) for row in deeper["below"]} == {
        path for path in paths if path.count(b"/") <= 3
    }


async def test_search_finds_parts_of_names_in_any_case(served: Served) -> None:
    for part in ("ALPHA", "port", "7.", "ï", "a", "Σίσ", ".tar.gz"):
        answer = await get(served, "/search", q=part, limit=100_000)
        folded = part.encode().lower()
        wanted = {
            key
            for key in served.model.dirents
            if folded in key[1].lower() and outside_trash(served.model, key[0])
        }
        assert len(answer["rows"]) == len(wanted), part
    globbed = await get(served, "/search", q="*[12].log", glob=1, limit=1000, trash=1)
    names = [bytes_of(row["path"]).rpartition(b"/")[2] for row in globbed["rows"]]
    assert sorted(names) == sorted(
        name for _, name in served.model.dirents if name[-5:] in (b"1.log", b"2.log")
    )
    assert names


def outside_trash(model: NamespaceModel, directory: int) -> bool:
    while directory not in (1, 2):
        directory = min(model.links[directory])[0]
    return directory == 1


async def test_top_is_the_largest_files(served: Served) -> None:
    model = served.model
    sizes = sorted((model.inodes[one].size for one in files_below(model, b"/")
                    if not model.inodes[one].is_directory), reverse=True)  # fmt: skip
    for path in ("/top", "/search/top"):
        answer = await get(served, path, n=10)
        assert [row["size"] for row in answer["rows"]] == sizes[:10]
    answer = await get(served, "/analytics/top", n=5)
    at = answer["columns"].index("size")
    assert [row[at] for row in answer["rows"]] == sorted(
        (one.size for one in model.inodes.values() if not one.is_directory), reverse=True
    )[:5]


async def test_both_views_agree_on_owners_and_extensions(served: Served) -> None:
    owners = {row["uid"]: row["bytes"] for row in (await get(served, "/owners"))["rows"]}
    sums = await get(served, "/analytics/sums", by="owner")
    assert {row[0]: row[2] for row in sums["rows"]} == owners
    extensions = {
        row["extension"]: row["files"] for row in (await get(served, "/extensions"))["rows"]
    }
    sql = "SELECT extension, count(*) FROM files WHERE kind = 'f' GROUP BY 1"
    found = await get(served, "/analytics/sql", q=sql)
    assert dict(found["rows"]) == extensions


async def test_sums_of_a_tree_count_each_inode_of_it_once(served: Served) -> None:
    model = served.model
    for ino in list(model.children)[:12]:
        path = visible(model, ino) if ino != 1 else b"/"
        if not path or b"\xff" in path:
            continue
        tree, todo = {ino}, [ino]
        while todo:
            for inside in model.children.get(todo.pop(), {}).values():
                todo += [inside] if inside not in tree else []
                tree.add(inside)
        for by, name in (("owner", "uid"), ("group", "gid")):
            wanted: dict[int, int] = {}
            for one in tree:
                key = getattr(model.inodes[one], name)
                wanted[key] = wanted.get(key, 0) + model.inodes[one].size
            answer = await get(served, "/analytics/sums", by=by, path=path.decode())
            assert {row[0]: row[2] for row in answer["rows"]} == wanted


async def test_histogram_counts_every_file_once(served: Served) -> None:
    files = sum(inode.is_file for inode in served.model.inodes.values())
    for of in ("size", "mtime", "atime", "created"):
        answer = await get(served, "/analytics/histogram", of=of)
        assert sum(row[1] for row in answer["rows"]) == files


async def test_find_streams_names_with_nul_byte_for_byte(served: Served) -> None:
    answer = await served.client.post("/find", json={"paths": [{"path": "/"}], "nul": True})
    assert answer.status_code == 200
    found = answer.content.split(b"\0")[:-1]
    expected = [b"/"]
    for parent, name in served.model.dirents:
        if outside_trash(served.model, parent):
            above = b"" if parent == 1 else visible(served.model, parent)
            expected.append(above + b"/" + name)
    assert sorted(found) == sorted(expected)


async def test_wait_for_what_never_comes_ends_with_504(served: Served) -> None:
    answer = await served.client.get("/du", params={"wait": "3-999999999"})
    assert answer.status_code == 504
    assert "waited" in answer.json()["message"]


@pytest.mark.parametrize(
    "path",
    ["/du?path=nope", "/du?path=/no/such", "/du?depth=x", "/du?depth=-1", "/du?patth=/", "/search",
     "/search?q=a&limit=x", "/top?n=99999999", "/find?path=relative", "/find?path=/&word=-nosuch",
     "/find?word=-name", "/deletions?uid=x", "/du?wait=never", "/analytics/histogram?of=x;--",
     "/analytics/growth?by=year", "/analytics/top?by=1;DROP", "/analytics/sums?by=name",
     "/sql?q=", "/sql?q=SELEC 1", "/analytics/sql?q=", "/analytics/sql?q=SELEC 1",
     "/find?path=/&word=-newer&word=/gone", "/du?path=/\x00", "/search?q=%00&limit=1&x=1"],
)  # fmt: skip
async def test_bad_question_is_a_clear_refusal(served: Served, path: str) -> None:
    answer = await served.client.get(httpx.URL("http://views" + path.replace("\x00", "%00")))
    assert answer.status_code in (400, 404), (answer.status_code, answer.text)
    assert answer.json()["message"]


async def test_nobody_without_the_key_is_answered(served: Served) -> None:
    for path in ("/status", "/find", "/sql?q=SELECT 1", "/analytics/sql?q=SELECT 1", "/metrics"):
        answer = await served.client.get(path, headers={"Authorization": "Bearer x"})
        assert answer.status_code == 401


ENDLESS = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c)"
HOSTILE_SQLITE = [
    "DELETE FROM inodes", "UPDATE inodes SET uid = 0", "INSERT INTO owners VALUES (9, 9, 9, 9, 9)",
    "DROP TABLE inodes", "CREATE TABLE x (y)", "CREATE TEMP TABLE x (y)",
    "ALTER TABLE inodes ADD z",
    "ATTACH '/tmp/hostile.db' AS h", "ATTACH ':memory:' AS h", "DETACH main", "VACUUM",
    "VACUUM INTO '/tmp/hostile.db'", "PRAGMA query_only = 0", "PRAGMA writable_schema = 1",
    "PRAGMA journal_mode = DELETE", "PRAGMA user_version", "BEGIN", "COMMIT", "ROLLBACK", "END",
    "SAVEPOINT s", "SELECT load_extension('/tmp/x.so')", "SELECT readfile('/etc/passwd')",
    "SELECT writefile('/tmp/hostile', 'x')", "SELECT edit('x')", "SELECT fts3_tokenizer('simple')",
    "SELECT * FROM pragma_database_list", "SELECT zeroblob(1000000000)", "REINDEX", "ANALYZE",
    "SELECT randomblob(1000000000)", "SELECT 1; SELECT 2", "SELECT 1; DROP TABLE inodes",
    "INSERT INTO names (names) VALUES ('delete-all')",
    "INSERT INTO names (names) VALUES ('rebuild')",
    "EXPLAIN DELETE FROM inodes; DELETE FROM inodes", "REPLACE INTO owners VALUES (1, 1, 1, 1, 1)",
    "CREATE TRIGGER t AFTER UPDATE ON inodes BEGIN SELECT 1; END",
    "CREATE VIRTUAL TABLE v USING fts5(x)",
    f"{ENDLESS} SELECT count(*) FROM c", f"{ENDLESS} SELECT max(x) FROM c",
    f"{ENDLESS} SELECT group_concat(x) FROM c",
    "SELECT count(*) FROM inodes a, inodes b, inodes c, inodes d, dirents e",
    f"{ENDLESS} SELECT hex(zeroblob(9999999)) FROM c", "SELECT " + "(" * 1000 + "1" + ")" * 1000,
    "SELECT '" + "x" * 200_000 + "'", "SELECT printf('%.*c', 1000000000, 'x')",
    "SELECT replace(hex(zeroblob(1000000)), '0', hex(zeroblob(1000000)))",
    "\ud800".encode("utf-8", "replace").decode(),
    "SELECT fnmatch('*a*a*a*a*a*a*a*a*a*b', replace(hex(zeroblob(500)), '0', 'a'), 0)",
]  # fmt: skip
HOSTILE_DUCKDB = [
    "DELETE FROM inodes", "UPDATE inodes SET uid = 0", "INSERT INTO inodes SELECT * FROM inodes",
    "DROP TABLE inodes", "CREATE TABLE x (y INTEGER)", "CREATE TEMP TABLE x (y INTEGER)",
    "CREATE OR REPLACE VIEW files AS SELECT 1", "ALTER TABLE inodes ADD COLUMN z INTEGER",
    "ATTACH '/tmp/hostile.db' AS h", "DETACH history", "USE history", "CHECKPOINT",
    "COPY inodes TO '/tmp/hostile.csv'", "COPY (SELECT 1) TO '/tmp/hostile.parquet'",
    "EXPORT DATABASE '/tmp/hostile'", "IMPORT DATABASE '/tmp/hostile'", "INSTALL httpfs",
    "LOAD httpfs",
    "SET enable_external_access = true", "SET memory_limit = '100GB'", "RESET ALL",
    "SET threads = 64",
    "PRAGMA database_list", "PRAGMA enable_profiling", "BEGIN", "COMMIT", "ROLLBACK", "VACUUM",
    "SELECT * FROM read_text('/etc/passwd')", "SELECT * FROM read_csv('/etc/passwd')",
    "SELECT * FROM '/etc/passwd'", "SELECT * FROM glob('/etc/*')",
    "SELECT * FROM read_blob('/etc/*')",
    "SELECT * FROM read_parquet('http://127.0.0.1:1/x')", "SELECT * FROM 'https://127.0.0.1/x.csv'",
    "SELECT getenv('HOME')", "SELECT 1; SELECT 2", "SELECT 1; DROP TABLE inodes",
    "CALL pragma_version()",
    "CREATE SECRET s (TYPE s3, KEY_ID 'a', SECRET 'b')", "PREPARE p AS DELETE FROM inodes",
    "EXECUTE p",
    "CREATE MACRO kind_of(x) AS 1", "CREATE SEQUENCE s", "TRUNCATE inodes",
    "INSERT INTO history.growth VALUES (now()::TIMESTAMP, 1, 1, 1, 1, 1)",
    f"{ENDLESS} SELECT count(*) FROM c",
    "SELECT count(*) FROM range(1000000000000) a, range(1000000000000) b",
    "SELECT sum(hash(a.range, b.range)) FROM range(100000000) a, range(100000000) b",
    "SELECT list(range) FROM range(10000000000)", "SELECT repeat('x', 1000000000000)",
    "SELECT * FROM inodes, inodes, inodes, inodes ORDER BY random()",
    "SELECT " + "(" * 5000 + "1" + ")" * 5000,
    "SELECT '" + "x" * 200_000 + "'", "EXPLAIN ANALYZE DELETE FROM inodes",
    "WITH x AS (DELETE FROM inodes RETURNING *) SELECT * FROM x",
    "SELECT query('DELETE FROM inodes')", "SELECT * FROM query('DROP TABLE inodes')",
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(30)
@pytest.mark.parametrize("statement", HOSTILE_SQLITE, ids=range(len(HOSTILE_SQLITE)))
async def test_hostile_sql_on_the_search_view_is_refused_or_bounded(
    served: Served, statement: str
) -> None:
    await assert_harmless(served, "/sql", statement, "SELECT count(*), sum(uid) FROM inodes")


@pytest.mark.slow
@pytest.mark.timeout(30)
@pytest.mark.parametrize("statement", HOSTILE_DUCKDB, ids=range(len(HOSTILE_DUCKDB)))
async def test_hostile_sql_on_the_analytics_view_is_refused_or_bounded(
    served: Served, statement: str
) -> None:
    sql = "SELECT count(*), sum(uid)::BIGINT FROM inodes"
    await assert_harmless(served, "/analytics/sql", statement, sql)


async def assert_harmless(served: Served, path: str, statement: str, probe: str) -> None:
    began = time.monotonic()
    answer = await served.client.post(path, json={"sql": statement})
    took = time.monotonic() - began
    assert answer.status_code in (200, 400, 413, 504), answer.text
    assert took < 8
    if answer.status_code == 200:
        body = answer.json()
        assert len(body["rows"]) <= 1000
        assert "root:" not in answer.text
        assert len(answer.content) < 20_000_000
    assert not list(Path("/tmp").glob("hostile*"))
    after = await served.client.post(path, json={"sql": probe})
    assert after.status_code == 200, after.text
    inodes = served.model.inodes.values()
    assert after.json()["rows"] == [[len(inodes), sum(one.uid for one in inodes)]]


async def test_parameters_are_values_never_sql(served: Served) -> None:
    evil = "x' OR 1=1; DROP TABLE inodes; --"
    for path in ("/sql", "/analytics/sql"):
        body = {"sql": "SELECT count(*) FROM dirents WHERE name = ?", "parameters": [evil]}
        answer = await served.client.post(path, json=body)
        assert answer.json()["rows"] == [[0]]
    for path, name in (("/search", "q"), ("/deletions", "name"), ("/du", "path")):
        answer = await served.client.get(path, params={name: evil})
        assert answer.status_code in (200, 400, 404)
    answer = await served.client.get("/find", params={"path": "/", "word": ["-name", evil]})
    assert answer.content == b""


def test_cursor_orders_by_position() -> None:
    assert Cursor(1, 2).place < Cursor(1, 3, 0).place


def test_a_deadline_that_passes_between_two_statements_still_ends_the_query() -> None:
    connection = apsw.Connection(":memory:")
    with Deadline(0.01, connection.interrupt) as deadline:
        while not deadline.passed:
            time.sleep(0.001)  # no statement runs now
        with pytest.raises(apsw.InterruptError):
            connection.execute(f"{ENDLESS} SELECT count(*) FROM c").fetchall()
    assert connection.execute("SELECT 1").get == 1
    connection.close()


def test_one_thread_looks_at_all_deadlines_and_one_that_fails_spoils_no_other(
    expect_log: ExpectLog,
) -> None:
    expect_log(r"query.interrupt failed")
    interrupted: list[str] = []

    def fail() -> None:
        interrupted.append("bad")
        raise RuntimeError

    with Deadline(0.0, fail), Deadline(60.0, lambda: interrupted.append("early")):
        threads = threading.active_count()
        with Deadline(0.0, lambda: interrupted.append("late")) as late:
            assert threading.active_count() == threads
            while interrupted.count("late") < 3 or interrupted.count("bad") < 2:
                time.sleep(0.001)
        assert late.passed
        count = interrupted.count("late")
        bad = interrupted.count("bad")
        while interrupted.count("bad") < bad + 2:
            time.sleep(0.001)
    assert interrupted.count("late") == count
    assert "early" not in interrupted
