"""Sums by extension, kept from batch to batch, are what the names and inodes say."""

from __future__ import annotations

import random
from pathlib import Path

import duckdb
import pytest

from bench.namespace_model import NamespaceModel
from gfs.records import Record
from projections import analytics_fresh_state, analytics_kept
from projections.analytics_names import Change
from projections.analytics_schema import SCHEMA
from projections.analytics_view import apply_items
from projections.core.following import files_of, items_of
from projections.core.naming import ByExtension, by_extension, names_of, suffix_of
from projections.search_schema import extension_of
from tests.unit.projections.analytics import analytics_view, asking
from tests.unit.projections.views import history, lines_of

NAMES = (
    "a.txt", "A.TXT", "a.b.c", ".hidden", "..x", ".x.y", "x.", "x..", "noext", "", "a\n.b", "\n.b",
    "a.b\n", "a. b", "a." + "x" * 16, "a." + "x" * 17, "a." + "é" * 16, "ΑΣ.ΣΑΣ", "ß.ẞ", "İ.İ",
)  # fmt: skip


def changes_of(*records: Record) -> ByExtension:
    """Of a batch of the last of these records."""
    items = items_of(lines_of(records)[-len(records[-1].changes) :])
    return by_extension(items, files_of(items), names_of(items))


def test_a_suffix_is_an_extension_before_it_is_lowered(tmp_path: Path) -> None:
    with duckdb.connect() as connection:
        connection.execute(SCHEMA)
        sql = "SELECT extension_of(?), lower(?)"
        for name in NAMES:
            row = connection.execute(sql, [name, suffix_of(name)]).fetchone()
            assert row is not None
            assert row[0] == row[1], name
            assert extension_of(name) == suffix_of(name).lower()


def test_a_batch_tells_most_changes_itself() -> None:
    model = NamespaceModel()
    first, made = model.format(), model.create(1, b"a.TXT")
    ino = model.dirents[1, b"a.TXT"].ino
    assert changes_of(first, made).known == {"TXT": [1, 0, 0]}
    grown = changes_of(first, made, model.commit(ino, 700))
    assert (grown.known, grown.resized, grown.asked) == ({}, [(ino, 700, 1024)], [])
    renamed = changes_of(first, model.rename(1, b"a.TXT", 1, b"b.c"))
    assert renamed.known == {"TXT": [-1, -700, -1024], "c": [1, 700, 1024]}
    assert changes_of(first, model.set(ino, mode=0o100600)) == ByExtension()
    assert changes_of(first, model.unlink(1, b"b.c")).known == {"c": [-1, -700, -1024]}


def test_files_with_several_links_are_asked_for() -> None:
    model = NamespaceModel()
    first = model.format()
    model.create(1, b"b.x")
    ino = model.dirents[1, b"b.x"].ino
    assert changes_of(first, model.link(ino, 1, b"a.y")).asked == [ino]
    assert changes_of(first, model.commit(ino, 9)).asked == [ino]
    assert changes_of(first, model.rename(1, b"a.y", 1, b"c.z")).asked == [ino]
    assert changes_of(first, model.unlink(1, b"b.x")).asked == [ino]


def test_names_that_change_without_their_inodes_are_asked_for() -> None:
    model = NamespaceModel()
    first = model.format()
    model.create(1, b"a.x")
    model.create(1, b"b.y")
    one, two = (model.dirents[1, name].ino for name in (b"a.x", b"b.y"))
    record = model.exchange((1, b"a.x"), (1, b"b.y"))
    assert sorted(changes_of(first, record).asked) == sorted([one, two])


@pytest.mark.parametrize("seed", [21, 22])
def test_sums_are_added_up_in_time_and_stay_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Whatever the number of extensions, rows are bounded by twice that."""
    monkeypatch.setattr(analytics_kept, "COUNTS_ROWS", 5)
    monkeypatch.setattr(analytics_fresh_state, "SETTLE_S", 0.0)
    model, records = history(seed, 150)
    records += [model.create(1, b"odd.%d" % number) for number in range(100)]
    view = analytics_view(tmp_path, records)
    assert view.store is not None
    with view.store.snapshot() as (connection, _):
        assert list(analytics_kept.contradictions(connection)) == []
        ((rows, sums),) = connection.execute(
            "SELECT (SELECT count(*) FROM counts), sums FROM counts_from"
        ).fetchall()
        assert sums > 40
        assert rows <= 2 * sums + 5
    view.store.close()


async def test_extensions_of_all_and_of_the_root_say_the_same(tmp_path: Path) -> None:
    """One from what is kept, the other from names and inodes; a tree leaves out the trash."""
    model = NamespaceModel()
    names = [b"f%d.%d" % (number, number % 7) for number in range(40)]
    records = [model.format(), model.mkdir(1, b"d.x"), *(model.create(1, one) for one in names)]
    for number, name in enumerate(names):
        records.append(model.commit(model.dirents[1, name].ino, number * 100))
    view = analytics_view(tmp_path, records)
    async with asking(view) as ask:
        for report, values in (("extensions", {}), ("sums", {"by": "extension"})):
            whole = await ask.rows(f"/report/{report}", **values)
            tree = await ask.rows(f"/report/{report}", path="/", **values)
            if report == "sums":  # the trash is an inode too, outside the root's tree
                whole = [row for row in whole if row["extension"]]
                tree = [row for row in tree if row["extension"]]
            assert whole == tree
            assert len(whole) == 7
    assert view.store is not None
    view.store.close()


def test_names_of_a_file_with_several_are_known_before_a_batch_and_after_it() -> None:
    """The row of the one that goes is found by its number."""
    model = NamespaceModel()
    first, made = model.format(), model.create(1, b"b.x")
    ino = model.dirents[1, b"b.x"].ino
    linked, cut = model.link(ino, 1, b"a.y"), model.unlink(1, b"a.y")
    with duckdb.connect() as connection:
        connection.execute(SCHEMA)
        apply_items(items_of(lines_of([first, made, linked])), connection)
        lines = lines_of([first, made, linked, cut])[-len(cut.changes) :]
        change = Change(items_of(lines), connection)
        assert change.knows(ino)
        assert (change.before(ino), change.after(ino)) == ("y", (1, "b.x"))
        assert change.extension_after(ino) == "x"
        change.remove_names()
        left = connection.execute("SELECT name FROM dirents WHERE ino = $1", [ino]).fetchall()
        assert left == [("b.x",)]


@pytest.mark.parametrize("seed", [31, 32, 33])
def test_a_file_of_several_names_counts_at_the_least_of_them(tmp_path: Path, seed: int) -> None:
    """Names come, go and change places, some in one batch with others."""
    model = NamespaceModel()
    rng = random.Random(seed)
    records = [model.format(), *(model.mkdir(1, name) for name in (b"d", b"e"))]
    directories = [1, model.dirents[1, b"d"].ino, model.dirents[1, b"e"].ino]
    names = [b"f%d.%d" % (number, number) for number in range(6)]
    records += [model.create(rng.choice(directories), name) for name in names]
    for number in range(120):
        files = [key for key, one in model.dirents.items() if key[1][:1] == b"f"]
        parent, name = rng.choice(files)
        ino = model.dirents[parent, name].ino
        place = rng.choice(directories), b"f%d.%d" % (number + 10, rng.randrange(5))
        roll = rng.randrange(4)
        if roll == 0:
            records.append(model.link(ino, *place))
        elif roll == 1:
            records.append(model.rename(parent, name, *place))
        elif roll == 2 and len(files) > 5:
            records.append(model.unlink(parent, name))
        else:
            records.append(model.commit(ino, rng.randrange(9000)))
    view = analytics_view(tmp_path, records)
    assert view.store is not None
    with view.store.snapshot() as (connection, _):
        assert list(analytics_kept.contradictions(connection)) == []
    view.store.close()
