"""A shadow's directory begun anew: the old log and state put aside, a checkpoint in their place.

What was there is kept in `before-N`: it may be all that is left of a lost history. A crash
anywhere in between leaves a note, and the next start then finishes with an empty directory.
"""

from __future__ import annotations

from pathlib import Path

from gfs import errors
from gfs.disk import Disk, make_directory

_BEGIN_NAME = "begins-at"  # first position of the log, which may be empty
_NOTE_NAME = "beginning-anew"
_STATE = "state.db"
_MOVED = (_STATE, f"{_STATE}-wal", f"{_STATE}-shm", f"{_STATE}-journal", "log", "checkpoints")


def begin_of(directory: Path, disk: Disk) -> int | None:
    """Where a log made from a checkpoint begins; None: at its first record.

    Raises:
      Corrupt: the file that says so is damaged.
    """
    path = directory / _BEGIN_NAME
    if not disk.exists(path):
        return None
    file = disk.open(path)
    try:
        return int(file.pread(64, 0))
    except ValueError:
        raise errors.Corrupt(f"{path} names no position") from None
    finally:
        file.close()


def finish(directory: Path, disk: Disk) -> None:
    """At a start: what a crash has left half begun becomes an empty directory."""
    if disk.exists(directory / _NOTE_NAME):
        _put_aside(directory, disk)
        disk.unlink(directory / _NOTE_NAME)
        disk.sync_directory(directory)


def begin_anew(directory: Path, disk: Disk, checkpoint: Path | None, position: int) -> Path:
    """Put log and state aside; what is opened next starts from `checkpoint`, as of `position`.

    All files must be closed. Returns where the old ones are.
    """
    disk.replace_file(directory / _NOTE_NAME, b"")
    aside = _put_aside(directory, disk)
    if checkpoint is not None:
        make_directory(disk, directory / "checkpoints")
        disk.replace_file(directory / _BEGIN_NAME, str(position + 1).encode())
        disk.rename(checkpoint, directory / "checkpoints" / checkpoint.name)
        disk.sync_directory(directory / "checkpoints")
    disk.unlink(directory / _NOTE_NAME)
    disk.sync_directory(directory)
    return aside


def _put_aside(directory: Path, disk: Disk) -> Path:
    number = 1
    while disk.exists(aside := directory / f"before-{number}"):
        number += 1
    make_directory(disk, aside)
    for name in _MOVED:
        if disk.exists(directory / name):
            disk.rename(directory / name, aside / name)
    disk.sync_directory(aside)
    disk.sync_directory(directory)
    return aside
