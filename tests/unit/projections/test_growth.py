"""Growth from the history: of a tree it adds up to what the tree holds."""

from __future__ import annotations

import stat
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from bench.namespace_model import NamespaceModel
from gfs.changes import bytes_of, text_of
from gfs.ids import TRASH_INO
from gfs.items import Dirent
from gfs.records import Copy, DirentChange
from projections import analytics_kept
from tests.unit.projections.analytics import Asker, analytics_view, asking
from tests.unit.projections.views import history

HOUR_NS = 3600 * 10**9


@pytest.fixture(scope="module", params=[3, 4])
def built(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[SimpleNamespace]:
    model, records = history(request.param, 500)
    view = analytics_view(tmp_path_factory.mktemp("growth"), records)
    yield SimpleNamespace(model=model, records=records, view=view)
    assert view.store is not None
    view.store.close()


@pytest.fixture
async def ask(built: SimpleNamespace) -> AsyncIterator[Asker]:
    async with asking(built.view) as asker:
        yield asker


def lineage(built: SimpleNamespace) -> dict[int, set[int]]:
    """Directories that each inode lies in, or lay in before it went or came into the trash."""
    last: dict[int, int] = {}
    for record in built.records:
        for change in record.changes:
            if isinstance(change, DirentChange) and change.old is not None:
                moved = change.new is None or change.new.ino != change.old.ino
                if moved and change.key[0] != TRASH_INO:
                    last[change.old.ino] = change.key[0]
    found = {}
    for ino in {*built.model.inodes, *last}:
        lying = {parent for parent, _ in built.model.links.get(ino, ())} - {int(TRASH_INO)}
        found[ino] = lying or ({last[ino]} if ino in last else set())
    return found


def counted_in(built: SimpleNamespace, top: int) -> set[int]:
    """Live inodes that count in the tree of `top`, itself included."""
    places = lineage(built)
    found, size = {top}, 0
    while len(found) > size:
        size = len(found)
        found |= {ino for ino, parents in places.items() if parents & found}
    return {ino for ino in found if ino in built.model.inodes}


def trees(model: NamespaceModel) -> list[int]:
    """Directories outside the trash."""
    return [ino for ino in model.children if not model.is_below(ino, int(TRASH_INO))]


async def test_growth_of_a_tree_adds_up_to_what_it_holds_now(
    ask: Asker, built: SimpleNamespace
) -> None:
    """Files that went leave nothing; what lies in the trash counts where it lay."""
    model: NamespaceModel = built.model
    for top in trees(model)[:25]:
        path = "/" if top == 1 else text_of(model.path(top))
        rows = await ask.rows("/report/growth", path=path, by="month")
        inside = counted_in(built, top)
        net = sum(row["bytes_added"] - row["bytes_removed"] for row in rows)
        count = sum(row["created"] - row["removed"] for row in rows)
        size = sum(model.inodes[ino].size for ino in inside)
        assert (net, count) == (size, len(inside)), path


async def test_growing_files_are_those_that_grew_most(ask: Asker, built: SimpleNamespace) -> None:
    model: NamespaceModel = built.model
    since = built.records[len(built.records) // 2].time_ns
    grown: Counter[int] = Counter()
    for record in built.records:
        for change in record.changes:
            key = change.key[0]
            if record.time_ns >= since and key in model.inodes and len(change.key) == 1:
                grown[key] += (change.new.size if change.new else 0) - (
                    change.old.size if change.old else 0
                )
    wanted = sorted((size for size in grown.values() if size > 0), reverse=True)[:7]
    rows = await ask.rows("/report/growing", n=7, since_ns=since)
    assert [row["bytes"] for row in rows] == wanted
    assert all(grown[row["ino"]] == row["bytes"] for row in rows)
    for row in rows:
        assert bytes_of(row["path"]).rpartition(b"/")[2] in {
            name for _, name in model.links[row["ino"]]
        }


async def test_growing_by_directory_tree_or_owner_is_the_same_growth(ask: Asker) -> None:
    sums = {}
    for by in ("directory", "tree"):
        rows = await ask.rows("/report/growing", by=by, path="/", n=10_000, since_ns=0)
        assert rows
        sums[by] = sum(row["bytes"] for row in rows)
    net = await ask.rows("/report/growth", path="/", by="owner")
    total = sum(row["bytes_added"] - row["bytes_removed"] for row in net)
    assert set(sums.values()) == {total}
    owners = await ask.rows("/report/growing", by="owner", path="/", since_ns=0)
    assert {row["uid"]: row["bytes"] for row in owners if row["bytes"]} == {
        row["uid"]: row["bytes_added"] - row["bytes_removed"]
        for row in net
        if row["bytes_added"] > row["bytes_removed"]
    }


async def test_active_directories_are_those_with_most_events(
    ask: Asker, built: SimpleNamespace
) -> None:
    events = (await ask.answer("/sql", q="SELECT count(*) FROM history.events"))["rows"][0][0]
    rows = await ask.rows("/report/active", n=10_000, since_ns=0)
    assert sum(row["events"] for row in rows) == events
    assert [row["events"] for row in rows] == sorted((r["events"] for r in rows), reverse=True)
    made = sum(
        change.old is None and len(change.key) == 1
        for record in built.records
        for change in record.changes
    )
    assert sum(row["made"] for row in rows) == made
    few = await ask.rows("/report/active", n=3, since_ns=0)
    assert few == rows[:3]


async def test_what_was_deleted_in_a_tree_is_told_of_that_tree(
    ask: Asker, built: SimpleNamespace
) -> None:
    whole = await ask.rows("/report/deleted", n=10_000)
    rows = await ask.rows("/report/deleted", n=10_000, path="/")
    assert rows
    assert {row["ino"] for row in rows} <= {row["ino"] for row in whole}
    top = next(ino for ino in trees(built.model) if ino != 1)
    path = text_of(built.model.path(top))
    inside = await ask.rows("/report/deleted", n=10_000, path=path)
    assert all(row["path"].startswith((path + "/", "<")) for row in inside)


async def test_growth_per_owner_splits_growth(ask: Asker) -> None:
    for query in ({}, {"path": "/"}):
        whole = await ask.rows("/report/growth", by="day", **query)
        split = await ask.rows("/report/growth", by="day", owner=1, **query)
        assert len({row["uid"] for row in split}) > 1
        for column in ("created", "removed", "bytes_added", "bytes_removed"):
            assert sum(row[column] for row in whole) == sum(row[column] for row in split)
        one = split[0]["uid"]
        of_one = await ask.rows("/report/growth", by="day", uid=one, **query)
        assert sum(row["created"] for row in of_one) == sum(
            row["created"] for row in split if row["uid"] == one
        )


async def test_copies_count_as_growth_where_they_lie(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    model = NamespaceModel()
    records: list[Any] = [model.format(), model.mkdir(1, b"a"), model.mkdir(1, b"to")]
    a, to = (model.dirents[1, name].ino for name in (b"a", b"to"))
    records += [model.create(a, b"f"), model.commit(model.dirents[a, b"f"].ino, 500)]
    root = 7 << 40
    copied = model.set(to, mtime_ns=model.now_ns)
    copied.changes.insert(0, DirentChange((to, b"copy"), None, Dirent(root, stat.S_IFDIR)))
    copied.copy = Copy(a, to, b"copy", root, root, 2, owners={1000: (2, 500)})
    view = analytics_view(tmp_path_factory.mktemp("copies"), [*records, copied])
    async with asking(view) as ask:
        rows = await ask.rows("/report/growth", path="/to")
        assert [(row["created"], row["bytes_added"]) for row in rows] == [(3, 500)]
        grown = await ask.rows("/report/growing", by="tree", path="/", since_ns=0)
        assert {row["path"]: row["bytes"] for row in grown} == {"/a": 500, "/to": 500}
    assert view.store is not None
    with view.store.snapshot() as (connection, _):
        assert not list(analytics_kept.contradictions(connection))
    view.store.close()


async def test_a_tree_taken_from_the_trash_to_elsewhere_counts_there(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    model = NamespaceModel()
    records: list[Any] = [model.format(), model.mkdir(1, b"a"), model.mkdir(1, b"b")]
    a, b = (model.dirents[1, name].ino for name in (b"a", b"b"))
    records.append(model.mkdir(a, b"tree"))
    tree = model.dirents[a, b"tree"].ino
    trash = int(TRASH_INO), b"%016x" % tree
    records += [model.create(tree, b"f"), model.commit(model.dirents[tree, b"f"].ino, 77)]
    records.append(model.rename(a, b"tree", *trash))
    view = analytics_view(tmp_path_factory.mktemp("back"), records)
    async with asking(view) as ask:
        assert sum(row["bytes_added"] for row in await ask.rows("/report/growth", path="/a")) == 77
    assert view.store is not None
    view.store.close()
    view = analytics_view(
        tmp_path_factory.mktemp("elsewhere"), [*records, model.rename(*trash, b, b"tree")]
    )
    async with asking(view) as ask:
        for path, size in (("/a", 0), ("/b", 77)):
            rows = await ask.rows("/report/growth", path=path)
            assert sum(row["bytes_added"] for row in rows) == size
    assert view.store is not None
    view.store.close()
