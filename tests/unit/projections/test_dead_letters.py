"""A record that cannot be applied is put aside with its error; all others take effect."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from bench.namespace_model import EPOCH, NamespaceModel
from gfs.changes import Cursor, Line
from gfs.records import Record
from projections.analytics_view import AnalyticsView
from projections.core.dead_letters import suspects
from projections.core.following import Batch, SourceDiffers
from projections.projection import Projection
from projections.search_view import SearchView
from projections.writer import LETTERS_MAX, Writer
from tests.logcheck import ExpectLog
from tests.unit.projections.views import config, history, lines_of, snapshot_of

VIEWS = [SearchView, pytest.param(AnalyticsView, marks=pytest.mark.slow)]


class _Touchy(Exception):
    pass


def touchy(base: type[Projection], bad: set[int]) -> type[Projection]:
    """A view that raises for records of these positions, when half of one is done."""

    class Touchy(base):  # type: ignore[misc,valid-type]
        def apply(self, batch: Batch, connection: Any) -> None:
            super().apply(batch, connection)
            _refuse(batch.lines, bad)

    return Touchy


def _refuse(lines: list[Line], bad: set[int]) -> None:
    for line in lines:
        if position_of(line) in bad:
            raise _Touchy(f"cannot take {line.cursor}")


def position_of(line: Line) -> int:
    return int(line.cursor.partition("-")[2].partition(".")[0])


def written(projection: Projection, directory: Path, records: list[Record], size: int) -> Writer:
    """A writer that took the records in batches of `size`; its store is open."""
    store = projection.open_store(directory / f"view{projection.suffix}", None)
    writer = Writer(projection, projection.config, store, retry_s=(0, 0))
    for at in range(0, len(records), size):
        part = records[at : at + size]
        writer.write(Batch(lines_of(part), Cursor(EPOCH, part[-1].position)))
    return writer


def names(writer: Writer) -> set[str]:
    store: Any = writer.store
    return {row[0] for row in store.connection.execute("SELECT name FROM dirents").fetchall()}


@pytest.mark.parametrize("base", VIEWS)
@pytest.mark.parametrize("size", [1, 7, 100])
def test_all_but_the_bad_records_take_effect(
    tmp_path: Path, base: type[Projection], size: int, expect_log: ExpectLog
) -> None:
    expect_log("^view[.]put_aside", times=4)
    model = NamespaceModel()
    records = [model.format(), model.mkdir(1, b"d")]
    parent = model.dirents[1, b"d"].ino
    records += [model.create(parent, b"f%d" % number) for number in range(30)]
    bad = {records[number].position for number in (5, 6, 20, 31)}
    writer = written(touchy(base, bad)(config(tmp_path)), tmp_path, records, size)
    lost = {f"f{number - 2}" for number in (5, 6, 20, 31)}
    assert names(writer) == {"d", *(f"f{number}" for number in range(30))} - lost
    assert writer.store.cursor.position == records[-1].position
    assert {position_of(Line("", cursor=one.cursor)) for one in writer.letters} == bad
    assert all("_Touchy: cannot take" in one.error for one in writer.letters)
    assert all('"f' in one.events for one in writer.letters)
    assert suspects(writer.letters) == ["/d"]
    writer.store.close()


def test_what_was_put_aside_is_known_after_a_restart(tmp_path: Path, expect_log: ExpectLog) -> None:
    expect_log("^view[.]put_aside", times=1)
    _, records = history(3, 60)
    projection = touchy(SearchView, {records[30].position})(config(tmp_path))
    writer = written(projection, tmp_path, records, 25)
    letters = writer.letters
    writer.store.close()
    store = projection.open_store(tmp_path / "view.db", None)
    assert len(letters) == 1
    assert Writer(projection, projection.config, store).letters == letters
    store.close()


def test_item_of_a_snapshot_may_be_bad_too(tmp_path: Path, expect_log: ExpectLog) -> None:
    expect_log("^view[.]put_aside", times=1)
    model, _ = history(4, 80)
    lines = snapshot_of(model)
    bad = random.Random(1).choice([line for line in lines if line.table == "dirents"])

    class Choosy(SearchView):
        def apply(self, batch: Batch, connection: Any) -> None:
            super().apply(batch, connection)
            if bad in batch.lines:
                raise _Touchy

    projection = Choosy(config(tmp_path))
    store = projection.open_store(tmp_path / "view.db", None)
    writer = Writer(projection, projection.config, store, retry_s=())
    writer.write(Batch(lines, Cursor(9, 9), snapshot=True))
    assert len(writer.letters) == 1
    assert len(names(writer)) >= len({name for _, name in model.dirents}) - 1
    assert store.cursor == Cursor(9, 9)
    store.close()


@pytest.mark.parametrize("base", VIEWS)
def test_history_goes_on_without_the_record_it_cannot_take(
    tmp_path: Path, base: type[Projection], expect_log: ExpectLog
) -> None:
    expect_log("^view[.]put_aside", times=1)
    model = NamespaceModel()
    records = [model.format(), *(model.create(1, b"f%d" % number) for number in range(10))]
    bad = {records[4].position}

    class Forgetful(base):  # type: ignore[misc,valid-type]
        history_delay_s = 0.0

        def record(self, lines: list[Line], history: Any, connection: Any) -> None:
            super().record(lines, history, connection)
            _refuse(lines, bad)

    projection: Projection = Forgetful(config(tmp_path))
    path = tmp_path / f"view{projection.suffix}"
    store: Any = projection.open_store(path, tmp_path / f"past{projection.suffix}")
    writer = Writer(projection, projection.config, store, retry_s=())
    cursor = Cursor(EPOCH, records[-1].position)
    writer.write(Batch(lines_of(records), cursor))
    assert writer.history_cursor == store.cursor == cursor
    assert len(names(writer)) == 10
    assert len(writer.letters) == len(store.letters()) == 1
    store.close()


def test_failure_that_passes_puts_nothing_aside(tmp_path: Path) -> None:
    left = [2]

    class Unlucky(SearchView):
        def apply(self, batch: Batch, connection: Any) -> None:
            super().apply(batch, connection)
            if left[0]:
                left[0] -= 1
                raise _Touchy

    _, records = history(5, 40)
    writer = written(Unlucky(config(tmp_path)), tmp_path, records, 100)
    assert writer.letters == []
    assert writer.store.cursor.position == records[-1].position
    writer.store.close()


@pytest.mark.parametrize("error", [OSError("no space"), SourceDiffers("0 inodes")])
def test_failure_of_the_host_or_of_the_whole_view_is_nobodys_dead_letter(
    tmp_path: Path, error: Exception
) -> None:
    class Hosted(SearchView):
        def apply(self, batch: Batch, connection: Any) -> None:
            raise error

    projection = Hosted(config(tmp_path))
    store = projection.open_store(tmp_path / "view.db", None)
    writer = Writer(projection, projection.config, store, retry_s=(0,))
    _, records = history(6, 5)
    with pytest.raises(type(error)):
        writer.write(Batch(lines_of(records), Cursor(EPOCH, records[-1].position)))
    assert writer.letters == store.letters() == []
    store.close()


@pytest.mark.slow
def test_view_that_takes_nothing_at_all_gives_up(tmp_path: Path, expect_log: ExpectLog) -> None:
    expect_log("^view[.]put_aside", times=LETTERS_MAX)
    model = NamespaceModel()
    records = [model.format(), *(model.create(1, b"%d" % one) for one in range(LETTERS_MAX + 50))]
    everything = {record.position for record in records}
    projection = touchy(SearchView, everything)(config(tmp_path))
    store = projection.open_store(tmp_path / "view.db", None)
    writer = Writer(projection, projection.config, store, retry_s=())
    with pytest.raises(_Touchy):
        writer.write(Batch(lines_of(records), Cursor(EPOCH, records[-1].position)))
    assert len(writer.letters) == LETTERS_MAX
    store.close()
