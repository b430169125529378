"""Checkpoints: consistent copies of the state from which a start, or a reader, can begin.

Made in a process of its own (`python -m master.checkpoint STATE DIRECTORY`): one
backup step is one read transaction, so the copy is the state at one position.
It gets its name, which states position, epoch and CRC32C of the file, only when
it has been verified and synced; what has a name is whole. The newest two that
still match their checksum are kept, and the log keeps all records behind the
second of them, so that one checkpoint may rot. Source: GFS §2.6.3.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import apsw

from gfs import errors
from gfs.checksum import crc32c
from gfs.disk import Disk, PosixDisk, make_directory
from gfs.ids import MIB, Epoch, Position
from gfs.items import TABLES, Key
from master.core.tables import AnyItem
from master.schema import APPLICATION_ID, FORMAT
from master.sqlite_tables import SqliteReadTables, translate
from master.state import verify_tables

SUFFIX = ".checkpoint"
KEPT = 2
_PARTIAL_NAME = "making.partial"
_PAGE_ITEMS = 1000  # read at a time by `iterate_items`


@dataclass(frozen=True)
class Checkpoint:
    """A named checkpoint: the state after the record at `position`, of `epoch`."""

    position: Position
    epoch: Epoch
    checksum: int  # CRC32C of the file
    path: Path


def make_checkpoint(
    source: apsw.Connection, directory: Path, disk: Disk, *, vfs: str | None = None
) -> Checkpoint:
    """Copy the state behind `source` to a verified, durable checkpoint in `directory`.

    Takes about a second a hundred megabytes; the state may be written meanwhile,
    but its WAL grows until the copy (the first tenth of this) is done.

    Raises:
      Corrupt: the copy is not in order; nothing is left behind, the state is suspect.
      NoSpace, StorageFailed: the disk; nothing is left behind.
    """
    make_directory(disk, directory)
    partial = directory / _PARTIAL_NAME
    remove_database(disk, partial)
    try:
        disk.open(partial, exclusive=True).close()  # readable by nobody else
        position, epoch = copy_state(source, partial, vfs)
        checksum = _checksum(disk, partial)
        _sync(disk, partial)
        path = directory / f"{position:020d}-{epoch}-{checksum:08x}{SUFFIX}"
        disk.rename(partial, path)
    except errors.GfsError:
        remove_database(disk, partial)
        raise
    disk.sync_directory(directory)
    return Checkpoint(Position(position), Epoch(epoch), checksum, path)


def copy_state(source: apsw.Connection, partial: Path, vfs: str | None) -> tuple[int, int]:
    """Copy all pages in one step, as a single file, and check them.

    Returns:
      position and epoch of the last record applied.

    Raises:
      Corrupt: pages or items are damaged.
      NoSpace, StorageFailed: the disk.
    """
    try:
        copy = apsw.Connection(str(partial), vfs=vfs)
        try:
            copy.pragma("locking_mode", "exclusive")  # nobody else; needs no shared memory
            copy.pragma("synchronous", "off")  # synced as a whole before it gets its name
            with copy.backup("main", source, "main") as backup:
                backup.step(-1)
            copy.pragma("journal_mode", "delete")  # the source's WAL mode was copied too
            problems = verify_tables(copy, thorough=True)
            if problems:
                raise errors.Corrupt(f"the copy is damaged: {'; '.join(problems[:3])}")
            for position, epoch in copy.execute("SELECT position, epoch FROM about"):
                return position, epoch
            raise errors.Corrupt("the copy does not say which position it has applied")
        finally:
            copy.close()
    except apsw.Error as error:
        raise translate(error, f"copy the state to {partial}") from error


def list_checkpoints(disk: Disk, directory: Path) -> list[Checkpoint]:
    """The checkpoints there, newest first; their content is not looked at."""
    if not disk.exists(directory):
        return []
    found = [parse_checkpoint(directory / name) for name in disk.listdir(directory)]
    named = [checkpoint for checkpoint in found if checkpoint is not None]
    return sorted(named, key=lambda checkpoint: (checkpoint.epoch, checkpoint.position))[::-1]


def parse_checkpoint(path: Path) -> Checkpoint | None:
    """What the name of a checkpoint's file says; None if it is no such name."""
    parts = path.name.removesuffix(SUFFIX).split("-")
    if not path.name.endswith(SUFFIX) or len(parts) != 3:
        return None
    try:
        position, epoch, checksum = int(parts[0]), int(parts[1]), int(parts[2], 16)
    except ValueError:
        return None
    return Checkpoint(Position(position), Epoch(epoch), checksum, path)


def is_whole(disk: Disk, checkpoint: Checkpoint) -> bool:
    """Whether the file still is what was verified when it was made."""
    try:
        return _checksum(disk, checkpoint.path) == checkpoint.checksum
    except (errors.NotFound, errors.StorageFailed):
        return False


def newest_whole(disk: Disk, directory: Path, count: int = 1) -> list[Checkpoint]:
    """The newest `count` checkpoints that are whole, newest first."""
    found: list[Checkpoint] = []
    for checkpoint in list_checkpoints(disk, directory):
        if len(found) == count:
            break
        if is_whole(disk, checkpoint):
            found.append(checkpoint)
    return found


def remove_old(disk: Disk, directory: Path) -> list[Checkpoint]:
    """Keep the newest two that are whole; remove, and return, all older ones."""
    kept = newest_whole(disk, directory, KEPT)
    if len(kept) < KEPT:
        return []
    listed = list_checkpoints(disk, directory)
    removed = listed[listed.index(kept[-1]) + 1 :]
    for checkpoint in removed:
        disk.unlink(checkpoint.path)
    if removed:
        disk.sync_directory(directory)
    return removed


def log_floor(disk: Disk, directory: Path) -> int:
    """The log must keep all records from here on: `truncate_before` this and no further.

    It is the first record behind the second newest whole checkpoint; 1 while
    there are fewer than two.
    """
    kept = newest_whole(disk, directory, KEPT)
    return kept[-1].position + 1 if len(kept) == KEPT else 1


def iterate_items(
    checkpoint: Checkpoint, *, vfs: str | None = None
) -> Iterator[tuple[str, Key, AnyItem]]:
    """All items as (table, key, item), tables in the order of `gfs.items.TABLES`.

    Raises: NewerFormat, Corrupt. Removing the checkpoint meanwhile does no harm.
    """
    connection = _open(checkpoint, vfs)
    try:
        _check_format(connection, checkpoint)
        tables = SqliteReadTables(connection)
        for table in _tables_of(connection):
            after: Key | None = None
            while items := tables.scan(table, after=after, limit=_PAGE_ITEMS):
                for key, item in items:
                    yield table, key, item
                after = items[-1][0]
    finally:
        connection.close()


def count_items(checkpoint: Checkpoint, tables: Iterable[str]) -> int:
    """How many items these tables have; raises as `iterate_items`."""
    connection = _open(checkpoint, None)
    try:
        reads, present = SqliteReadTables(connection), _tables_of(connection)
        return sum(reads.count(table) for table in tables if table in present)
    finally:
        connection.close()


def _tables_of(connection: apsw.Connection) -> list[str]:
    """Those of the data model that the file has: one of an older release lacks some."""
    try:
        rows = connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")
        present = {name for (name,) in rows}
    except apsw.Error as error:
        raise translate(error, "read the tables of a checkpoint") from error
    return [table for table in TABLES if table in present]


def _open(checkpoint: Checkpoint, vfs: str | None) -> apsw.Connection:
    flags = apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI
    # Immutable: no locks, no journal looked for, so nothing is written beside it.
    name = f"{checkpoint.path.as_uri()}?immutable=1"
    try:
        return apsw.Connection(name, flags=flags, vfs=vfs)
    except apsw.Error as error:
        raise translate(error, f"open {checkpoint.path}") from error


def _check_format(connection: apsw.Connection, checkpoint: Checkpoint) -> None:
    try:
        owner = connection.pragma("application_id")
        number = connection.pragma("user_version")
    except apsw.Error as error:
        raise translate(error, f"read {checkpoint.path}") from error
    if owner != APPLICATION_ID:
        raise errors.Corrupt(f"{checkpoint.path} is not a checkpoint")
    if number > FORMAT:  # items of older ones are read as the codec reads old items
        raise errors.NewerFormat(f"{checkpoint.path} has format {number}, known is {FORMAT}")


def _checksum(disk: Disk, path: Path) -> int:
    file = disk.open(path)
    try:
        checksum, offset, buffer = 0, 0, bytearray(4 * MIB)
        while length := file.preadv_into(buffer, offset):
            checksum = crc32c(memoryview(buffer)[:length], checksum)
            offset += length
        return checksum
    finally:
        file.close()


def _sync(disk: Disk, path: Path) -> None:
    file = disk.open(path)
    try:
        file.fsync()
    finally:
        file.close()


def remove_database(disk: Disk, path: Path) -> None:
    """Remove a file of SQLite's and those it may have left beside it."""
    for suffix in ("", "-journal", "-wal", "-shm"):
        name = path.with_name(path.name + suffix)
        if disk.exists(name):
            disk.unlink(name)


def main(arguments: list[str]) -> int:
    """Make a checkpoint and remove old ones; prints position, epoch and path."""
    if len(arguments) != 2:
        print("usage: python -m master.checkpoint STATE DIRECTORY", file=sys.stderr)
        return 2
    os.nice(10)  # the master answers first
    state, directory = Path(arguments[0]), Path(arguments[1])
    disk = PosixDisk()
    try:
        source = apsw.Connection(str(state), flags=apsw.SQLITE_OPEN_READONLY)
        source.set_busy_timeout(2000)
        checkpoint = make_checkpoint(source, directory, disk)
        source.close()
        remove_old(disk, directory)
    except (errors.GfsError, apsw.Error) as error:
        print(f"checkpoint: {error}", file=sys.stderr)
        return 1
    print(checkpoint.position, checkpoint.epoch, checkpoint.path)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
