"""The analytics view shows small batches at once, whatever is worked into its large tables when."""

from __future__ import annotations

import random
import stat
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import duckdb
import pytest

from bench.namespace_model import EPOCH, NamespaceModel
from gfs.changes import Cursor
from gfs.records import Record
from projections import analytics_fresh_state, analytics_kept, analytics_large
from projections.analytics_view import AnalyticsView
from projections.core.following import Batch
from projections.storage import DuckStore
from tests.unit.projections.analytics import analytics_view, asking
from tests.unit.projections.views import config, history, lines_of, load, snapshot_of

VIEWS = ("inodes", "dirents", "xattrs", "directories", "files", "homes")


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is worked in because time has passed."""
    monkeypatch.setattr(analytics_fresh_state, "SETTLE_S", 1e9)


def opened(directory: Path) -> tuple[AnalyticsView, DuckStore]:
    projection = AnalyticsView(config(directory))
    store = projection.open_store(directory / "a.duckdb", None)
    assert isinstance(store, DuckStore)
    return projection, store


def worked_in(
    directory: Path, seed: int, count: int
) -> tuple[NamespaceModel, AnalyticsView, DuckStore]:
    """A view of so many random operations, in which nothing is fresh."""
    model, records = history(seed, count)
    projection, store = opened(directory)
    write(projection, store, *records)
    projection.settle(store)
    return model, projection, store


def batch_of(*records: Record) -> Batch:
    return Batch(lines_of(records), Cursor(EPOCH, records[-1].position))


def write(projection: AnalyticsView, store: DuckStore, *records: Record) -> None:
    batch = batch_of(*records)
    store.write(lambda connection: projection.apply(batch, connection), batch.cursor)


def dump(connection: duckdb.DuckDBPyConnection) -> dict[str, list[Any]]:
    found = {name: connection.execute(f"FROM {name}").fetchall() for name in VIEWS}
    found["counts"] = connection.execute(analytics_kept.ADDED_UP).fetchall()
    return {name: sorted(rows, key=repr) for name, rows in found.items()}


def loaded(directory: Path, model: NamespaceModel) -> dict[str, list[Any]]:
    """What a view that is built of the model as it is shows."""
    directory.mkdir()
    projection, store = opened(directory)
    load(projection, store, snapshot_of(model), random.Random(1))
    found = dump(store.connection)
    store.close()
    return found


def held(store: DuckStore) -> int:
    """Rows that are fresh."""
    ((rows,),) = store.connection.execute("SELECT count(*) FROM fresh").fetchall()
    return int(rows)


def differences(store: DuckStore) -> list[str]:
    return [f"{one.kind}: {one.text}" for one in analytics_kept.contradictions(store.connection)]


def busy(model: NamespaceModel, rng: random.Random, count: int) -> Iterable[Record]:
    """Changes of files as most are: new ones, growth, other names, removals, xattrs."""
    files = [key for key, one in model.dirents.items() if not model.inodes[one.ino].is_directory]
    for number in range(count):
        roll = rng.random()
        parent, name = at = rng.choice(files) if files else (1, b"")
        if roll < 0.4 or len(files) < 5:
            files.append((1, b"n%d.%c%d" % (number, rng.choice(b"abcd"), model.position)))
            yield model.create(*files[-1])
        elif roll < 0.65:
            yield model.commit(model.dirents[at].ino, rng.randrange(100_000))
        elif roll < 0.7:
            yield model.set(model.dirents[at].ino, attributes={b"user.a": b"%d" % number})
        elif roll < 0.85:
            to = (1, b"r%d.%c%d" % (number, rng.choice(b"abcd"), model.position))
            files[files.index(at)] = to
            yield model.rename(parent, name, *to)
        elif roll < 0.88:
            yield model.mkdir(1, b"d%d-%d" % (number, model.position))
        else:
            files.remove(at)
            yield model.unlink(parent, name)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_what_is_fresh_is_shown_as_if_it_were_worked_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setattr(analytics_large, "LARGE_FILES", 12)
    model, _ = history(seed, 200)
    projection, store = opened(tmp_path)
    load(projection, store, snapshot_of(model), random.Random(seed))
    rng, most = random.Random(seed), 0
    for number in range(15):
        records = list(busy(model, rng, rng.choice((1, 3, 10))))
        write(projection, store, *records)
        most = max(most, held(store))
        assert differences(store) == [], number
        assert dump(store.connection) == loaded(tmp_path / str(number), model)
    assert most > 10
    projection.settle(store)
    assert held(store) == 0
    assert differences(store) == []
    assert dump(store.connection) == loaded(tmp_path / "end", model)
    store.close()


@pytest.mark.parametrize("seed", [4, 5, 6])
def test_anything_may_come_between(tmp_path: Path, seed: int) -> None:
    """Links, moved directories and copies are worked in at once, with what was fresh before."""
    rng = random.Random(seed)
    model, records = history(seed, 400)
    projection, store = opened(tmp_path)
    shown, at = 0, 0
    while at < len(records):
        part = records[at : at + rng.choice((1, 2, 9))]
        at += len(part)
        write(projection, store, *part)
        shown += held(store) > 0
        assert differences(store) == []
    assert shown > 25
    assert dump(store.connection) == loaded(tmp_path / "end", model)
    store.close()


@pytest.mark.parametrize("kind", [stat.S_IFREG, stat.S_IFLNK, stat.S_IFIFO])
def test_whatever_has_several_names_is_shown_with_all_of_them(tmp_path: Path, kind: int) -> None:
    """Its least name too, among the largest; here it gets, loses and gets one while it is fresh."""
    model = NamespaceModel()
    projection, store = opened(tmp_path)
    write(projection, store, model.format(), model.create(1, b"m", kind | 0o644))
    projection.settle(store)
    ino = model.dirents[1, b"m"].ino
    for number, step in enumerate((
        partial(model.link, ino, 1, b"z"),
        partial(model.set, ino, size=70),
        partial(model.link, ino, 1, b"a"),
        partial(model.rename, 1, b"m", 1, b"n"),
        partial(model.unlink, 1, b"a"),
        partial(model.unlink, 1, b"n"),
    )):  # fmt: skip
        write(projection, store, step())
        assert held(store) > 0
        assert differences(store) == []
        assert dump(store.connection) == loaded(tmp_path / str(number), model)
    store.close()


def test_a_view_opened_anew_takes_the_place_of_its_main_tables(tmp_path: Path) -> None:
    """What was fresh when it was killed is told again by the stream."""
    model, projection, store = worked_in(tmp_path, 7, 100)
    settled, before = store.cursor, dump(store.connection)
    more = [model.create(1, b"x%d.c" % number) for number in range(5)]
    for record in more:
        write(projection, store, record)
    assert held(store) > 5
    store.close()  # as a kill would leave it: nobody settles

    projection, store = opened(tmp_path)
    assert store.cursor == settled
    assert dump(store.connection) == before
    write(projection, store, *more)
    assert dump(store.connection) == loaded(tmp_path / "end", model)
    projection.settle(store)
    store.close()
    projection, store = opened(tmp_path)
    assert store.cursor == Cursor(EPOCH, model.position)
    store.close()


@pytest.mark.parametrize("when", ["fresh", "settling"])
def test_a_transaction_that_fails_loses_and_doubles_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    model, projection, store = worked_in(tmp_path, 8, 100)
    rng = random.Random(8)
    for _ in range(30):
        write(projection, store, *busy(model, rng, 3))
    assert held(store) > 0
    lost = list(busy(model, rng, 4))
    if when == "settling":
        monkeypatch.setattr(analytics_fresh_state, "SETTLE_S", 0.0)

    def fails(connection: duckdb.DuckDBPyConnection) -> None:
        projection.apply(batch_of(*lost), connection)
        raise RuntimeError("undone")

    for _ in range(2):
        with pytest.raises(RuntimeError, match="undone"):
            store.write(fails, Cursor(EPOCH, model.position))
    assert differences(store) == []
    write(projection, store, *lost)
    write(projection, store, *busy(model, rng, 5))
    assert differences(store) == []
    assert dump(store.connection) == loaded(tmp_path / "end", model)
    store.close()


def test_whoever_reads_sees_one_moment(tmp_path: Path) -> None:
    """A transaction that began before a batch, or before it is worked in, sees nothing of it."""
    model, projection, store = worked_in(tmp_path, 9, 60)
    with store.snapshot() as (first, _):
        before = dump(first)
        write(projection, store, model.create(1, b"new"))
        assert dump(first) == before
    with store.snapshot() as (second, _):
        fresh = dump(second)
        assert fresh != before
        projection.settle(store)
        assert dump(second) == fresh
    assert dump(store.connection) == fresh
    store.close()


async def test_reports_count_what_is_fresh(tmp_path: Path) -> None:
    """Of a file that grew under another extension than it has now, and of one that is gone."""
    model = NamespaceModel()
    first = [model.format(), model.create(1, b"a.log"), model.create(1, b"b.log")]
    ino = model.dirents[1, b"a.log"].ino
    first += [model.commit(ino, 500), model.commit(model.dirents[1, b"b.log"].ino, 40)]
    view = analytics_view(tmp_path, first)
    projection, store = view.projection, view.store
    assert isinstance(projection, AnalyticsView)
    assert isinstance(store, DuckStore)
    projection.settle(store)
    for record in (
        model.commit(ino, 5_000),
        model.rename(1, b"a.log", 1, b"a.txt"),
        model.commit(ino, 60_000),
        model.unlink(1, b"b.log"),
        model.create(1, b"c.gz"),
    ):
        write(projection, store, record)
    assert held(store) > 0
    async with asking(view) as ask:
        rows = await ask.rows("/report/extensions")
        assert {row["extension"]: (row["files"], row["bytes"]) for row in rows} == {
            "txt": (1, 60_000),
            "gz": (1, 0),
        }
        (largest, *_) = await ask.rows("/report/largest", n=2)
        assert (largest["path"], largest["size"]) == ("/a.txt", 60_000)
    store.close()


def test_the_bound_of_the_largest_may_move_while_fresh_lines_are_worked_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What comes with them is compared with the new one."""
    monkeypatch.setattr(analytics_large, "LARGE_FILES", 4)
    model = NamespaceModel()
    projection, store = opened(tmp_path)
    write(projection, store, model.format())
    projection.settle(store)
    for number in range(40):
        name = b"f%d" % number
        write(projection, store, model.create(1, name))
        write(projection, store, model.commit(model.dirents[1, name].ino, 100 + number))
    monkeypatch.setattr(analytics_fresh_state, "SETTLE_S", 0.0)
    low = model.create(1, b"low")
    write(projection, store, low, model.commit(model.dirents[1, b"low"].ino, 50))
    assert held(store) == 0
    assert differences(store) == []
    store.close()
