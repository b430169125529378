"""Views that are paused, built anew while they follow, and compared with the master.

Real processes: the stream of a model's log and state, and projections that follow it.
"""

from __future__ import annotations

import json
import random
import signal
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import apsw
import duckdb
import httpx
import pytest

from bench.events import Stage, apply_to_state, staged, wait_at
from bench.namespace_model import EPOCH, NamespaceModel, random_step
from gfs.records import Record
from projections.search_schema import STORED
from projections.storage import DuckStore
from tests.unit.projections.analytics import analytics_view, asking

pytestmark = [pytest.mark.slow, pytest.mark.kill, pytest.mark.timeout(90)]
VIEWS = ("search", "analytics")
QUICK = ("--verify-inodes-per-s", "100000", "--verify-period-s", "0.2")


class Cluster:
    """A stage whose state goes along with its log."""

    def __init__(self, stage: Stage, seed: int = 5) -> None:
        self.stage = stage
        self.model = NamespaceModel(start_ns=time.time_ns())
        self._rng = random.Random(seed)
        self.log([self.model.format()])
        stage.start_stream()

    def log(self, records: list[Record]) -> None:
        apply_to_state(self.stage.state_path, records)
        self.stage.append(records)

    def grow(self, count: int) -> None:
        self.log([random_step(self.model, self._rng) for _ in range(count)])

    @property
    def cursor(self) -> str:
        return f"{EPOCH}-{self.model.position}"

    def path(self, view: str) -> Path:
        return self.stage.directory / "views" / f"{view}.{'db' if view == 'search' else 'duckdb'}"


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with staged(tmp_path) as stage:
        yield Cluster(stage)


def status(client: httpx.Client) -> dict[str, Any]:
    answer = client.get("/status", params={"rows": 1})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def wait_until(client: httpx.Client, what: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    deadline = time.monotonic() + 30
    while not what(found := status(client)):
        assert time.monotonic() < deadline, found
        time.sleep(0.02)
    return found


def verified(client: httpx.Client) -> dict[str, Any]:
    answer = client.post("/verify")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = json.loads(answer.text.splitlines()[-1])
    return found


@pytest.mark.parametrize("view", VIEWS)
def test_a_paused_view_answers_says_so_and_applies_nothing(cluster: Cluster, view: str) -> None:
    """Also when it was killed meanwhile."""
    cluster.grow(50)
    with cluster.stage.start_view(view) as client:
        wait_at(client, cluster.model.position)
        paused_at = client.post("/pause").json()["position"]
        assert client.post("/pause").status_code == 200
        cluster.grow(30)
    cluster.stage.stop(f"projections-{view}", signal.SIGKILL)
    with cluster.stage.start_view(view) as client:
        found = wait_until(client, lambda one: one["position"] > 0)
        assert (found["state"], found["position"]) == ("paused", paused_at)
        answer = client.get("/sql", params={"q": "SELECT count(*) FROM inodes"})
        assert answer.json()["paused"] is True
        assert answer.headers["x-gfs-paused"] == "1"
        assert answer.json()["lag_ms"] > 0
        waited = client.get("/status", params={"rows": 0})
        assert waited.status_code == 200
        late = client.get("/sql", params={"q": "SELECT 1", "wait": cluster.cursor})
        assert late.status_code == 503
        assert "is paused at" in late.json()["message"]
        assert client.post("/rebuild").status_code == 409
        assert client.post("/verify").status_code == 503
        assert client.post("/resume").json()["paused"] is False
        wait_at(client, cluster.model.position, 20)
        assert verified(client)["differences"] == 0
    cluster.stage.stop(f"projections-{view}")
    with cluster.stage.start_view(view) as client:
        wait_at(client, cluster.model.position, 20)
        assert status(client)["state"] == "following"


@pytest.mark.parametrize("view", VIEWS)
def test_a_view_follows_while_it_is_built_anew_beside_itself(cluster: Cluster, view: str) -> None:
    cluster.grow(300)
    with cluster.stage.start_view(view) as client:
        wait_at(client, cluster.model.position)
        before = status(client)
        assert before["last_rebuild_s"] > 0  # its first
        stop = threading.Event()
        gaps: list[str] = []

        def ask() -> None:
            base, headers = client.base_url, client.headers
            with httpx.Client(base_url=base, headers=headers, timeout=60, verify=False) as other:
                while not stop.wait(0.01):  # else the view has little time to follow
                    answer = other.get("/sql", params={"q": "SELECT count(*) FROM inodes"})
                    if answer.status_code != 200:
                        gaps.append(answer.text)

        asking = threading.Thread(target=ask)
        asking.start()
        answer = client.post("/rebuild")
        assert answer.json()["rebuilding"] is True
        while status(client)["last_rebuild_ns"] == before["last_rebuild_ns"]:
            cluster.grow(5)
            time.sleep(0.02)
        stop.set()
        asking.join()
        wait_at(client, cluster.model.position, 20)
        after = status(client)
        assert after["rebuilds_total"] == before["rebuilds_total"] + 1
        assert after["state"] == "following"
        assert not after["problem"]
        assert not gaps
        assert verified(client)["differences"] == 0
        assert not list(cluster.path(view).parent.glob("*.new"))


def test_a_rebuild_that_fails_says_why_and_harms_nothing(cluster: Cluster) -> None:
    cluster.grow(100)
    with cluster.stage.start_view("search") as client:
        wait_at(client, cluster.model.position)
        fresh = cluster.path("search").with_name("search.db.new")
        fresh.mkdir()  # where the new one would lie
        assert client.post("/rebuild").status_code == 200
        found = wait_until(client, lambda one: not one["rebuilding"])
        assert "the rebuild failed" in found["problem"]
        fresh.rmdir()
        assert client.post("/rebuild").status_code == 200
        found = wait_until(client, lambda one: not one["rebuilding"])
        assert found["problem"] == ""
        assert verified(client)["differences"] == 0


def nth(number: int, table: str = "inodes") -> str:
    """The number'th greatest inode."""
    return f"WHERE ino = (SELECT ino FROM {table} ORDER BY ino DESC LIMIT 1 OFFSET {number})"


CORRUPTIONS = {
    "search": {
        "attributes": f"UPDATE inodes SET size = size + 1 {nth(0)}",
        "missing": f"DELETE FROM inodes {nth(1)}",
        "surplus": f"""
            INSERT INTO inodes (ino, {STORED}) SELECT ino + 100000, {STORED}
            FROM inodes {nth(2)}""",
        "links": f"UPDATE inodes SET name = name || 'x' {nth(5)}",
        "xattrs": f"INSERT INTO xattrs SELECT ino, 'user.x', 'y' FROM inodes {nth(3)}",
        "sums": "UPDATE directories SET bytes = bytes + 1 WHERE ino = 1",
        "path": f"UPDATE directories SET path = path || 'x' {nth(0, 'directories')}",
        "home": f"INSERT INTO links SELECT -1000, 1, '!', ino FROM inodes {nth(4)}",
        "owners": "UPDATE owners SET files = files + 1",
        "names": """
            INSERT INTO names (names, rowid, name) SELECT 'delete', id, name FROM dirents
            WHERE length(name) > 3 ORDER BY id DESC LIMIT 1 OFFSET 6""",
    },
    "analytics": {
        "attributes": f"UPDATE main_inodes SET uid = uid + 1 {nth(0)}",
        "missing": f"DELETE FROM main_inodes {nth(1)}",
        "links": f"DELETE FROM main_dirents {nth(0, 'dirents')}",
        "xattrs": f"INSERT INTO main_xattrs SELECT ino, 'user.x', 'y' FROM inodes {nth(3)}",
        "kind": f"UPDATE main_dirents SET kind = 49152 {nth(2, 'dirents')}",
        "extension": f"UPDATE main_dirents SET extension = 'none' {nth(4, 'dirents')}",
        "counts": "INSERT INTO main_counts VALUES ('extension', 0, 'none', 0, 1, 0)",
        "large": "DELETE FROM main_large WHERE size = (SELECT max(size) FROM large)",
        "directory_names": "UPDATE main_directory_names SET name = name || '?'",
    },
}


def corrupt(path: Path, *statements: str) -> None:
    """Change a view's file behind its back; its process is not running."""
    if path.suffix == ".db":
        connection = apsw.Connection(str(path))
        for sql in statements:
            connection.execute(sql)
        connection.close()
    else:
        with duckdb.connect(str(path)) as duck:
            for sql in statements:
                duck.execute(sql)


@pytest.mark.parametrize("view", VIEWS)
def test_every_kind_of_corruption_is_found_and_a_rebuild_mends_it(
    cluster: Cluster, view: str
) -> None:
    cluster.grow(200)
    with cluster.stage.start_view(view) as client:
        wait_at(client, cluster.model.position)
    cluster.stage.stop(f"projections-{view}")
    corrupt(cluster.path(view), *CORRUPTIONS[view].values())
    with cluster.stage.start_view(view, "--verify-inodes-per-s", "0") as client:
        wait_at(client, cluster.model.position)
        found = verified(client)
        assert CORRUPTIONS[view].keys() <= found["kinds"].keys()
        assert all(one["text"] for one in found["examples"])
        assert status(client)["verify"]["differences"] == found["differences"]
        client.post("/rebuild")
        wait_until(client, lambda one: not one["rebuilding"])
        assert verified(client)["differences"] == 0


@pytest.mark.parametrize("view", VIEWS)
def test_a_corrupt_row_is_found_in_the_background_and_metrics_tell(
    cluster: Cluster, view: str
) -> None:
    cluster.grow(200)
    with cluster.stage.start_view(view, *QUICK) as client:
        wait_until(client, lambda one: one["verify"]["passes_total"] >= 2)
        assert status(client)["verify"]["differences"] == 0
    cluster.stage.stop(f"projections-{view}")
    table = "inodes" if view == "search" else "main_inodes"
    corrupt(cluster.path(view), f"UPDATE {table} SET nlink = 77 WHERE ino = 1")
    with cluster.stage.start_view(view, *QUICK) as client:
        wait_until(client, lambda one: one["verify"]["differences"] == 1)
        assert f"gfs_projections_{view}_verify_differences 1.0" in client.get("/metrics").text
        client.post("/rebuild")
        found = wait_until(
            client, lambda one: not one["rebuilding"] and one["verify"]["differences"] == 0
        )
        assert found["verify"]["last_pass_inodes"] == len(cluster.model.inodes)


@pytest.mark.parametrize("view", VIEWS)
def test_changes_under_way_are_no_differences(cluster: Cluster, view: str) -> None:
    """The whole is compared again and again while every part of it changes."""
    cluster.grow(100)
    with cluster.stage.start_view(view, *QUICK) as client:
        wait_at(client, cluster.model.position)
        stop = threading.Event()

        def change() -> None:
            while not stop.is_set():
                cluster.grow(7)

        changing = threading.Thread(target=change)
        changing.start()
        try:
            found = [verified(client) for _ in range(6)]
        finally:
            stop.set()
            changing.join()
        assert [one["differences"] for one in found] == [0] * 6, found
        assert sum(one["skipped"] for one in found) < sum(one["inodes"] for one in found)
        wait_at(client, cluster.model.position, 20)
        last = verified(client)
        assert (last["differences"], last["skipped"]) == (0, 0)
        assert last["inodes"] == len(cluster.model.inodes)


def test_the_live_file_is_read_with_plain_sqlite(cluster: Cluster) -> None:
    """By another program, read-only, every table and the full-text one, while it is written."""
    cluster.grow(100)
    with cluster.stage.start_view("search") as client:
        wait_at(client, cluster.model.position)
        stop = threading.Event()

        def change() -> None:
            while not stop.is_set():
                cluster.grow(20)

        changing = threading.Thread(target=change)
        changing.start()
        try:
            for name in ("search", "search-history"):
                path = cluster.path("search").with_name(f"{name}.db")
                for _ in range(10):
                    assert read_all(path)
        finally:
            stop.set()
            changing.join()
        wait_at(client, cluster.model.position, 20)
        counts = read_all(cluster.path("search"))
    assert counts["inodes"] == len(cluster.model.inodes)
    assert counts["dirents"] == counts["names"] == len(cluster.model.dirents)


def read_all(path: Path) -> dict[str, int]:
    """Rows of each table that the file declares, all of them read."""
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        tables = connection.execute(
            "SELECT name FROM sqlite_schema WHERE type <> 'index' AND name NOT LIKE 'names_%'"
            " AND name NOT LIKE 'sqlite_%'"
        ).fetchall()
        found = {
            name: len(connection.execute(f'SELECT * FROM "{name}"').fetchall())
            for (name,) in tables
        }
        if "names" in found:
            name = connection.execute(
                "SELECT name FROM dirents WHERE length(name) >= 3 LIMIT 1"
            ).fetchone()[0]
            match = '"' + name[:3].replace('"', '""') + '"'
            hits = connection.execute("SELECT rowid FROM names WHERE names MATCH ?", (match,))
            assert hits.fetchall()
        return found
    finally:
        connection.close()


async def test_rows_of_a_view_that_is_replaced_meanwhile_are_left_out(tmp_path: Path) -> None:
    """The store that is counted is closed under it: no second try can help."""
    view = analytics_view(tmp_path, [NamespaceModel().format()])
    old = view.store
    assert old is not None
    view.projection.settle(old)

    def closed_under_it() -> dict[str, int]:
        old.close()
        view.store = view.projection.open_store(view.path, view.history_path)
        view.generation += 1
        return DuckStore.rows(cast(DuckStore, old))

    old.rows = closed_under_it  # type: ignore[method-assign]
    async with asking(view) as ask:
        assert "rows" not in await ask.answer("/status", rows=1)
        assert (await ask.answer("/status", rows=1))["rows"]["inodes"] == 2
    assert view.store is not None
    view.store.close()
