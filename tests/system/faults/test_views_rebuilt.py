"""Whatever is killed while files come, change, move, go and are copied: a view is its rebuild.

Follower, query service (both are the projections process) and master, with the stream's
process beside it, are killed in a loop under a mix of changes. Then each view is dumped,
built anew, dumped again: row for row the same, and the same as what the master has.
"""

from __future__ import annotations

import json
import random
import shutil
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from gfs.cluster.asking import ask
from gfs.cluster.report import view_client
from gfs.cluster.up import client_config
from gfs.errors import GfsError
from gfs.messages import Barrier, BarrierDone
from projections.analytics_kept import ADDED_UP
from tests.system.clusters import LocalCluster
from tests.system.faults.processes import SHORT_LEASES, FaultyCluster
from tests.system.faults.works import Background, amount

LIMIT_S = amount(ci=600, full=3000)
pytestmark = [pytest.mark.mount, pytest.mark.slow, pytest.mark.kill, pytest.mark.timeout(LIMIT_S)]

WISHES = {"projections": True, "chunkservers": 1, "mounts": 1, "goal": 1}
CONFIG = SHORT_LEASES
KILLS = amount(ci=6, full=100)
STEPS = amount(ci=60, full=400)  # changes between two kills
ALLOWED = (r"session\.(dead|lost)",)
TABLES = {
    "search": (
        "SELECT parent, name, ino FROM dirents",
        *(f"SELECT * FROM {one}" for one in ("inodes", "xattrs", "directories", "owners",
                                             "extensions")),
    ),
    "analytics": (
        *(f"SELECT * FROM {one}" for one in ("inodes", "dirents", "xattrs")),
        "SELECT ino, parent, name FROM directory_names",
        ADDED_UP,
    ),
}  # fmt: skip


class Mix:
    """Random changes below a directory of a mount; what a killed master cuts off is retried."""

    def __init__(self, here: Path, gfs: LocalCluster) -> None:
        self.here = here
        self.gfs = gfs
        self.random = random.Random(23)
        self.files: list[Path] = []
        self.directories = [here]
        self._number = 0

    def _fresh(self, kind: str) -> Path:
        self._number += 1
        return self.random.choice(self.directories) / f"{kind}{self._number:06d}.log"

    def work(self) -> None:
        for _ in range(STEPS):
            self.step()

    def step(self) -> None:
        kinds = (
            ["create"] * 6 + ["update"] * 5 + ["rename"] * 3 + ["delete"] * 3 + ["mkdir", "move"]
        )
        kind = self.random.choice(kinds) if self.files else "create"
        getattr(self, f"_{kind}")()

    def _create(self) -> None:
        path = self._fresh("f")
        path.write_bytes(b"c" * self.random.randrange(2000))
        self.files.append(path)

    def _update(self) -> None:
        path = self.random.choice(self.files)
        if self.random.random() < 0.5:
            with open(path, "ab") as file:
                file.write(b"a" * 100)
        else:
            path.chmod(self.random.choice((0o600, 0o644, 0o755)))

    def _rename(self) -> None:
        at = self.random.randrange(len(self.files))
        self.files[at] = self.files[at].rename(self._fresh("r"))

    def _delete(self) -> None:
        self.files.pop(self.random.randrange(len(self.files))).unlink()

    def _mkdir(self) -> None:
        path = self._fresh("d")
        path.mkdir()
        self.directories.append(path)

    def _move(self) -> None:
        """A directory with all that lies below it; then it is no place for others any more."""
        if len(self.directories) > 4:
            moved = self.directories.pop(self.random.randrange(1, len(self.directories)))
            gone = self.here / f"moved{self._number}-{moved.name}"
            moved.rename(gone)
            self.directories = [one for one in self.directories if moved not in one.parents]
            self.files = [one for one in self.files if moved not in one.parents]

    def copy(self) -> None:
        """A snapshot of everything, and away with an older one."""
        self._number += 1
        name = self.here.name
        self.gfs.gfs("snapshot", f"/{name}", f"/copy-{self._number}-{name}")
        older = sorted(self.here.parent.glob(f"copy-*-{name}"))[:-2]
        for path in older:
            shutil.rmtree(path)


def settled(cluster: FaultyCluster, client: httpx.Client) -> None:
    """The view has everything that was done before."""
    done = ask(client_config(cluster.layout), Barrier(), BarrierDone)
    answer = client.get("/sql", params={"q": "SELECT 1", "wait": f"{done.epoch}-{done.position}"})
    assert answer.status_code == 200, answer.text


def dumped(client: httpx.Client, view: str) -> list[list[Any]]:
    """All rows of all tables, sorted."""
    found = []
    for sql in TABLES[view]:
        answer = client.post("/sql", json={"sql": sql})
        assert answer.status_code == 200, answer.text
        assert not answer.json()["truncated"]
        found.append(sorted(answer.json()["rows"], key=repr))
    return found


def test_a_view_equals_its_rebuild_row_for_row_whatever_was_killed(
    cluster: FaultyCluster, here: Path
) -> None:
    mix = Mix(here, LocalCluster(cluster.layout.directory))
    order = random.Random(3)
    for number in range(KILLS):
        work = Background(mix.work)
        time.sleep(order.random() * 0.5)
        names = ["projections-search", "projections-analytics", "master"]
        killed = names if number % 6 == 5 else [names[number % 3]]
        cluster.kill(*killed)
        cluster.start(*reversed(killed))
        cluster.wait_ready(*killed)
        work.join()
        mix.copy()
    # Who reads tells the master of it some seconds later; a mount that ends tells it at once.
    for name in [one for one in cluster.names if one.startswith("mount")]:
        cluster.terminate(name)
    config = client_config(cluster.layout)
    for view in TABLES:
        with view_client(config, view, 60.0) as client:
            settled(cluster, client)
            live = dumped(client, view)
            assert json.loads(client.post("/verify").text.splitlines()[-1])["differences"] == 0
            before = client.get("/status").json()["last_rebuild_ns"]
            assert client.post("/rebuild").status_code == 200
            cluster.wait(
                "the view is not built anew",
                lambda client=client, before=before: built(client, before),  # type: ignore[misc]
            )
            settled(cluster, client)
            assert dumped(client, view) == live, view
            assert len(live[0]) > STEPS


def built(client: httpx.Client, before: int) -> bool:
    """Whether the rebuild that was asked for is done."""
    try:
        found = client.get("/status").json()
    except (httpx.HTTPError, GfsError):
        return False
    return not found["rebuilding"] and found["last_rebuild_ns"] != before
