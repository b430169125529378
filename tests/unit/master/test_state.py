"""The state: tables by key, order and index; transactions, readers, identity, damage."""

from __future__ import annotations

import random
from functools import partial
from pathlib import Path

import apsw
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gfs import errors
from gfs.items import (
    CHUNKS,
    CHUNKS_BY_SESSION,
    CHUNKS_BY_STATE,
    DIRENTS,
    EXTENTS,
    EXTENTS_BY_HANDLE,
    INODES,
    LINKS_BY_INO,
    LOCKS,
    META,
    QUOTAS,
    TABLES,
    Chunk,
    ChunkKind,
    ChunkState,
    Dirent,
    Extent,
    Inode,
    Key,
    Lock,
    Meta,
    Quota,
)
from master import schema
from master import state as state_module
from master.core.tables import Tables
from master.state import MemoryTables, State, open_reader


def _inode(size: int = 0) -> Inode:
    return Inode(0o100644, 1, 2, 1, size, 3, 4, 5, attributes={b"user.\xff": b"\0"})


def _chunk(state: ChunkState, session: int = 0) -> Chunk:
    return Chunk(1, ChunkKind.PRIVATE, state, 3, session=session)


@pytest.fixture
def tables() -> MemoryTables:
    return MemoryTables()


def test_an_item_comes_back_as_it_was_put(tables: Tables) -> None:
    tables.put(INODES, (1,), _inode())
    tables.put(DIRENTS, (1, b"\xff\0name"), Dirent(7, 0o100000))
    tables.put(META, (b"goal",), Meta(3))
    assert tables.get(INODES, (1,)) == _inode()
    assert tables.get(DIRENTS, (1, b"\xff\0name")) == Dirent(7, 0o100000)
    assert tables.get(META, (b"goal",)) == Meta(3)
    assert tables.get(INODES, (2,)) is None
    tables.put(INODES, (1,), _inode(9))
    assert tables.get(INODES, (1,)) == _inode(9)
    tables.delete(INODES, (1,))
    tables.delete(INODES, (1,))
    assert tables.get(INODES, (1,)) is None


def test_many_at_once_are_what_they_are_one_by_one_in_the_order_of_their_keys(
    tables: Tables,
) -> None:
    tables.put_many(INODES, (((ino,), _inode(ino)) for ino in (5, 3, 9)))
    tables.put_many(INODES, [((3,), _inode(30))])
    assert tables.get_many(INODES, [9, 4, 3]) == [(3, _inode(30)), (9, _inode(9))]
    assert tables.get_many(INODES, []) == []
    names = [(7, b"b"), (2, b"\xff"), (7, b"a"), (4, b"x")]
    tables.put_many(DIRENTS, [(key, Dirent(key[0] + 1, 0o100000)) for key in names])
    expected = tables.range(DIRENTS, 2) + tables.range(DIRENTS, 7)
    assert tables.range_many(DIRENTS, [7, 2, 1]) == expected
    assert [key for key, _ in expected] == [(2, b"\xff"), (7, b"a"), (7, b"b")]
    assert tables.by_index(LINKS_BY_INO, 5) == [(4, b"x")]
    assert tables.by_index(LINKS_BY_INO, 8) == [(7, b"a"), (7, b"b")]


def test_a_range_is_ordered_and_bounded(tables: Tables) -> None:
    for offset in (30, 0, 20, 10):
        tables.put(EXTENTS, (5, offset), Extent(10, 1, offset))
    tables.put(EXTENTS, (6, 0), Extent(1, 1, 0))
    whole = tables.range(EXTENTS, 5)
    assert [key for key, _ in whole] == [(5, 0), (5, 10), (5, 20), (5, 30)]
    assert whole[1][1] == Extent(10, 1, 10)
    assert [key for key, _ in tables.range(EXTENTS, 5, after=0, before=30)] == [(5, 10), (5, 20)]
    assert [key for key, _ in tables.range(EXTENTS, 5, after=0, limit=1)] == [(5, 10)]
    assert tables.floor(EXTENTS, (5, 19)) == ((5, 10), Extent(10, 1, 10))
    assert tables.floor(EXTENTS, (5, 20)) == ((5, 20), Extent(10, 1, 20))
    assert tables.floor(EXTENTS, (7, 20)) is None


def test_a_scan_walks_the_whole_table_in_pages(tables: Tables) -> None:
    keys = [(parent, b"%d" % name) for parent in (1, 2, 9) for name in range(5)]
    for key in reversed(keys):
        tables.put(DIRENTS, key, Dirent(1, 0))
    seen: list[Key] = []
    after: Key | None = None
    while page := tables.scan(DIRENTS, after=after, limit=4):
        seen += [key for key, _ in page]
        after = page[-1][0]
    assert seen == keys
    assert tables.count(DIRENTS) == 15


def test_an_index_follows_its_table_and_leaves_zero_out(tables: Tables) -> None:
    tables.put(DIRENTS, (1, b"b"), Dirent(7, 0))
    tables.put(DIRENTS, (1, b"a"), Dirent(7, 0))
    tables.put(DIRENTS, (2, b"c"), Dirent(8, 0))
    assert tables.by_index(LINKS_BY_INO, 7) == [(1, b"a"), (1, b"b")]
    assert tables.by_index(LINKS_BY_INO, 7, limit=1) == [(1, b"a")]
    assert tables.by_index(LINKS_BY_INO, 7, after=(1, b"a")) == [(1, b"b")]
    tables.put(DIRENTS, (1, b"a"), Dirent(8, 0))
    tables.delete(DIRENTS, (1, b"b"))
    assert tables.by_index(LINKS_BY_INO, 7) == []
    assert tables.by_index(LINKS_BY_INO, 8) == [(1, b"a"), (2, b"c")]
    tables.put(CHUNKS, (1,), _chunk(ChunkState.OPEN, 4))
    tables.put(CHUNKS, (2,), _chunk(ChunkState.SEALED, 4))
    assert tables.by_index(CHUNKS_BY_STATE, ChunkState.OPEN) == [(1,)]
    assert tables.by_index(CHUNKS_BY_STATE, ChunkState.SEALED) == []
    assert tables.by_index(CHUNKS_BY_SESSION, 4) == [(1,), (2,)]
    assert tables.by_index(CHUNKS_BY_SESSION, 4, after=(1,)) == [(2,)]


_operations = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 5), st.one_of(st.none(), st.integers(0, 3))),
    max_size=60,
)


@settings(max_examples=60, deadline=None)
@given(_operations)
def test_tables_equal_a_dictionary(operations: list[tuple[int, int, int | None]]) -> None:
    tables, model = MemoryTables(), dict[tuple[int, int], Extent]()
    for partition, sort, handle in operations:
        if handle is None:
            tables.delete(EXTENTS, (partition, sort))
            model.pop((partition, sort), None)
        else:
            item = Extent(sort, handle, partition)
            tables.put(EXTENTS, (partition, sort), item)
            model[partition, sort] = item
    assert tables.scan(EXTENTS) == sorted(model.items())
    for handle in range(1, 4):
        expected = sorted(key for key, item in model.items() if item.handle == handle)
        assert tables.by_index(EXTENTS_BY_HANDLE, handle) == expected
    assert tables.verify() == []
    tables.close()


def test_a_rollback_takes_items_and_position_back(tmp_path: Path) -> None:
    state = State(tmp_path / "state", "c1")
    state.begin()
    state.put(INODES, (1,), _inode(1))
    state.set_position(1, 1)
    state.commit()
    state.begin()
    state.put(INODES, (1,), _inode(2))
    state.put(DIRENTS, (1, b"a"), Dirent(2, 0))
    state.set_position(2, 1)
    state.rollback()
    assert state.get(INODES, (1,)) == _inode(1)
    assert state.by_index(LINKS_BY_INO, 2) == []
    assert state.position == 1
    state.close()
    state = State(tmp_path / "state", "c1")
    assert (state.position, state.epoch) == (1, 1)
    state.close()


def test_a_reader_sees_what_is_committed_and_nothing_else(tmp_path: Path) -> None:
    state = State(tmp_path / "state", "c1")
    reader = state.reader()
    state.begin()
    state.put(INODES, (1,), _inode(1))
    state.set_position(1, 3)
    assert reader.get(INODES, (1,)) is None
    assert reader.applied == (0, 0)
    state.commit()
    assert reader.get(INODES, (1,)) == _inode(1)
    with reader.snapshot() as at:
        assert at == (1, 3)
        state.begin()
        state.delete(INODES, (1,))
        state.set_position(2, 3)
        state.commit()
        assert reader.get(INODES, (1,)) == _inode(1)
    assert reader.get(INODES, (1,)) is None
    assert reader.applied == (2, 3)
    reader.close()
    state.close()


def test_a_long_read_transaction_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = State(tmp_path / "state", "c1")
    state.begin()
    for number in range(30_000):
        state.put(EXTENTS, (number % 7, number), Extent(1, 1, 1))
    state.commit()
    reader = open_reader(state.path)
    monkeypatch.setattr(state_module, "READ_TRANSACTION_S", 0.0)
    with pytest.raises(errors.Overloaded), reader.snapshot():
        reader.count(EXTENTS)
    monkeypatch.undo()
    with reader.snapshot():
        assert reader.count(EXTENTS) == 30_000
    reader.close()
    state.close()


def test_the_wal_starts_over_after_it_was_copied_back(tmp_path: Path) -> None:
    state = State(tmp_path / "state", "c1")
    sizes = []
    for round_number in range(6):
        for number in range(20):
            state.begin()
            state.put(INODES, (number + 1,), _inode(round_number))
            state.commit()
        progress = state.checkpoint_wal()
        assert progress.frames == progress.copied
        sizes.append((tmp_path / "state-wal").stat().st_size)
    assert len(set(sizes[1:])) == 1
    state.close()


def test_a_long_wal_starts_over_although_writes_never_pause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the copy and the next transaction there is always one more: the worst case."""
    monkeypatch.setattr(state_module, "WAL_FRAMES_MAX", 50)
    state = State(tmp_path / "state", "c1")
    frames = []
    for number in range(40):
        state.begin()
        state.put(INODES, (number + 1,), _inode())
        state.commit()
        state.begin()
        state.put(INODES, (number + 1,), _inode(1))
        frames.append(state.checkpoint_wal().frames)  # while a transaction is open
        state.commit()
    assert max(frames) < 80
    assert state.verify() == []
    state.close()


def test_strangers_newer_formats_and_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "state"
    State(path, "c1").close()
    with pytest.raises(errors.WrongCluster, match="c1"):
        State(path, "c2")
    connection = apsw.Connection(str(path))
    connection.pragma("user_version", schema.FORMAT + 1)
    connection.close()
    with pytest.raises(errors.NewerFormat):
        State(path, "c1")
    (tmp_path / "text").write_bytes(b"not a database at all, " * 300)
    with pytest.raises(errors.Corrupt):
        State(tmp_path / "text", "c1")
    other = apsw.Connection(str(tmp_path / "other"))
    other.execute("CREATE TABLE t (x)")
    other.close()
    with pytest.raises(errors.Corrupt):
        State(tmp_path / "other", "c1")


def test_an_older_format_is_upgraded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "state"
    State(path, "c1").close()
    known = schema.FORMAT
    monkeypatch.setattr(schema, "FORMAT", known + 2)
    steps = {known: "CREATE TABLE added (x)", known + 1: "ALTER TABLE added ADD COLUMN y"}

    def upgrade(sql: str, connection: apsw.Connection) -> None:
        connection.execute(sql)

    for number, sql in steps.items():
        monkeypatch.setitem(schema.UPGRADES, number, partial(upgrade, sql))
    State(path, "c1").close()
    connection = apsw.Connection(str(path))
    assert connection.pragma("user_version") == known + 2
    assert connection.execute("SELECT count(*) FROM pragma_table_info('added')").get == 2
    connection.close()


def test_a_state_of_format_1_gets_the_tables_it_lacks(tmp_path: Path) -> None:
    path = tmp_path / "state"
    State(path, "c1").close()
    connection = apsw.Connection(str(path))
    connection.execute("DROP TABLE quotas; PRAGMA user_version = 1")
    connection.close()
    state = State(path, "c1")
    state.put(QUOTAS, (7,), Quota(bytes_max=1))
    assert state.verify() == []
    state.close()


def test_a_state_from_before_there_were_locks_gets_their_table(tmp_path: Path) -> None:
    path = tmp_path / "state"
    state = State(path, "c1")
    state.put(INODES, (1,), _inode())
    state.close()
    connection = apsw.Connection(str(path))
    connection.execute("DROP TABLE locks")
    connection.pragma("user_version", 2)
    connection.close()
    state = State(path, "c1")
    lock = Lock(3, 1, shared=False, since_ns=5, uid=0, pid=0)
    state.put(LOCKS, (1, 9), lock)
    assert state.get(LOCKS, (1, 9)) == lock
    assert state.get(INODES, (1,)) == _inode()
    assert state.verify() == []
    state.close()


def test_verify_names_items_that_cannot_be_read_or_disagree(tmp_path: Path) -> None:
    state = State(tmp_path / "state", "c1")
    state.put(DIRENTS, (1, b"a"), Dirent(7, 0))
    state.put(INODES, (1,), _inode())
    assert state.verify() == []
    connection = apsw.Connection(str(state.path))
    connection.execute("UPDATE dirents SET ino = 8")
    connection.execute("UPDATE inodes SET item = x'c1'")
    problems = state.verify()
    assert len(problems) == 2
    assert any("dirents (1, b'a'): indexed (8,), item has (7,)" in text for text in problems)
    connection.close()
    state.close()


def test_verify_finds_damaged_pages(tmp_path: Path) -> None:
    state = State(tmp_path / "state", "c1")
    state.begin()
    for number in range(2000):
        state.put(INODES, (number,), _inode())
    state.commit()
    state.close()
    content = bytearray((tmp_path / "state").read_bytes())
    middle = len(content) // 2
    content[middle : middle + 4096] = random.Random(1).randbytes(4096)
    (tmp_path / "state").write_bytes(content)
    state = State(tmp_path / "state", "c1")
    assert state.verify(thorough=False)
    state.close()


def test_every_table_has_a_schema_that_fits_its_key(tables: Tables) -> None:
    for table in TABLES.values():
        assert tables.count(table.name) == 0
        assert tables.scan(table.name) == []
