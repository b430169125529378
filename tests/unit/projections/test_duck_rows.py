"""Rows come out of DuckDB's tables as they went in, by whatever way."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pytest

from projections.core.happenings import Told
from projections.duck_rows import (
    FEW_KEYS,
    FEW_ROWS,
    FLIP,
    Inlet,
    among,
    delete,
    form_of,
    put,
)
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


@pytest.mark.parametrize("count", [1, FEW_KEYS, FEW_KEYS + 1, FEW_ROWS + 1])
@pytest.mark.parametrize("apart", [1, 1 << 40])
def test_just_the_rows_named_go_however_many_and_wherever_they_lie(count: int, apart: int) -> None:
    with duckdb.connect() as connection:
        connection.execute("CREATE TABLE t (ino BIGINT)")
        put(connection, "t", [(number * apart,) for number in range(2 * count + 1)])
        gone = [number * apart for number in range(1, 2 * count, 2)]
        condition, bound = among("ino", gone)
        found = connection.execute(f"SELECT ino FROM t WHERE {condition} ORDER BY ino", bound)
        assert [one for (one,) in found.fetchall()] == gone
        delete(connection, "t", ["ino"], [(one,) for one in gone])
        rows = connection.execute("SELECT ino FROM t ORDER BY ino").fetchall()
        assert rows == [(number * apart,) for number in range(0, 2 * count + 1, 2)]


@pytest.mark.parametrize("count", [1, FEW_ROWS, FEW_ROWS + 1])
def test_rows_of_either_form_come_to_the_same(count: int) -> None:
    flip, zero, empty = form = form_of(count)
    with duckdb.connect() as connection:
        connection.execute("CREATE TABLE t (size BIGINT, rdev BIGINT, word VARCHAR)")
        inlet = Inlet(
            "t",
            {"size": "BIGINT", "rdev": "BIGINT", "word": "VARCHAR"},
            flipped=["size"],
            empty={"rdev": "0", "word": "''"},
            ordered=True,
        )
        rows = ((at, at ^ flip, zero if at % 2 else at, empty) for at in range(count))
        inlet.put(connection, rows, form)
        found = connection.execute("SELECT * FROM t ORDER BY rowid").fetchall()
        assert found == [(at, 0 if at % 2 else at, "") for at in range(count)]


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
