"""The search view is a function of the items: any batches, any order, the same rows."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from bench.namespace_model import NamespaceModel, random_step
from gfs import messages as m
from gfs.changes import Cursor, text_of
from gfs.ids import ROOT_INO
from gfs.records import Record
from projections import search_tree
from projections.core.following import Batch
from projections.search_schema import TRASH
from projections.search_view import SearchView
from projections.storage import SqliteStore
from tests.unit.master.core.harness import Cluster
from tests.unit.projections.views import (
    SEARCH_DUMPS,
    Tables,
    apply_split,
    config,
    expected_search,
    history,
    lines_of,
    load,
    snapshot_of,
)


def opened(directory: Path, name: str = "search.db") -> tuple[SearchView, SqliteStore]:
    view = SearchView(config(directory))
    store = view.open_store(directory / name, directory / "history.db")
    assert isinstance(store, SqliteStore)
    return view, store


def dump(store: SqliteStore) -> Tables:
    return {
        name: sorted(store.connection.execute(sql).fetchall()) for name, sql in SEARCH_DUMPS.items()
    }


def assert_same(found: Tables, expected: Tables) -> None:
    for table, rows in expected.items():
        assert found[table] == sorted(rows), table


@pytest.mark.parametrize("seed", range(12))
def test_live_view_equals_the_model(tmp_path: Path, seed: int) -> None:
    model, records = history(seed, 400)
    view, store = opened(tmp_path)
    apply_split(view, store, records, random.Random(seed))
    assert_same(dump(store), expected_search(model))
    names = {
        row[0]
        for row in store.connection.execute("SELECT rowid FROM names WHERE name LIKE '%alpha%'")
    }
    wanted = {
        row[0]
        for row in store.connection.execute("SELECT id FROM dirents WHERE name LIKE '%alpha%'")
    }
    assert names == wanted
    store.connection.execute("INSERT INTO names (names, rank) VALUES ('integrity-check', 1)")
    store.close()


@pytest.mark.parametrize("seed", range(6))
def test_rebuild_equals_live_row_for_row(tmp_path: Path, seed: int) -> None:
    model, records = history(seed, 300)
    view, live = opened(tmp_path)
    apply_split(view, live, records, random.Random(seed))
    rebuilt = SqliteStore(tmp_path / "new.db", view.schema, view.format)
    load(view, rebuilt, snapshot_of(model), random.Random(seed))
    assert dump(rebuilt) == dump(live)
    live.close()
    rebuilt.close()


def test_the_least_of_many_names_is_in_the_inodes_row_whatever_comes_and_goes(
    tmp_path: Path,
) -> None:
    """One batch or many: names of hard links come, go and are exchanged with other files'."""
    for seed in range(8):
        rng = random.Random(seed)
        model = NamespaceModel()
        first = (b"m-first", b"m-second", b"m-third")
        records = [model.format(), *(model.create(1, name) for name in first)]
        for number in range(60):
            (parent, name), dirent = rng.choice(sorted(model.dirents.items(), key=str))
            fresh = rng.choice((b"a-%d", b"m-%d", b"z-%d")) % number
            others = [key for key, one in model.dirents.items() if one.ino != dirent.ino]
            roll = rng.randrange(5)
            if roll < 2 or len(model.dirents) < 4:
                records.append(model.link(dirent.ino, 1, fresh))
            elif roll == 2:
                records.append(model.rename(parent, name, 1, fresh))
            elif roll == 3 and others:
                records.append(model.exchange((parent, name), rng.choice(sorted(others))))
            elif len(model.inodes) > 3:
                records.append(model.unlink(parent, name))
        expected = expected_search(model)
        for at, batches in enumerate(([records], [records[:20], records[20:]])):
            view, store = opened(tmp_path, f"{seed}-{at}.db")
            for part in batches:
                batch = batch_of(part)
                store.write(lambda c, view=view, batch=batch: view.apply(batch, c), batch.cursor)  # type: ignore[misc]
            assert_same(dump(store), expected)
            store.connection.execute(
                "INSERT INTO names (names, rank) VALUES ('integrity-check', 1)"
            )
            store.close()
            (tmp_path / "history.db").unlink()


def test_same_events_twice_change_nothing(tmp_path: Path) -> None:
    model, records = history(3, 200)
    view, store = opened(tmp_path)
    apply_split(view, store, records, random.Random(1))
    before = dump(store)
    apply_split(view, store, records[-1:], random.Random(1))
    assert dump(store) == before == {k: sorted(v) for k, v in expected_search(model).items()}
    store.close()


@pytest.mark.parametrize("many", [1, 5000], ids=["index made anew", "index changed"])
def test_moving_a_big_tree_moves_its_sums_and_paths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, many: int
) -> None:
    monkeypatch.setattr(search_tree, "MANY", many)
    model = NamespaceModel()
    records = [model.format(), model.mkdir(1, b"a"), model.mkdir(1, b"b")]
    a, b = model.dirents[1, b"a"].ino, model.dirents[1, b"b"].ino
    for number in range(300):
        records.append(model.mkdir(a, b"d%d" % number))
        inner = model.dirents[a, b"d%d" % number].ino
        records.append(model.create(inner, b"f"))
        records.append(model.commit(model.dirents[inner, b"f"].ino, 1000))
    view, store = opened(tmp_path)
    apply_split(view, store, records, random.Random(1))
    moves = [model.rename(1, b"a", b, b"x"), model.rename(1, b"b", 1, b"c")]
    apply_split(view, store, moves, random.Random(2))
    assert_same(dump(store), expected_search(model))
    found = store.connection.execute("SELECT path, bytes FROM directories WHERE ino = ?", (a,))
    assert found.fetchall() == [("/c/x", 300_000)]
    found = store.connection.execute("SELECT ino FROM directories WHERE path = '/c/x/d7'")
    assert found.get == model.dirents[a, b"d7"].ino
    assert store.connection.pragma("integrity_check") == "ok"
    indexes = store.connection.execute("SELECT name FROM sqlite_schema WHERE type = 'index'")
    assert "directories_path" in {name for (name,) in indexes}
    store.close()


def test_moves_among_other_changes_may_make_the_index_of_paths_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search_tree, "MANY", 1)
    for seed in range(3):
        model, records = history(seed, 300)
        view, store = opened(tmp_path, f"{seed}.db")
        apply_split(view, store, records, random.Random(seed))
        assert_same(dump(store), expected_search(model))
        store.close()
        (tmp_path / "history.db").unlink()


def test_swapped_directories_in_one_batch(tmp_path: Path) -> None:
    model = NamespaceModel()
    records = [model.format()]
    for name in (b"a", b"b"):
        records.append(model.mkdir(1, name))
        ino = model.dirents[1, name].ino
        records.append(model.mkdir(ino, b"in-" + name))
        records.append(model.create(model.dirents[ino, b"in-" + name].ino, b"file"))
    view, store = opened(tmp_path)
    apply_split(view, store, records, random.Random(1))
    a = model.dirents[1, b"a"].ino
    inner = model.dirents[a, b"in-a"].ino
    both = [
        model.exchange((1, b"a"), (1, b"b")),
        model.rename(a, b"in-a", 1, b"out"),  # then the parent goes below what was inside it
        model.rename(1, b"b", inner, b"deep"),
    ]
    store.write(lambda c: view.apply(batch_of(both), c), batch_of(both).cursor)
    assert_same(dump(store), expected_search(model))
    store.close()


def batch_of(records: list[Record]) -> Batch:
    return Batch(lines_of(records), Cursor(records[-1].epoch, records[-1].position))


def test_tree_reclaimed_top_down_leaves_nothing(tmp_path: Path) -> None:
    model = NamespaceModel()
    records = [model.format(), model.mkdir(1, b"a")]
    a = model.dirents[1, b"a"].ino
    records += [model.mkdir(a, b"b"), model.create(a, b"f")]
    inner = model.dirents[a, b"b"].ino
    records += [model.create(inner, b"g"), model.rename(1, b"a", TRASH, b"1")]
    for key in ((TRASH, b"1"), (a, b"f"), (a, b"b"), (inner, b"g")):
        records.append(model.unlink(*key))
    view, store = opened(tmp_path)
    apply_split(view, store, records, random.Random(5))
    assert_same(dump(store), expected_search(model))
    store.close()


def test_deletions_say_who_and_what_and_survive(tmp_path: Path) -> None:
    model = NamespaceModel()
    records = [model.format(), model.mkdir(1, b"a")]
    a = model.dirents[1, b"a"].ino
    records += [model.create(a, b"x\xff"), model.create(a, b"y")]
    records += [model.commit(model.dirents[a, b"y"].ino, 777)]
    records += [model.rename(a, b"y", a, b"z"), model.unlink(a, b"z")]
    records += [model.rename(a, b"x\xff", TRASH, b"9")]
    view, store = opened(tmp_path)
    apply_split(view, store, records, random.Random(1))
    store.close()
    view, again = opened(tmp_path)
    (tmp_path / "search.db").unlink()
    past = again._history
    assert past is not None
    found = past.connection.execute(
        "SELECT directory, name, size, to_trash, uid, host FROM deletions ORDER BY time_ns"
    ).fetchall()
    assert found == [
        ("/a", "z", 777, 0, 1000, "host"),
        ("/a", text_of(b"x\xff"), 0, 1, 1000, "host"),
    ]
    growth = past.connection.execute("SELECT sum(created), sum(bytes_added) FROM growth").fetchone()
    assert growth == (5, 777)
    again.close()


def test_a_directory_made_where_a_removed_one_stood_in_one_batch(tmp_path: Path) -> None:
    """What goes takes its own subdirectories along, not those of the new one."""
    c = Cluster()
    a = c.client("/a")
    old = a.mkdir(b"d")
    a.mkdir(b"old", old)
    before = len(c.log)
    a.do(m.RemoveTree(ROOT_INO, b"d"))
    new = a.mkdir(b"d")
    a.mkdir(b"new", new)
    view, store = opened(tmp_path)
    for records in (c.records()[:before], c.records()[before:]):
        batch = Batch(lines_of(records), Cursor(1, records[-1].position))
        store.write(lambda connection, batch=batch: view.apply(batch, connection), batch.cursor)  # type: ignore[misc]
    paths = {path for (path,) in store.connection.execute("SELECT path FROM directories")}
    assert paths == {
        "",
        "<orphans>",
        "<trash>",
        f"<trash>/{old:016x}",
        f"<trash>/{old:016x}/old",
        "/d",
        "/d/new",
    }
    store.close()
    c.tables.close()


def test_a_loaded_view_has_every_index_and_finds_names(tmp_path: Path) -> None:
    model, records = history(5, 200)
    view, live = opened(tmp_path)
    apply_split(view, live, records, random.Random(5))
    rebuilt = SqliteStore(tmp_path / "new.db", view.schema, view.format)
    load(view, rebuilt, snapshot_of(model), random.Random(5))
    schema = "SELECT type, name, sql FROM sqlite_schema ORDER BY type, name"
    assert (
        rebuilt.connection.execute(schema).fetchall() == live.connection.execute(schema).fetchall()
    )
    rebuilt.connection.execute("INSERT INTO names (names, rank) VALUES ('integrity-check', 1)")
    found = "SELECT d.name FROM names n JOIN dirents d ON d.id = n.rowid WHERE n.name LIKE '%lph%'"
    assert sorted(rebuilt.connection.execute(found)) == sorted(live.connection.execute(found))
    live.close()
    rebuilt.close()


def test_a_view_loaded_goes_on_with_changes(tmp_path: Path) -> None:
    model, _ = history(6, 200)
    view = SearchView(config(tmp_path))
    store = view.open_store(tmp_path / "search.db", None)
    assert isinstance(store, SqliteStore)
    load(view, store, snapshot_of(model), random.Random(6))
    rng = random.Random(7)
    apply_split(view, store, [random_step(model, rng) for _ in range(200)], rng)
    assert_same(dump(store), expected_search(model))
    store.close()
