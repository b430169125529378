"""Faults planted in the tables are found, and named with what they are about."""

from __future__ import annotations

import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from gfs.ids import ROOT_INO
from gfs.items import (
    CHUNKS,
    DIRENTS,
    EXTENTS,
    INODES,
    Chunk,
    ChunkKind,
    ChunkState,
    Dirent,
    Extent,
    Inode,
)
from master.check import check_state
from master.checking import Problem, check_tables
from master.state import MemoryTables, State

FILE, DIRECTORY, HANDLE = 10, 11, 77
MODE = stat.S_IFREG | 0o644


def inode(mode: int = MODE, **fields: Any) -> Inode:
    known: dict[str, Any] = {
        "uid": 0, "gid": 0, "nlink": 1, "size": 0, "atime_ns": 0, "mtime_ns": 0, "ctime_ns": 0,
    }  # fmt: skip
    return Inode(mode, **(known | fields))


def sound(tables: MemoryTables | State) -> None:
    """A directory with a file of 100 bytes, which has two names."""
    folder = inode(stat.S_IFDIR | 0o755, nlink=2, parent=ROOT_INO)
    tables.begin()
    tables.put(INODES, (ROOT_INO,), replace(folder, nlink=3))
    tables.put(INODES, (DIRECTORY,), folder)
    tables.put(DIRENTS, (ROOT_INO, b"d"), Dirent(DIRECTORY, stat.S_IFDIR))
    tables.put(INODES, (FILE,), inode(size=100, stored=100, nlink=2))
    for name in (b"f", b"g"):
        tables.put(DIRENTS, (DIRECTORY, name), Dirent(FILE, stat.S_IFREG))
    tables.put(EXTENTS, (FILE, 0), Extent(60, HANDLE, 0))
    tables.put(EXTENTS, (FILE, 60), Extent(40, HANDLE, 500))
    tables.put(CHUNKS, (HANDLE,), chunk())
    tables.commit()


def chunk(**fields: Any) -> Chunk:
    known: dict[str, Any] = {"length": 1000, "references": 100}
    return Chunk(2, ChunkKind.PRIVATE, ChunkState.SEALED, 3, **(known | fields))


def problems_of(tables: MemoryTables) -> list[Problem]:
    found: list[Problem] = []
    check_tables(tables, found.append)
    return found


def changed(table: str, key: tuple[Any, ...], **fields: Any) -> Callable[[MemoryTables], None]:
    def plant(tables: MemoryTables) -> None:
        item: Any = tables.get(table, key)
        tables.put(table, key, replace(item, **fields))

    return plant


def gone(table: str, *key: Any) -> Callable[[MemoryTables], None]:
    return lambda tables: tables.delete(table, key)


@pytest.mark.parametrize(
    ("plant", "kinds", "about"),
    [
        (changed(INODES, (FILE,), nlink=1), ["links"], FILE),
        (changed(INODES, (DIRECTORY,), nlink=3), ["links"], DIRECTORY),
        (changed(INODES, (DIRECTORY,), parent=DIRECTORY), ["parent"], DIRECTORY),
        (changed(INODES, (FILE,), stored=99), ["stored"], FILE),
        (changed(CHUNKS, (HANDLE,), references=99), ["references"], HANDLE),
        (changed(CHUNKS, (HANDLE,), state=ChunkState.CONDEMNED), ["condemned"], HANDLE),
        (changed(CHUNKS, (HANDLE,), length=539), ["lost"], HANDLE),
        (gone(CHUNKS, HANDLE), ["no-chunk"], HANDLE),
        (gone(EXTENTS, FILE, 60), ["stored", "references"], FILE),
        (gone(INODES, FILE), ["dangling-name"] * 2 + ["dangling-extents"], DIRECTORY),
        (gone(DIRENTS, ROOT_INO, b"d"), ["no-name"], DIRECTORY),
    ],
)
def test_each_fault_is_named_with_what_it_is_about(
    plant: Callable[[MemoryTables], None], kinds: list[str], about: int
) -> None:
    tables = MemoryTables()
    sound(tables)
    assert problems_of(tables) == []
    tables.begin()
    plant(tables)
    tables.commit()
    found = problems_of(tables)
    assert [problem.kind for problem in found] == kinds
    assert about in (found[0].ino, found[0].handle)
    tables.close()


def test_the_state_of_a_running_master_is_checked_as_of_one_position(tmp_path: Path) -> None:
    state = State(tmp_path / "state", "c")
    sound(state)
    state.begin()
    state.set_position(5, 1)
    state.commit()
    state.begin()  # what is not committed is not seen
    state.put(INODES, (FILE,), inode(stored=7))
    found = check_state(tmp_path / "state")
    state.rollback()
    assert (found.position, found.total, found.problems) == (5, 0, [])
    assert found.checked == {"inodes": 3, "names": 3, "extents": 2, "chunks": 1}
    state.close()
    assert not list(tmp_path.glob("check-*"))


def test_a_damaged_state_is_a_finding_not_a_crash(tmp_path: Path) -> None:
    path = tmp_path / "state"
    state = State(path, "c")
    sound(state)
    state.begin()
    for number in range(1000, 3000):
        state.put(INODES, (number,), inode())
    state.commit()
    state.checkpoint_wal()
    state.close()
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        file.write(b"\xff" * 4096)
    found = check_state(path)
    assert [problem.kind for problem in found.problems] == ["state"]
