"""What the analytics view keeps besides items is what the items say, however they came about."""

from __future__ import annotations

import random
from itertools import product
from pathlib import Path

import duckdb
import pytest

from bench.namespace_model import EPOCH, NamespaceModel
from gfs.changes import Cursor, Image
from projections import analytics_fresh_state, analytics_kept, analytics_large
from projections.analytics_large import LARGE
from projections.analytics_largest import Largest
from projections.analytics_view import AnalyticsView
from projections.core.counting import AGES, DAY_NS, SIZES, counted, keys_of
from projections.core.following import Batch, files_of, items_of
from projections.duck_rows import put
from projections.storage import DuckStore
from tests.unit.projections.analytics import analytics_view, asking
from tests.unit.projections.views import (
    apply_split,
    config,
    history,
    lines_of,
    load,
    snapshot_of,
)


def differences(connection: duckdb.DuckDBPyConnection) -> list[str]:
    return [f"{one.kind}: {one.text}" for one in analytics_kept.contradictions(connection)]


def in_counts(connection: duckdb.DuckDBPyConnection) -> int:
    ((rows,),) = connection.execute("SELECT count(*) FROM counts").fetchall()
    return int(rows)


@pytest.mark.parametrize("large", [4, 4000])
def test_kept_follows_every_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, large: int
) -> None:
    monkeypatch.setattr(analytics_large, "LARGE_FILES", large)
    monkeypatch.setattr(analytics_kept, "COUNTS_ROWS", 60)
    _, records = history(large, 500)
    view = analytics_view(tmp_path, records)
    assert view.store is not None
    with view.store.snapshot() as (connection, _):
        assert differences(connection) == []
    view.store.close()


def test_kept_of_a_loaded_view_goes_on(tmp_path: Path) -> None:
    model, _ = history(3, 200)
    settings = config(tmp_path)
    projection = AnalyticsView(settings)
    store = projection.open_store(tmp_path / "a.duckdb", None)
    load(projection, store, snapshot_of(model), random.Random(2))
    with store.snapshot() as (connection, _):
        assert differences(connection) == []
        assert in_counts(connection) > 10
    store.close()


def test_differences_are_added_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(analytics_kept, "COUNTS_ROWS", -1_000_000)
    monkeypatch.setattr(analytics_fresh_state, "SETTLE_S", 0.0)
    _, records = history(8, 60)
    view = analytics_view(tmp_path, records)
    assert view.store is not None
    with view.store.snapshot() as (connection, _):
        keys = connection.execute(
            "SELECT count(DISTINCT (of, key, extension)) FROM counts"
        ).fetchall()
        assert keys == [(in_counts(connection),)]
    view.store.close()


def test_what_a_transaction_changed_is_asked_again_after_it_was_undone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A commit that fails leaves the bound of the largest files as it was."""
    monkeypatch.setattr(analytics_large, "LARGE_FILES", 4)
    monkeypatch.setattr(analytics_fresh_state, "SETTLE_S", 0.0)
    model, records = history(21, 300)
    view = analytics_view(tmp_path, records)
    store, projection = view.store, view.projection
    assert isinstance(store, DuckStore)
    bound = "SELECT least FROM large_from"
    before = store.connection.execute(bound).fetchall()
    names = [b"big%d" % number for number in range(20)]
    added = [model.create(1, name) for name in names]
    added += [model.commit(model.dirents[1, name].ino, 1 << 40) for name in names]
    batch = Batch(lines_of(added), Cursor(EPOCH, model.position))

    def fails(connection: duckdb.DuckDBPyConnection) -> None:
        projection.apply(batch, connection)
        assert connection.execute(bound).fetchall() != before
        raise RuntimeError("undone")

    with pytest.raises(RuntimeError, match="undone"):
        store.write(fails, batch.cursor)
    assert store.connection.execute(bound).fetchall() == before
    for record in added:
        apply_split(projection, store, [record], random.Random(1))
        assert differences(store.connection) == []
    store.close()


def test_times_and_bytes_stored_come_back_whatever_they_are(tmp_path: Path) -> None:
    model = NamespaceModel()
    first = [model.format(), model.create(1, b"f")]
    ino = model.dirents[1, b"f"].ino
    view = analytics_view(tmp_path, first)
    assert isinstance(view.store, DuckStore)
    sql = "SELECT atime_ns, mtime_ns, stored FROM inodes WHERE ino = $1"
    times = (0, 5, -(1 << 63), (1 << 63) - 1)
    for atime, mtime, stored in product(times, times, (0, 70, 100, 1 << 50)):
        record = model.set(ino, size=100, stored=stored, atime_ns=atime, mtime_ns=mtime)
        apply_split(view.projection, view.store, [record], random.Random(1))
        rows = view.store.connection.execute(sql, [ino]).fetchall()
        assert rows == [(atime, mtime, stored)]
    view.store.close()


async def test_histograms_of_all_and_of_the_root_say_the_same(tmp_path: Path) -> None:
    """One from what is kept, the other from the inodes; a tree leaves out the trash."""
    model = NamespaceModel()
    records = [model.format(), *(model.create(1, b"f%d" % number) for number in range(40))]
    for number in range(40):
        ino = model.dirents[1, b"f%d" % number].ino
        records.append(model.commit(ino, number * number * 37))
    view = analytics_view(tmp_path, records)
    async with asking(view) as ask:
        for name, of in (("sizes", {}), *(("ages", {"of": of}) for of in AGES)):
            whole = await ask.rows(f"/report/{name}", **of)
            assert whole == await ask.rows(f"/report/{name}", path="/", **of)
            assert sum(row["files"] for row in whole) == 40
    assert view.store is not None
    view.store.close()


async def test_largest_are_the_same_from_few_and_from_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(analytics_large, "LARGE_FILES", 12)
    _, records = history(12, 400)
    view = analytics_view(tmp_path, records)
    assert view.store is not None
    view.projection.settle(view.store)
    with view.store.snapshot() as (connection, _):
        ((kept,),) = connection.execute("SELECT count(*) FROM large").fetchall()
    assert 6 <= kept <= 36
    async with asking(view) as ask:
        few = await ask.rows("/report/largest", n=6)
        assert few == (await ask.rows("/report/largest", n=1000))[:6]
    view.store.close()


def test_the_largest_are_told_right_whatever_was_told_before() -> None:
    """Files grow, shrink, come and go between answers; several are of one size."""
    rng = random.Random(3)
    largest = Largest()
    with duckdb.connect() as connection:
        connection.execute(f"{LARGE}; CREATE VIEW large AS FROM main_large")
        for number in range(120):
            if rng.random() < 0.3:
                connection.execute("DELETE FROM main_large WHERE ino % 7 = ?", [rng.randrange(7)])
            rows = [(number * 10 + one, rng.randrange(30), 0, 0, 0, 1, 1, "") for one in range(3)]
            put(connection, "main_large", rows)
            sizes = connection.execute("SELECT ino, size FROM large").fetchall()
            for wanted in (1, 4, 20):
                right = sorted(sizes, key=lambda row: (-row[1], row[0]))[:wanted]
                found = largest.rows(connection, wanted)
                if len(right) < wanted:
                    assert found is None
                else:
                    assert found is not None
                    assert [row[2:4] for row in found] == right


def test_counts_of_a_batch_are_those_of_its_records_one_by_one() -> None:
    _, records = history(5, 300)
    sums: dict[tuple[str, int], list[int]] = {}
    for record in records:
        for key, (files, size) in counted(files_of(items_of(lines_of([record])))).items():
            one = sums.setdefault(key, [0, 0])
            one[0] += files
            one[1] += size
    assert {key: one for key, one in sums.items() if any(one)} == counted(
        files_of(items_of(lines_of(records)))
    )


def test_a_file_that_only_grew_counts_once_more_nowhere() -> None:
    old = Image(mode=0o100644, size=5, mtime_ns=3 * DAY_NS)
    new = Image(mode=0o100644, size=7, mtime_ns=3 * DAY_NS)
    found = counted([(9, old, new)])
    assert found[SIZES, 4] == [0, 2]
    assert found["mtime", 3] == [0, 2]


@pytest.mark.parametrize("size", [0, 1, 2, 3, 4, 1023, 1024, (1 << 48) - 1, (1 << 53) - 1, 1 << 62])
def test_sizes_count_at_a_power_of_two_here_and_in_sql(tmp_path: Path, size: int) -> None:
    with duckdb.connect() as connection:
        connection.execute(analytics_kept.KEPT)
        assert connection.execute("SELECT power_of(?::BIGINT)", [size]).fetchall() == [
            (keys_of(Image(size=size))[0],)
        ]
