"""Which appends a replica takes, and where they land.

Two kinds arrive. `Append` names the offset, which must be the replica's end: a
private chunk has one writer, and a secondary takes exactly what its primary
took. `RecordAppend` comes to the primary of a tail chunk, which chooses the
offset: records of one writer are numbered from 1 within the chunk, so "landed
before" and "one is missing" are plain comparisons. A batch lands whole or not
at all.

Nothing changes state here: the shell writes the bytes first, then tells the
machine that they `landed`.

Source: GFS §3.3. Departs: exactly once instead of at least once.
"""

from __future__ import annotations

from msgspec import Struct

from chunkd.core.replica import Replica, Role
from gfs.errors import ChunkFull, InvalidArgument, NotPrimary, SequenceGap
from gfs.ids import WRITERS_MAX
from gfs.messages import Append, RecordAppend


class Landing(Struct):
    """Bytes to be written at `offset`, with the entry of the side log that covers them.

    `asker` is the shell's: whom to answer and where the bytes are.
    """

    replica: Replica
    asker: object
    offset: int
    end: int
    checksum: int
    writer: int
    sequence: int
    records: bool  # asked by RecordAppend
    sync: bool = False


def decide_append(asker: object, replica: Replica, message: Append, length: int) -> Landing:
    """Where `length` bytes go that were sent for a certain offset.

    Raises:
      StaleVersion, Fenced: see `Replica.refuse_unless_open`.
      SequenceGap: `offset` is not the end; what came before was refused or came twice.
      ChunkFull: they do not fit.
      MemberFailed: a later member failed at this version.
    """
    _refuse_if_failed(replica, message.version)
    offset = message.offset
    if offset != replica.end:
        raise SequenceGap(f"chunk {replica.handle:016x} ends at {replica.end}, not {offset}")
    _refuse_if_full(replica, length)
    return Landing(
        replica, asker, offset, offset + length,
        message.checksum, message.writer, message.sequence, False,
    )  # fmt: skip


def decide_records(
    asker: object, replica: Replica, message: RecordAppend, length: int
) -> Landing | None:
    """Where a batch of records goes; None if all of it landed before.

    Raises:
      NotPrimary: no client has joined this replica as the first of its chain.
      SequenceGap: a record before these never came, or the batch was cut anew.
      ChunkFull: no room, or too many writers.
      StaleVersion, Fenced, MemberFailed: as `decide_append`.
    """
    _refuse_if_failed(replica, message.version)
    if replica.role is not Role.PRIMARY or not replica.tail:
        raise NotPrimary(f"not the primary of chunk {replica.handle:016x}")
    first, final = message.first, message.first + message.count - 1
    if message.count < 1 or first < 1 or length < 1:
        raise InvalidArgument("a batch has at least one record, numbered from 1")
    last = replica.writers.get(message.writer, 0)
    if final <= last:
        return None
    if first != last + 1:
        raise SequenceGap(f"writer {message.writer:x} stands at {last}, not before {first}")
    if not last and len(replica.writers) >= WRITERS_MAX:
        raise ChunkFull(f"chunk {replica.handle:016x} has {WRITERS_MAX} writers")
    _refuse_if_full(replica, length)
    offset = replica.end
    return Landing(
        replica, asker, offset, offset + length,
        message.checksum, message.writer, final, True, message.sync,
    )  # fmt: skip


def _refuse_if_failed(replica: Replica, version: int) -> None:
    replica.refuse_unless_open(version)
    if replica.failed is not None:
        raise replica.failed


def _refuse_if_full(replica: Replica, length: int) -> None:
    if replica.end + length > replica.chunk_bytes:
        raise ChunkFull(f"chunk {replica.handle:016x}: {replica.end} + {length} bytes")
