"""Rows come out of DuckDB's tables as they went in, by whatever way."""

from __future__ import annotations

import random
from itertools import pairwise
from pathlib import Path

import duckdb
import pytest

from projections.core.following import parts
from projections.core.happenings import Told
from projections.duck_rows import FLIP, Inlet, delete, put
from projections.storage import DuckStore
from tests.unit.projections.analytics import analytics_view
from tests.unit.projections.views import history, lines_of

NUMBERS = (0, 1, -1, (1 << 31) - 1, 1 << 31, FLIP - 1, FLIP, FLIP + 5, (1 << 63) - 1, -(1 << 63))


def test_numbers_of_any_size_and_what_is_empty_come_back() -> None:
    columns = {"flipped": "BIGINT", "plain": "BIGINT", "text": "VARCHAR"}
    with duckdb.connect() as connection:
        connection.execute("CREATE TABLE t (flipped BIGINT, plain BIGINT, text VARCHAR, size INT)")
        inlet = Inlet(
            "t",
            columns,
            flipped=["flipped"],
            empty={"text": "''"},
            more=["length(coalesce(text, ''))::INT"],
        )
        inlet.put(connection, [(one ^ FLIP, one, None) for one in NUMBERS])
        inlet.put(connection, [(5 ^ FLIP, 7, "word")])
        rows = connection.execute("SELECT * FROM t").fetchall()
        assert sorted(rows, key=repr) == sorted(
            [*((one, one, "", 0) for one in NUMBERS), (5, 7, "word", 4)], key=repr
        )
        put(connection, "t", [])
        delete(connection, "t", ["plain"], [(one,) for one in NUMBERS])
        assert connection.execute("SELECT plain FROM t").fetchall() == [(7,)]


def test_the_history_has_what_is_told_in_its_order(tmp_path: Path) -> None:
    _, records = history(31, 400)
    told = Told()
    told.add(lines_of(records))
    view = analytics_view(tmp_path, records)
    assert isinstance(view.store, DuckStore)
    rows = view.store.connection.execute(
        "SELECT epoch, position, time_ns, uid, pid, host, mount, ino, event, kind, parent, name,"
        " from_parent, from_name, size, size_before, owner, detail"
        " FROM history.events ORDER BY rowid"
    ).fetchall()
    assert rows == [(*one.occasion, *one[1:]) for one in told.events]
    view.store.close()


@pytest.mark.parametrize("size", [1, 2, 3, 50, 10_000])
def test_parts_are_all_records_and_none_is_cut(size: int) -> None:
    _, records = history(random.Random(size).randrange(100), 60)
    lines = lines_of(records)
    found = list(parts(lines, size))
    assert [line for part in found for line in part] == lines
    assert not any(part[-1].more for part in found)
    for part, _ in pairwise(found):
        assert len(part) >= size
    assert list(parts([], size)) == []
