"""The start of a master: a healthy state, brought up to the end of the log.

The state is used if it opens, its pages are in order, and the log goes on where
it ends. Else it is moved aside, the newest whole checkpoint takes its place, and
the log's records since are applied. (A power loss may leave a state from before the
checkpoint up to which the log was cut: the WAL is synced now and then only.)
A state of another cluster or a newer release is not damage: it is refused.
Nothing is ever removed that could still be looked at by a person.
Source: GFS §2.6.3 (recovery from the latest complete checkpoint and the log).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from gfs import errors
from gfs.disk import Disk, make_directory
from gfs.ids import MIB
from master.checkpoint import Checkpoint, newest_whole
from master.core.tables import Tables
from master.log import OperationLog
from master.segments import LogDamaged
from master.state import State

log = logging.getLogger(__name__)

Apply = Callable[[Tables, bytes], None]

REPLAY_RECORDS = 500  # in one transaction
_BESIDE = ("-wal", "-shm", "-journal")


@dataclass(frozen=True)
class Recovered:
    """A state equal to the whole log, and how it came to be."""

    state: State
    checkpoint: Checkpoint | None  # what the state was restored from, if it was
    replayed: int  # records applied
    cut_bytes: int  # of a torn tail of the log


def open_state(
    path: Path,
    cluster_id: str,
    operation_log: OperationLog,
    apply: Apply,
    *,
    disk: Disk,
    checkpoints: Path,
    vfs: str | None = None,
    exclusive: bool = False,
    begins_at: int | None = None,
) -> Recovered:
    """Open the state and the log, in whatever condition a crash has left them.

    Args:
      apply: changes the tables as one record's payload says.
      checkpoints: their directory.
      vfs, exclusive: as `State` takes them.
      begins_at: first position of a log that may be empty, though the state is not.

    Raises:
      LogDamaged: a durable record is lost; the text names it.
      WrongCluster, NewerFormat: the files are not ours to open.
    """
    make_directory(disk, path.parent)
    state = _open_healthy(path, cluster_id, disk, vfs, exclusive)
    checkpoint = None
    if state is None:
        checkpoint = _restore(path, disk, checkpoints)
        state = State(path, cluster_id, vfs=vfs, exclusive=exclusive)
    try:
        first = begins_at if begins_at == state.position + 1 else None
        cut_bytes = operation_log.recover(state.position, first_position=first)
        newer = _newer_checkpoint(state, operation_log, disk, checkpoints)
        if newer is not None:
            reason = (
                f"it ends at {state.position}, the log begins at {operation_log.first_position}"
            )
            state.close()
            _put_aside(path, disk, reason)
            checkpoint = _restore(path, disk, checkpoints)
            state = State(path, cluster_id, vfs=vfs, exclusive=exclusive)
        _check_history(state, operation_log)
        replayed = _replay(state, operation_log, apply)
    except BaseException:
        state.close()
        raise
    return Recovered(state, checkpoint, replayed, cut_bytes)


def _open_healthy(
    path: Path, cluster_id: str, disk: Disk, vfs: str | None, exclusive: bool
) -> State | None:
    """The state at `path`; None if there is none or it had to be moved aside."""
    if not disk.exists(path):
        return None
    state = None
    try:
        state = State(path, cluster_id, vfs=vfs, exclusive=exclusive)
        problems = state.verify(thorough=False)
        if not problems:
            return state
        reason = problems[0]
    except errors.Corrupt as error:
        reason = str(error)
    if state is not None:
        state.close()
    _put_aside(path, disk, reason)
    return None


def _newer_checkpoint(
    state: State, operation_log: OperationLog, disk: Disk, checkpoints: Path
) -> Checkpoint | None:
    """Where to go on from if the log has been cut behind the state; None: it has not."""
    if operation_log.first_position <= state.position + 1:
        return None
    found = next(iter(newest_whole(disk, checkpoints)), None)
    if found is None or found.position + 1 < operation_log.first_position:
        return None
    return found if found.position <= operation_log.last_position else None


def _put_aside(path: Path, disk: Disk, reason: str) -> None:
    aside = _move_aside(path, disk)
    log.error("state.damaged path=%s kept_as=%s reason=%s", path, aside, reason)


def _move_aside(path: Path, disk: Disk) -> Path:
    number = 1
    while disk.exists(path.with_name(f"{path.name}.damaged-{number}")):
        number += 1
    aside = path.with_name(f"{path.name}.damaged-{number}")
    for suffix in _BESIDE:
        beside = path.with_name(path.name + suffix)
        if disk.exists(beside):
            disk.rename(beside, aside.with_name(aside.name + suffix))
    disk.rename(path, aside)
    disk.sync_directory(path.parent)
    return aside


def _restore(path: Path, disk: Disk, checkpoints: Path) -> Checkpoint | None:
    """Put the newest whole checkpoint at `path`, if there is any."""
    for suffix in _BESIDE:  # a WAL of another file would be taken for this one's
        beside = path.with_name(path.name + suffix)
        if disk.exists(beside):
            disk.unlink(beside)
    disk.sync_directory(path.parent)
    for checkpoint in newest_whole(disk, checkpoints):
        temporary = path.with_name(path.name + ".restoring")
        _copy_file(disk, checkpoint.path, temporary)
        disk.rename(temporary, path)
        disk.sync_directory(path.parent)
        log.warning("state.restored path=%s checkpoint=%s", path, checkpoint.path)
        return checkpoint
    return None


def _copy_file(disk: Disk, source: Path, destination: Path) -> None:
    reading = disk.open(source)
    writing = disk.open(destination, create=True)
    try:
        writing.truncate(0)
        offset = 0
        while content := reading.pread(4 * MIB, offset):
            writing.pwrite(content, offset)
            offset += len(content)
        writing.fsync()
    finally:
        reading.close()
        writing.close()


def _check_history(state: State, operation_log: OperationLog) -> None:
    """The log continues what the state has applied, of the same history."""
    position = state.position
    if operation_log.first_position > position + 1:
        raise LogDamaged(
            f"records {position + 1} to {operation_log.first_position - 1} are missing:"
            " the log begins later than the state or its newest checkpoint ends"
        )
    if operation_log.first_position <= position:
        epoch = operation_log.epoch_at(position)
        if epoch != state.epoch:
            raise LogDamaged(
                f"record {position} is of epoch {epoch} in the log and {state.epoch} in the state"
            )


def _replay(state: State, operation_log: OperationLog, apply: Apply) -> int:
    """Apply what the log has and the state lacks; return how many records."""
    first, in_transaction = state.position + 1, 0
    for record in operation_log.scan(first):
        if in_transaction == 0:
            state.begin()
        apply(state, record.payload)
        state.set_position(record.position, record.epoch)
        in_transaction += 1
        if in_transaction == REPLAY_RECORDS:
            state.commit()
            in_transaction = 0
    if in_transaction:
        state.commit()
    return state.position + 1 - first
