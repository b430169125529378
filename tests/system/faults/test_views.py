"""Views asked with `wait`: whatever a call on a mount has done before is in the answer.

The question is what `gfs find --wait` asks: the master first recalls what mounts and
primaries hold back and says a position, then the view waits for it. HTTP directly,
since a process a round would measure the start of processes.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from gfs.cluster.asking import ask
from gfs.cluster.report import view_client
from gfs.cluster.up import client_config
from gfs.messages import Barrier, BarrierDone
from tests.system.faults.processes import SHORT_LEASES, FaultyCluster
from tests.system.faults.works import Background, amount

LIMIT_S = amount(ci=600, full=3000)
pytestmark = [pytest.mark.mount, pytest.mark.slow, pytest.mark.timeout(LIMIT_S)]

WISHES = {"projections": True}
CONFIG = SHORT_LEASES
ROUNDS = amount(ci=300, full=10_000)
VIEW_S = 30.0
# A view whose stream ends with a killed master says so.
ALLOWED = (r"session\.(dead|lost)",)


class Views:
    """Questions to both views that wait for everything before them."""

    def __init__(self, cluster: FaultyCluster, search: httpx.Client, analytics: httpx.Client):
        self.cluster = cluster
        self.search, self.analytics = search, analytics

    def now(self) -> str:
        """Cursor that covers everything acknowledged before."""
        done = ask(client_config(self.cluster.layout), Barrier(), BarrierDone)
        return f"{done.epoch}-{done.position}"

    def find(self, path: str, *words: str) -> dict[str, dict[str, Any]]:
        """Path -> row of what the search view finds below `path`."""
        asked = {"paths": [{"path": path}], "expression": list(words)}
        answer = self.search.post("/find", json=asked, params={"wait": self.now()})
        assert answer.status_code == 200, answer.text
        rows = [json.loads(line) for line in answer.text.splitlines()]
        assert all("path" in row for row in rows), rows
        return {row["path"]: row for row in rows}

    def du(self, path: str) -> dict[str, Any]:
        answer = self.search.get("/du", params={"path": path, "wait": self.now()})
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def files(self) -> int:
        """How many files the analytics view knows."""
        sql = "SELECT count(*) AS n FROM inodes WHERE kind_of(mode) = 'f'"
        answer = self.analytics.get("/sql", params={"q": sql, "wait": self.now()})
        assert answer.status_code == 200, answer.text
        (row,) = answer.json()["rows"]
        return int(row["n"] if isinstance(row, dict) else row[0])


@pytest.fixture
def views(cluster: FaultyCluster, here: Path) -> Iterator[Views]:
    config = client_config(cluster.layout)
    with ExitStack() as stack:
        clients = [
            stack.enter_context(view_client(config, name, VIEW_S))
            for name in ("search", "analytics")
        ]
        yield Views(cluster, *clients)


class Model:
    """A directory as it must be: name -> size."""

    def __init__(self, here: Path, there: Path) -> None:
        self.sides = [here, there]
        self.sizes: dict[str, int] = {}
        self.random = random.Random(17)
        self._number = 0

    def step(self) -> str:
        """One change through either mount; says which, for people."""
        side = self.random.choice(self.sides)
        kind = self.random.choice(["create", "create", "append", "append", "rename", "unlink",
                                   "truncate", "overwrite"])  # fmt: skip
        if not self.sizes:
            kind = "create"
        name = "" if kind == "create" else self.random.choice(sorted(self.sizes))
        getattr(self, f"_{kind}")(side, name)
        return f"{kind} {name} on {side.parent.name}"

    def _fresh(self) -> str:
        self._number += 1
        return f"n{self._number:05d}"

    def _create(self, side: Path, _: str) -> None:
        name, size = self._fresh(), self.random.randrange(3000)
        (side / name).write_bytes(b"c" * size)
        self.sizes[name] = size

    def _append(self, side: Path, name: str) -> None:
        count = self.random.randrange(1, 500)
        with open(side / name, "ab", buffering=0) as file:
            file.write(b"a" * count)
        self.sizes[name] += count

    def _overwrite(self, side: Path, name: str) -> None:
        size = self.random.randrange(1, 3000)
        with open(side / name, "r+b", buffering=0) as file:
            file.write(b"o" * size)
        self.sizes[name] = max(self.sizes[name], size)

    def _truncate(self, side: Path, name: str) -> None:
        self.sizes[name] = self.random.randrange(3000)
        os.truncate(side / name, self.sizes[name])

    def _rename(self, side: Path, name: str) -> None:
        target = self.random.choice([self._fresh(), *self.sizes])
        os.rename(side / name, side / target)
        self.sizes[target] = self.sizes.pop(name)

    def _unlink(self, side: Path, name: str) -> None:
        os.unlink(side / name)
        del self.sizes[name]

    def check(self, views: Views) -> None:
        top = f"/{self.sides[0].name}"
        found = views.find(top, "-type", "f")
        sizes = {path.rpartition("/")[2]: row["size"] for path, row in found.items()}
        assert sizes == self.sizes


def test_every_change_is_in_the_answer_that_waits(views: Views, here: Path, there: Path) -> None:
    model = Model(here, there)
    for number in range(ROUNDS):
        said = model.step()
        try:
            model.check(views)
        except BaseException as error:
            error.add_note(f"round {number}: {said}")
            raise
    check_sums(views, here, model)


def check_sums(views: Views, here: Path, model: Model) -> None:
    """`du` of the view and of the directory agree."""
    found = views.du(f"/{here.name}")
    assert found["files"] == len(model.sizes)
    own = os.stat(here).st_size  # as du(1), the directory itself counts
    assert found["bytes"] == sum(model.sizes.values()) + own


@pytest.mark.kill
def test_views_catch_up_and_apply_nothing_twice_whatever_is_killed(
    views: Views, cluster: FaultyCluster, here: Path, there: Path
) -> None:
    model = Model(here, there)
    kills = ("projections-search", "master", "projections-analytics", "mount2", "chunkd1")
    for name in kills:
        for _ in range(30):
            model.step()
        for side in (here, there):  # a killed mount may lose what nobody waited for
            sync(side)
        cluster.kill(name)
        cluster.start(name)
        cluster.wait_ready(name)
        model.check(views)
        check_sums(views, here, model)
    cluster.kill(*cluster.names)
    cluster.start(*reversed(cluster.names))
    cluster.wait_ready()
    model.check(views)
    check_sums(views, here, model)
    assert views.files() >= len(model.sizes)


def sync(directory: Path) -> None:
    """fsyncdir waits for everything this mount has pending."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    os.fsync(fd)
    os.close(fd)


def test_rebuilt_view_equals_the_live_one_while_changes_go_on(
    views: Views, cluster: FaultyCluster, here: Path, there: Path
) -> None:
    model = Model(here, there)
    for _ in range(60):
        model.step()
    cluster.terminate("projections-search")
    directory = cluster.layout.data("projections-search")
    for path in directory.glob("search.db*"):
        path.unlink()

    def work() -> None:
        for _ in range(60):
            model.step()

    beside = Background(work)
    cluster.start("projections-search")
    beside.join()
    cluster.wait_ready("projections-search")
    cluster.wait("the view is not built", lambda: views.search.get("/find").status_code == 200)
    model.check(views)
    check_sums(views, here, model)
