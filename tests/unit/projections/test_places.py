"""Paths that are remembered are those that the asker's transaction sees."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from bench.namespace_model import NamespaceModel
from gfs.ids import TRASH_INO
from projections import analytics_places
from projections.analytics_places import Places
from projections.storage import DuckStore
from projections.worker import View
from tests.unit.projections.analytics import analytics_view, asking
from tests.unit.projections.views import apply_split


@pytest.fixture
def scene(tmp_path: Path) -> tuple[NamespaceModel, View]:
    """/a/b/f of 100 bytes, and a view of it."""
    model = NamespaceModel()
    records = [model.format(), model.mkdir(1, b"a")]
    a = model.dirents[1, b"a"].ino
    records.append(model.mkdir(a, b"b"))
    b = model.dirents[a, b"b"].ino
    records.append(model.create(b, b"f"))
    records.append(model.commit(model.dirents[b, b"f"].ino, 100))
    return model, analytics_view(tmp_path, records)


def store_of(view: View) -> DuckStore:
    assert isinstance(view.store, DuckStore)
    return view.store


def test_a_transaction_from_before_a_rename_has_the_old_path(
    scene: tuple[NamespaceModel, View],
) -> None:
    model, view = scene
    store, places = store_of(view), Places()
    a = model.dirents[1, b"a"].ino
    b = model.dirents[a, b"b"].ino
    with store.snapshot() as (old, _):
        assert places.paths(old, [b, 1]) == {b: "/a/b", 1: ""}
        apply_split(view.projection, store, [model.rename(1, b"a", 1, b"z")], random.Random(1))
        with store.snapshot() as (new, _):
            assert places.paths(new, [b]) == {b: "/z/b"}
            assert places.paths(old, [b]) == {b: "/a/b"}
            assert places.paths(new, [b]) == {b: "/z/b"}
    moved = model.rename(1, b"z", int(TRASH_INO), b"%016x" % a)
    apply_split(view.projection, store, [moved], random.Random(1))
    with store.snapshot() as (new, _):
        assert places.paths(new, [b, 77]) == {b: f"<trash>/{a:016x}/b"}
    store.close()


def test_after_a_rename_only_what_was_renamed_is_read_again(
    scene: tuple[NamespaceModel, View], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, view = scene
    store, places = store_of(view), Places()
    a = model.dirents[1, b"a"].ino
    b = model.dirents[a, b"b"].ino
    with store.snapshot() as (connection, _):
        assert places.paths(connection, [b]) == {b: "/a/b"}
    monkeypatch.setattr(analytics_places, "_CLIMB", "SELECT error('climbed')")
    steps = (
        (model.rename(1, b"a", 1, b"z"), "/z/b"),
        (model.mkdir(1, b"a"), "/z/b"),
        (model.rename(a, b"b", 1, b"y"), "/y"),
        (model.rename(1, b"y", model.dirents[1, b"a"].ino, b"b"), None),
    )
    for record, path in steps:
        apply_split(view.projection, store, [record], random.Random(1))
        if path is not None:
            with store.snapshot() as (connection, _):
                assert places.paths(connection, [b]) == {b: path}
    monkeypatch.undo()
    with store.snapshot() as (connection, _):
        assert places.paths(connection, [b]) == {b: "/a/b"}
    store.close()


def test_what_is_remembered_is_bounded(
    scene: tuple[NamespaceModel, View], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(analytics_places, "KNOWN_MAX", 1)
    model, view = scene
    store, places = store_of(view), Places()
    b = model.dirents[model.dirents[1, b"a"].ino, b"b"].ino
    with store.snapshot() as (connection, _):
        for _ in range(3):
            assert places.paths(connection, [b]) == {b: "/a/b"}
    store.close()


async def test_the_largest_file_has_the_path_it_has_now(
    scene: tuple[NamespaceModel, View],
) -> None:
    """Its own name changes, then a directory above it; then it has two names, then none."""
    model, view = scene
    store = store_of(view)
    a = model.dirents[1, b"a"].ino
    b = model.dirents[a, b"b"].ino
    ino = model.dirents[b, b"f"].ino
    orphan = model.set(ino, size=100)  # an open file keeps its inode when its name has gone
    steps = (
        (model.rename(b, b"f", b, b"g"), "/a/b/g"),
        (model.rename(1, b"a", 1, b"c"), "/c/b/g"),
        (model.link(ino, 1, b"h"), "/h"),
        (model.commit(ino, 300), "/h"),
        (model.unlink(1, b"h"), "/c/b/g"),
        (orphan, "/c/b/g"),
    )
    async with asking(view) as ask:
        for record, path in steps:
            apply_split(view.projection, store, [record], random.Random(1))
            (row,) = await ask.rows("/report/largest", n=1)
            assert (row["path"], row["ino"]) == (path, ino)
    store.close()


def test_a_directory_made_and_renamed_before_either_is_worked_in(tmp_path: Path) -> None:
    """Whoever was told its first name is told the other one, also when it is worked in."""
    model = NamespaceModel()
    view = analytics_view(tmp_path, [model.format()])
    projection, store = view.projection, view.store
    assert isinstance(store, DuckStore)
    projection.settle(store)
    apply_split(projection, store, [model.mkdir(1, b"a")], random.Random(1))
    ino = model.dirents[1, b"a"].ino
    early, late = Places(), Places()
    for places in (early, late):
        with store.snapshot() as (connection, _):
            assert places.paths(connection, [ino]) == {ino: "/a"}
    apply_split(projection, store, [model.rename(1, b"a", 1, b"b")], random.Random(1))
    with store.snapshot() as (connection, _):
        assert early.paths(connection, [ino]) == {ino: "/b"}
    projection.settle(store)
    for places in (early, late):
        with store.snapshot() as (connection, _):
            assert places.paths(connection, [ino]) == {ino: "/b"}
    store.close()
