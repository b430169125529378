"""Views as real processes: killed, damaged, deleted, cut off, and still exactly right.

The stream's process serves a log of the namespace model; what a view holds at the end
is compared, row for row, with what the model says.
"""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import apsw
import httpx
import pytest

from bench.events import Stage, apply_to_state, staged, wait_at
from bench.namespace_model import EPOCH, NamespaceModel, random_step
from gfs.disk import PosixDisk
from gfs.records import Record
from master.checkpoint import make_checkpoint
from tests.unit.projections.views import SEARCH_DUMPS, Tables, expected_search

pytestmark = [pytest.mark.slow, pytest.mark.kill, pytest.mark.timeout(90)]


class Cluster:
    """A stage, the model its log comes from, and all records so far."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.model = NamespaceModel(start_ns=time.time_ns())
        self.rng = random.Random(5)
        self.records: list[Record] = []
        self.log([self.model.format()])
        stage.start_stream()

    def log(self, records: list[Record]) -> None:
        self.stage.append(records)
        self.records += records

    def grow(self, count: int) -> None:
        self.log([random_step(self.model, self.rng) for _ in range(count)])

    def search_tables(self) -> Tables:
        connection = apsw.Connection(
            str(self.stage.directory / "views" / "search.db"), flags=apsw.SQLITE_OPEN_READONLY
        )
        try:
            return {
                name: sorted(connection.execute(sql).fetchall())
                for name, sql in SEARCH_DUMPS.items()
            }
        finally:
            connection.close()

    def assert_search_is_right(self) -> None:
        found = self.search_tables()
        for table, rows in expected_search(self.model).items():
            assert found[table] == sorted(rows), table

    def assert_analytics_is_right(self, client: httpx.Client) -> None:
        inodes = sql(client, "SELECT ino, mode, uid, size, stored, nlink FROM inodes ORDER BY ino")
        assert inodes == [
            [ino, one.mode, one.uid, one.size, one.stored, one.nlink]
            for ino, one in sorted(self.model.inodes.items())
        ]
        count = sql(client, "SELECT count(*), count(DISTINCT (parent, name)) FROM dirents")
        assert count == [[len(self.model.dirents)] * 2]
        created = sum(
            change.old is None
            for record in self.records
            for change in record.changes
            if type(change).__name__ == "InodeChange"
        )
        statement = "SELECT sum(created)::BIGINT FROM history.growth"
        assert sql(client, statement, wait=f"{EPOCH}-{self.model.position}") == [[created]]


def sql(client: httpx.Client, statement: str, **query: str) -> list[list[object]]:
    answer = client.post("/sql", json={"sql": statement}, params=query)
    assert answer.status_code == 200, answer.text
    rows: list[list[object]] = answer.json()["rows"]
    return rows


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with staged(tmp_path) as stage:
        yield Cluster(stage)


def test_kill_9_at_any_time_neither_loses_nor_doubles(cluster: Cluster) -> None:
    """Both views are killed twelve times at random moments while the log grows."""
    rng = random.Random(9)
    for _ in range(6):
        for view in ("search", "analytics"):
            client = cluster.stage.start_view(view)
            cluster.grow(150)
            time.sleep(rng.random() * 0.3)
            client.close()
            cluster.stage.stop(f"projections-{view}", signal.SIGKILL)
    for view in ("search", "analytics"):
        with cluster.stage.start_view(view) as client:
            wait_at(client, cluster.model.position, 30)
            if view == "search":
                cluster.assert_search_is_right()
                wanted = {"wait": f"{EPOCH}-{cluster.model.position}"}
                created = client.get("/growth", params=wanted).json()["rows"]
                assert sum(row["created"] for row in created) == sum(
                    change.old is None
                    for record in cluster.records
                    for change in record.changes
                    if type(change).__name__ == "InodeChange"
                )
            else:
                cluster.assert_analytics_is_right(client)


def test_view_follows_through_restarts_of_the_stream(cluster: Cluster) -> None:
    with cluster.stage.start_view("search") as client:
        for number in (signal.SIGTERM, signal.SIGKILL, signal.SIGKILL):
            cluster.grow(100)
            cluster.stage.stop("stream", number)
            cluster.grow(50)
            cluster.stage.start_stream()
        wait_at(client, cluster.model.position, 20)
        cluster.assert_search_is_right()


@pytest.mark.parametrize("view", ["search", "analytics"])
@pytest.mark.parametrize("harm", ["deleted", "damaged", "emptied", "garbage"])
def test_view_that_is_gone_or_damaged_builds_itself_anew(
    cluster: Cluster, view: str, harm: str
) -> None:
    cluster.grow(200)
    with cluster.stage.start_view(view) as client:
        wait_at(client, cluster.model.position, 20)
    cluster.stage.stop(f"projections-{view}")
    suffix = "db" if view == "search" else "duckdb"
    path = cluster.stage.directory / "views" / f"{view}.{suffix}"
    size = path.stat().st_size
    if harm == "deleted":
        path.unlink()
    elif harm == "garbage":
        path.write_bytes(b"garbage" * 1000)
    elif harm == "emptied":
        path.write_bytes(b"")
    else:
        with open(path, "r+b") as file:
            file.seek(size // 3)
            file.write(b"\xa5" * (size // 3))
    cluster.grow(20)
    with cluster.stage.start_view(view) as client:
        wait_at(client, cluster.model.position, 30)
        if view == "search":
            cluster.assert_search_is_right()
        else:
            cluster.assert_analytics_is_right(client)


def test_view_deleted_under_a_running_process_comes_back(cluster: Cluster) -> None:
    cluster.grow(100)
    with cluster.stage.start_view("search") as client:
        wait_at(client, cluster.model.position, 20)
        (cluster.stage.directory / "views" / "search.db").unlink()
        cluster.grow(10)
        deadline = time.monotonic() + 20
        while not (cluster.stage.directory / "views" / "search.db").exists():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        wait_at(client, cluster.model.position, 20)
        cluster.assert_search_is_right()


def test_reset_rebuilds_from_the_checkpoint_and_keeps_history(tmp_path: Path) -> None:
    """The log the view had followed is lost behind a checkpoint: positions go back."""
    with staged(tmp_path) as stage:
        cluster = Cluster(stage)
        cluster.grow(300)
        with stage.start_view("search") as client:
            wait_at(client, cluster.model.position, 20)
            deleted = len(client.get("/deletions?limit=10000").json()["rows"])
        stage.stop("projections-search")
        stage.stop("stream")
        apply_to_state(stage.state_path, cluster.records)
        connection = apsw.Connection(str(stage.state_path))
        make_checkpoint(connection, tmp_path / "checkpoints", PosixDisk())
        connection.close()
        view = apsw.Connection(str(tmp_path / "views" / "search.db"))
        view.execute("UPDATE progress SET epoch = ?", (EPOCH + 1,))  # a history since lost
        view.execute("DELETE FROM inodes WHERE ino > 2 AND ino % 3 = 0")
        view.close()
        stage.start_stream()
        with stage.start_view("search") as client:
            wait_at(client, cluster.model.position, 20)
            deadline = time.monotonic() + 20
            while client.get("/status").json()["rebuilds_total"] == 0:
                assert time.monotonic() < deadline
                time.sleep(0.05)
            wait_at(client, cluster.model.position, 20)
            cluster.assert_search_is_right()
            assert len(client.get("/deletions?limit=10000").json()["rows"]) >= deleted
            cluster.grow(50)
            wait_at(client, cluster.model.position, 20)
            cluster.assert_search_is_right()


def test_answer_waits_for_the_position_asked_for(cluster: Cluster) -> None:
    with cluster.stage.start_view("search") as client:
        for round_ in range(50):
            name = b"new-%d" % round_
            cluster.log([cluster.model.create(1, name)])
            wanted = f"{EPOCH}-{cluster.model.position}"
            query = {"path": "/", "word": ["-name", name.decode()], "wait": wanted}
            answer = client.get("/find", params=query)
            assert answer.text.count('"/new-') == 1, (round_, answer.text)
            assert int(answer.headers["x-gfs-cursor"].split("-")[1]) >= cluster.model.position


def test_second_process_on_one_directory_is_refused(cluster: Cluster) -> None:
    cluster.stage.start_view("search").close()
    first = cluster.stage.processes.pop("projections-search")
    try:
        with pytest.raises(RuntimeError, match="in use"):
            cluster.stage.start_view("search")
    finally:
        cluster.stage.processes.pop("projections-search", None)
        first.terminate()
        assert first.wait(15) == 0
