"""The history of a file is found by its path, by its last path, and by its number."""

from __future__ import annotations

import json
import stat
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bench.namespace_model import NamespaceModel
from gfs.changes import text_of
from gfs.ids import TRASH_INO
from gfs.items import Dirent
from gfs.records import Copy, DirentChange
from projections.analytics_history import EventHistory
from projections.storage import DuckStore
from projections.worker import View
from tests.unit.projections.analytics import Asker, analytics_view, asking
from tests.unit.projections.views import config

COPY_INO = 7 << 40


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """/a/moved was /f; /gone lived twice; a tree went to the trash; /a was copied; odd names."""
    model = NamespaceModel()
    records = [model.format(), model.mkdir(1, b"a"), model.create(1, b"f")]
    a, file = (model.dirents[1, name].ino for name in (b"a", b"f"))
    records += [
        model.commit(file, 100),
        model.set(file, mode=stat.S_IFREG | 0o600),
        model.rename(1, b"f", a, b"moved"),
        model.commit(file, 250),
        model.create(1, b"gone"),
    ]
    old = model.dirents[1, b"gone"].ino
    records += [model.unlink(1, b"gone"), model.create(1, b"gone")]
    new = model.dirents[1, b"gone"].ino
    records += [model.commit(new, 7), model.unlink(1, b"gone"), model.mkdir(1, b"tree")]
    tree = model.dirents[1, b"tree"].ino
    records += [model.create(tree, b"inside"), model.create(1, b"caf\xe9\n")]
    inside, odd = (model.dirents[key].ino for key in ((tree, b"inside"), (1, b"caf\xe9\n")))
    records.append(model.rename(1, b"tree", int(TRASH_INO), b"%016x" % tree))
    copied = model.set(1, mtime_ns=model.now_ns)
    copied.changes.insert(0, DirentChange((1, b"copy"), None, Dirent(COPY_INO, stat.S_IFDIR)))
    copied.copy = Copy(a, 1, b"copy", COPY_INO, COPY_INO, 2, owners={1000: (2, 250)})
    records += [copied, model.rename(1, b"a", 1, b"b")]
    view = analytics_view(tmp_path_factory.mktemp("history"), records)
    yield SimpleNamespace(
        view=view, file=file, old=old, new=new, tree=tree, inside=inside, odd=odd, a=a, model=model
    )
    assert view.store is not None
    view.store.close()


@pytest.fixture
async def ask(scene: SimpleNamespace) -> AsyncIterator[Asker]:
    async with asking(scene.view) as asker:
        yield asker


def events(found: dict[str, Any]) -> list[str]:
    at = found["columns"].index("event")
    return [row[at] for row in found["rows"]]


async def test_a_file_has_one_history_through_its_renames(
    ask: Asker, scene: SimpleNamespace
) -> None:
    found = await ask.answer("/history", path="/b/moved", order="oldest")
    assert (found["ino"], found["path"], found["state"]) == (scene.file, "/b/moved", "there")
    assert events(found) == [
        "made", "written", "attributes", "renamed", "written", "copied-to",
    ]  # fmt: skip
    rows = [dict(zip(found["columns"], row, strict=True)) for row in found["rows"]]
    assert (rows[3]["from_path"], rows[3]["path"]) == ("/f", "/b/moved")
    assert (rows[4]["size_before"], rows[4]["size"]) == (100, 250)
    assert rows[2]["detail"] == f'{{"mode":[{stat.S_IFREG | 0o644},{stat.S_IFREG | 0o600}]}}'
    assert rows[5]["path"] == "/copy"
    assert {row["uid"] for row in rows} == {1000}
    assert all(row["cursor"].startswith("3-") for row in rows)
    newest = await ask.answer("/history", ino=scene.file)
    assert newest["rows"] == found["rows"][::-1]


async def test_old_paths_lead_to_the_file_too(ask: Asker, scene: SimpleNamespace) -> None:
    for path in ("/f", "/a/moved", "//a/./moved"):
        assert (await ask.answer("/history", path=path))["ino"] == scene.file
    assert (await ask.answer("/history", path="/a"))["ino"] == scene.a


async def test_a_deleted_file_is_found_by_its_last_path_and_those_before_it_are_told(
    ask: Asker, scene: SimpleNamespace
) -> None:
    found = await ask.answer("/history", path="/gone")
    assert (found["ino"], found["others"]) == (scene.new, [scene.old])
    assert (found["state"], found["path"]) == ("gone", "/gone")
    assert events(found) == ["removed", "written", "made"]
    older = await ask.answer("/history", ino=scene.old)
    assert events(older) == ["removed", "made"]
    assert older["path"] == "/gone"


async def test_what_lies_in_a_trashed_tree_is_found_by_its_path(
    ask: Asker, scene: SimpleNamespace
) -> None:
    found = await ask.answer("/history", path="/tree/inside")
    assert (found["ino"], found["state"]) == (scene.inside, "trash")
    found = await ask.answer("/history", path="/tree")
    assert (found["ino"], found["state"], found["path"]) == (scene.tree, "trash", "/tree")
    assert events(found)[0] == "trashed"


async def test_copies_know_where_they_come_from(ask: Asker, scene: SimpleNamespace) -> None:
    root = await ask.answer("/history", path="/copy")
    assert (root["ino"], events(root)) == (COPY_INO, ["copied"])
    inside = await ask.answer("/history", path="/copy/moved")
    assert (inside["ino"], events(inside)) == (COPY_INO + 1, ["copied"])
    detail = dict(zip(inside["columns"], inside["rows"][0], strict=True))["detail"]
    assert json.loads(detail)["source"] == scene.a


async def test_names_that_are_not_utf8_lead_to_their_file(
    ask: Asker, scene: SimpleNamespace
) -> None:
    path = "/" + text_of(b"caf\xe9\n")
    found = await ask.answer("/history", path=path)
    assert (found["ino"], found["path"]) == (scene.odd, path)


async def test_limits_and_times_cut_the_answer(ask: Asker, scene: SimpleNamespace) -> None:
    found = await ask.answer("/history", ino=scene.file, limit=2)
    assert found["truncated"]
    assert events(found) == ["copied-to", "written"]
    whole = await ask.answer("/history", ino=scene.file)
    assert not whole["truncated"]
    middle = whole["rows"][2][0]
    later = await ask.answer("/history", ino=scene.file, since_ns=middle)
    earlier = await ask.answer("/history", ino=scene.file, until_ns=middle)
    assert later["rows"] == whole["rows"][:3]
    assert earlier["rows"] == whole["rows"][2:]


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ({}, 400),
        ({"path": "/a", "ino": 3}, 400),
        ({"path": "relative"}, 400),
        ({"path": "/never/was"}, 404),
        ({"ino": 999}, 404),
        ({"ino": "x"}, 400),
        ({"path": "/b", "limit": "all"}, 400),
        ({"path": "/b", "order": "size; --"}, 400),
        ({"path": "/b", "since_ns": -1}, 400),
        ({"path": "/b", "patth": "/"}, 400),
        ({"path": "/b' OR 1=1; --"}, 404),
    ],
)
async def test_a_bad_question_is_refused_in_one_line(
    ask: Asker, query: dict[str, Any], status: int
) -> None:
    await ask.answer("/history", status=status, **query)


def test_history_is_bounded_by_age_and_by_rows(tmp_path: Path) -> None:
    model = NamespaceModel()
    records = [model.format(), *(model.create(1, b"f%d" % number) for number in range(50))]
    view: View = analytics_view(tmp_path, records)
    store = view.store
    assert isinstance(store, DuckStore)

    def count() -> int:
        row = store.connection.execute("SELECT count(*) FROM history.events").fetchone()
        assert row is not None
        return int(row[0])

    assert count() == 52
    keeper = EventHistory(config(tmp_path, history_days=1, history_rows=10))
    store.write_history(lambda past, _: keeper.prune(past, model.now_ns), store.cursor)
    assert count() == 10
    oldest = store.connection.execute("SELECT min(name) FROM history.events").fetchone()
    assert oldest == ("f40",)
    day = 86400 * 10**9
    store.write_history(lambda past, _: keeper.prune(past, model.now_ns + 2 * day), store.cursor)
    assert count() == 0
    store.close()


def test_a_history_of_an_older_release_gets_the_tables_it_lacks(tmp_path: Path) -> None:
    model = NamespaceModel()
    view = analytics_view(tmp_path, [model.format(), model.create(1, b"f")])
    store = view.store
    assert isinstance(store, DuckStore)
    for table in ("events", "copies"):
        store.connection.execute(f"DROP TABLE history.{table}")
    store.close()
    again = view.projection.open_store(view.path, view.history_path)
    assert isinstance(again, DuckStore)
    assert again.connection.execute("SELECT count(*) FROM history.events").fetchone() == (0,)
    grown = again.connection.execute("SELECT sum(created) FROM history.growth").fetchone()
    assert grown == (3,)
    again.close()
