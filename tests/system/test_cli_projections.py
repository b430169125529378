"""`gfs projections ...` against a real cluster, and a view of somebody's own beside it.

The view is the one of docs/your-own-view.md, installed as a package is: found by its
entry point, kept by a process of its own with its own directory and port, as on another
host, killed again and again.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.system.clusters import ROOT, LocalCluster

pytestmark = [pytest.mark.kill, pytest.mark.slow, pytest.mark.timeout(180)]

PAGE = ROOT / "docs" / "your-own-view.md"
START_S = 20.0


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    found = LocalCluster(tmp_path_factory.mktemp("projections") / "c")
    try:
        found.up("--chunkservers", "1", "--mounts", "0")
        found.gfs("mkdir", "/a")
        for number in range(20):
            found.gfs("append", f"/a/file{number}", given=b"x" * number)
        yield found
    finally:
        found.end()


def test_list_and_status_tell_all_about_each_view(cluster: LocalCluster) -> None:
    cluster.out("du", "/", "--wait")
    cluster.out("sql", "--view", "analytics", "--wait", "SELECT 1")
    views = {one["view"]: one for one in cluster.json("projections", "list", "--json")}
    assert set(views) == {"search", "analytics"}
    for one in views.values():
        assert one["state"] == "following"
        assert one["rows"]["inodes"] >= 21
        assert one["disk_bytes"] > 4096
        assert one["last_rebuild_ns"] > 0
        told = {"position", "lag_ms", "events_per_s", "dead_letters", "verify", "last_rebuild_s"}
        assert told <= one.keys()
    table = cluster.out("projections", "list").decode().splitlines()
    assert table[0].split("\t")[:4] == ["view", "state", "position", "lag"]
    assert [line.split("\t")[:2] for line in table[1:]] == [
        ["search", "following"],
        ["analytics", "following"],
    ]
    text = cluster.out("projections", "status", "search").decode()
    assert text.startswith("search: following at position ")
    assert " dead letters" in text
    assert "verification: 0 differences" in text
    assert cluster.json("projections", "status", "search", "--json")["view"] == "search"


def test_verify_ends_with_0_and_says_how_much_it_compared(cluster: LocalCluster) -> None:
    cluster.out("du", "/", "--wait")
    text = cluster.out("projections", "verify").decode()
    assert re.search(r"^search: 0 differences; \d\d+ inodes compared in ", text, re.MULTILINE)
    assert re.search(r"^analytics: 0 differences; ", text, re.MULTILINE)
    found = cluster.json("projections", "verify", "search", "--json")
    assert (found["differences"], found["kinds"]) == (0, {})


def test_a_view_is_paused_and_resumed(cluster: LocalCluster) -> None:
    assert b"search is paused at position" in cluster.out("projections", "pause", "search")
    cluster.gfs("mkdir", "/while-paused")
    answer = cluster.gfs("search", "while-paused")
    assert answer.stdout == b""
    assert b"the view is paused" in answer.stderr
    assert b"is paused at" in cluster.gfs("search", "x", "--wait", code=1).stderr
    assert b"is paused" in cluster.gfs("projections", "rebuild", "search", code=1).stderr
    assert b"is paused" in cluster.gfs("projections", "verify", "search", code=1).stderr
    assert b"paused" in cluster.out("projections", "list")
    assert b"follows again" in cluster.out("projections", "resume", "search")
    assert cluster.out("search", "while-paused", "--wait") == b"/while-paused\n"


def test_a_damaged_view_is_told_and_built_anew(cluster: LocalCluster) -> None:
    cluster.out("du", "/", "--wait")
    os.kill(cluster.pids()["projections-search"], signal.SIGKILL)
    path = cluster.directory / "data" / "projections-search" / "search.db"
    connection = sqlite3.connect(path)
    with connection:
        connection.execute("UPDATE inodes SET size = 77 WHERE ino = 1")
    connection.close()
    cluster.up("--chunkservers", "1", "--mounts", "0")
    said = cluster.gfs("projections", "verify", "search", code=1).stdout.decode()
    assert re.match(r"search: [1-9]\d* differences; ", said)
    assert "inode 1: size is 77, not " in said
    cluster.gfs("projections", "list", code=1)
    assert b"search was built anew in " in cluster.out("projections", "rebuild", "search")
    assert b"search: 0 differences" in cluster.out("projections", "verify", "search")
    cluster.out("projections", "list")


def test_mistakes_are_one_line(cluster: LocalCluster) -> None:
    for words in (["pause"], ["pause", "nothing"], ["status", "x", "y"], ["verify", "--nonsense"]):
        said = cluster.gfs("projections", *words, code=2).stderr.decode()
        assert said.startswith("gfs: ")
        assert said.count("\n") == 1
    daemon = ["projections", "--view", "nothing", "--data-dir", "/nowhere"]
    complaint = cluster.gfs(*daemon, code=2).stderr
    assert b"there is no view 'nothing' (there are analytics, search)" in complaint


def test_with_options_alone_or_run_it_is_the_daemon(cluster: LocalCluster) -> None:
    for words in (["--help"], ["run", "--help"]):
        assert b"--verify-inodes-per-s" in cluster.out("projections", *words)


# --- a view of one's own ---------------------------------------------------------------


class OwnView:
    """The page's view, installed in a directory of its own, and its process."""

    def __init__(self, cluster: LocalCluster, directory: Path) -> None:
        self.cluster = cluster
        self.directory = directory
        site = directory / "site"
        info = site / "owned_names-1.dist-info"
        info.mkdir(parents=True)
        source = re.search(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
        entry = re.search(r"^owned_names = \"(.*)\"$", PAGE.read_text(), re.MULTILINE)
        assert source is not None
        assert entry is not None
        (site / "owned_names.py").write_text(source[1])
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: owned-names\nVersion: 1\n")
        (info / "entry_points.txt").write_text(f"[gfs.projections]\nowned_names = {entry[1]}\n")
        self.variables = cluster.variables() | {"PYTHONPATH": f"{ROOT}:{site}"}
        self.process: subprocess.Popen[bytes] | None = None
        self.url = ""

    def start(self) -> None:
        ready = self.directory / "ready"
        ready.unlink(missing_ok=True)
        words: list[str | Path] = [
            *("projections", "--view", "owned_names", "--verify-period-s", "0.5"),
            *("--data-dir", self.directory / "views", "--ready-file", ready),
        ]
        with open(self.directory / "log", "ab") as log:
            self.process = subprocess.Popen(
                [*self.cluster.command(), *words], env=self.variables, stdout=log, stderr=log
            )
        deadline = time.monotonic() + START_S
        while not ready.exists():
            assert self.process.poll() is None, (self.directory / "log").read_text()[-2000:]
            assert time.monotonic() < deadline
            time.sleep(0.02)
        self.url = f"http://{json.loads(ready.read_bytes())['http']}"
        self.cluster.environment = {"GFS_CLIENT_VIEWS": f"owned_names={self.url}"}

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait(10)

    def rows(self, sql: str) -> Any:
        words = ["sql", "--view", "owned_names", "--wait", "--json", sql]
        return self.cluster.json(*words)["rows"]


@contextmanager
def own_view(cluster: LocalCluster, directory: Path) -> Iterator[OwnView]:
    view = OwnView(cluster, directory)
    try:
        view.start()
        yield view
    finally:
        cluster.environment = {}
        if view.process is not None and view.process.poll() is None:
            view.process.terminate()
            view.process.wait(15)


def test_a_view_of_ones_own_is_made_filled_killed_and_asked(
    cluster: LocalCluster, tmp_path: Path
) -> None:
    with own_view(cluster, tmp_path) as view:
        names = "SELECT name, size FROM dirents JOIN files USING (ino) WHERE name GLOB 'file*'"
        assert sorted(view.rows(names)) == sorted([[f"file{one}", one] for one in range(20)])
        cluster.gfs("mkdir", "/own")
        for number in range(3):
            view.kill()
            cluster.gfs("append", f"/own/x{number}", given=b"y" * 100)
            cluster.gfs("snapshot", "/own", f"/copy{number}")
            view.start()
            cluster.gfs("append", f"/own/x{number}", given=b"z")
            if number % 2:
                cluster.gfs("rm", "-r", f"/copy{number}")
        top = "SELECT ino FROM dirents WHERE parent = 1 AND name = 'own'"
        own = f"SELECT name, size FROM dirents JOIN files USING (ino) WHERE parent = ({top})"
        assert sorted(view.rows(own)) == [[f"x{number}", 101] for number in range(3)]
        copies = "SELECT count(*) FROM dirents WHERE name = 'x0'"
        assert view.rows(copies) == [[4]]  # what is in the trash, too
        text = cluster.out("projections", "verify", "owned_names").decode()
        assert text.startswith("owned_names: 0 differences; ")
        before = (
            sorted(view.rows("SELECT * FROM files")),
            sorted(view.rows("SELECT * FROM dirents")),
        )
        cluster.out("projections", "rebuild", "owned_names")
        after = sorted(view.rows("SELECT * FROM files")), sorted(view.rows("SELECT * FROM dirents"))
        assert after == before


def test_views_on_several_hosts_are_found_by_the_settings(
    cluster: LocalCluster, tmp_path: Path
) -> None:
    """Three processes with directories and ports of their own, as three hosts would have."""
    with own_view(cluster, tmp_path):
        views = cluster.json("projections", "list", "--json")
        assert [one["view"] for one in views] == ["search", "analytics", "owned_names"]
        assert {one["state"] for one in views} == {"following"}
        assert [one["view"] for one in cluster.json("status", "--json")["views"]] == [
            "search",
            "analytics",
            "owned_names",
        ]
        assert cluster.out("search", "file19", "--wait") == b"/a/file19\n"
        assert cluster.json("sql", "SELECT 1", "--json")["rows"] == [[1]]
    cluster.environment = {"GFS_CLIENT_VIEWS": "nonsense"}
    try:
        said = cluster.gfs("projections", "list", code=2).stderr
        assert b"'nonsense' is not NAME=URL" in said
    finally:
        cluster.environment = {}
    assert b"not known" in cluster.gfs("sql", "--view", "owned_names", "SELECT 1", code=2).stderr
