"""What counts as a difference between view and master, and what is left open."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import apsw
import pytest

from bench.namespace_model import NamespaceModel, random_step
from gfs.changes import Copied, Keys, Line
from projections.core.comparing import (
    LAST_INO,
    Compared,
    Difference,
    Held,
    Touched,
    differences,
    held_by_master,
    held_by_view,
)
from projections.core.rate import Rate
from tests.unit.projections.views import lines_of, snapshot_of

COMPARED = Compared(("uid", "size"), "", "links", "xattrs")


def found(master: dict[int, Held], view: dict[int, Held], *touched: int) -> list[Difference]:
    return list(differences(COMPARED, master, view, Touched(set(touched))))


def held(*columns: int, links: Sequence[tuple[int, str]] = (), **xattrs: str) -> Held:
    return Held(columns or None, set(links), xattrs)


@pytest.mark.parametrize(
    ("master", "view", "kind", "text"),
    [
        (held(1, 2), Held(), "missing", "does not have"),
        (Held(), held(1, 2), "surplus", "master does not have"),
        (held(1, 2), held(1, 3), "attributes", "size is 3, not 2"),
        (held(1, 2, links=[(1, "a")]), held(1, 2), "links", "name (1, 'a') is missing"),
        (held(1, 2), held(1, 2, links=[(1, "a")]), "links", "name (1, 'a') is too many"),
        (held(1, 2, user="x"), held(1, 2, user="y"), "xattrs", "('user', 'x') is missing"),
    ],
)
def test_each_kind_of_difference_is_told(master: Held, view: Held, kind: str, text: str) -> None:
    (one,) = found({7: master}, {7: view})
    assert (one.kind, one.ino) == (kind, 7)
    assert text in one.text
    assert found({7: master}, {7: master}) == found({7: view}, {7: view}) == []


def test_what_changed_in_between_is_left_open() -> None:
    master, view = {7: held(1, 2), 8: held(1, 2)}, {7: held(1, 3), 8: held(1, 3)}
    assert [one.ino for one in found(master, view, 7)] == [8]
    touched = Touched()
    copy = Copied(1, 1, "c", 100, 100, 20, -1, 0, [], [])
    for line in (Line("copy", "inodes", copy=copy), Line("modify", "inodes", keys=Keys(ino=5))):
        touched.take(line)
    assert [ino for ino in (4, 5, 99, 100, 119, 120) if ino in touched] == [5, 100, 119]


def test_names_are_about_the_inodes_they_lead_to_and_led_to() -> None:
    model = NamespaceModel()
    records = [model.format(), model.create(1, b"a"), model.create(1, b"b")]
    first, second = (model.dirents[1, name].ino for name in (b"a", b"b"))
    records.append(model.rename(1, b"a", 1, b"b"))
    touched = Touched()
    for line in lines_of(records[-1:]):
        touched.take(line)
    assert first in touched
    assert second in touched


def test_a_view_of_the_same_items_differs_in_nothing() -> None:
    """Rows in SQLite against lines as the master gives them."""
    model = NamespaceModel()
    rng = random.Random(4)
    model.format()
    for _ in range(200):
        random_step(model, rng)
    lines = snapshot_of(model)
    connection = apsw.Connection(":memory:")
    connection.execute("CREATE TABLE i (ino, uid, size); CREATE TABLE d (ino, parent, name)")
    for line in lines:
        keys, new = line.keys, line.new
        assert keys is not None
        assert new is not None
        row: tuple[Any, ...] = (keys.ino, new.uid, new.size)
        table = "i" if line.table == "inodes" else "d"
        row = row if table == "i" else (new.ino, keys.parent, keys.name)
        connection.execute(f"INSERT INTO {table} VALUES (?, ?, ?)", row)
    where = "WHERE ino > ? AND ino <= ?"
    compared = Compared(("uid", "size"), f"SELECT * FROM i {where}", f"SELECT * FROM d {where}")
    master = held_by_master(lines, compared)
    assert len(master) == len(model.inodes)

    def rows(sql: str, bound: Sequence[int]) -> Any:
        return connection.execute(sql, bound).fetchall()

    view = held_by_view(compared, 0, LAST_INO, rows)
    assert list(differences(compared, master, view, Touched())) == []
    middle = sorted(master)[len(master) // 2]
    upper = held_by_view(compared, middle, LAST_INO, rows)
    assert upper == {ino: one for ino, one in view.items() if ino > middle}


def test_rate_is_that_of_the_window() -> None:
    rate = Rate(10)
    for second in range(20):
        rate.add(second, 100)
    assert rate.per_s(19) == 100
    assert rate.per_s(24) == 50
    assert rate.per_s(40) == 0
