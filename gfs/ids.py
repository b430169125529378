"""Identifiers, sizes and limits that every program shares.

Handles and inode numbers are drawn from ``(epoch << 40) | counter`` so that
nothing handed out by a master whose log tail was lost is handed out again.
"""

from __future__ import annotations

from typing import NewType

Ino = NewType("Ino", int)
ChunkHandle = NewType("ChunkHandle", int)
Version = NewType("Version", int)
Position = NewType("Position", int)
Epoch = NewType("Epoch", int)
SessionId = NewType("SessionId", int)
ServerId = NewType("ServerId", int)
WriterId = NewType("WriterId", int)

ROOT_INO = Ino(1)  # FUSE demands that the root is inode 1
TRASH_INO = Ino(2)  # directory that holds hidden files; not reachable by path
DOT_GFS = b".gfs"  # in the root: what mounts show of their own, so nothing there may be called so
HIDDEN_INO = 1 << 61  # a mount's own numbers begin here; no inode has one as high

EPOCH_SHIFT = 40  # 2**40 numbers per start of a master
EPOCHS_MAX = HIDDEN_INO >> EPOCH_SHIFT  # 2,097,152 starts

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB

CHUNK_BYTES = 64 * MIB  # GFS §2.5
BLOCK_BYTES = 64 * KIB  # checksum unit, GFS §5.2
FRAME_BYTES = 1 * MIB  # payload of one append; smaller frames cost CPU per byte
RECORD_BYTES_MAX = 1_044_480  # one direct_io write(2) is one FUSE WRITE up to here
PACK_BYTES_MAX = 4 * MIB  # files up to here share packed chunks
SIZE_MAX = 1 << 62  # of a file; sums of offsets fit in 64 bits
NAME_BYTES_MAX = 255
PATH_BYTES_MAX = 4096
SYMLINK_BYTES_MAX = 4095
XATTR_BYTES_MAX = 65536
TIME_NS_MAX = (1 << 62) - 1  # in 2116, as far from 1970 as 1823; differences fit in 64 bits
WRITERS_MAX = 4096  # writers of one tail chunk, then it is sealed


def draw(epoch: int, counter: int) -> int:
    """Number `counter` (from 1) of the epoch's range of handles or inodes.

    Raises:
      OverflowError: the epoch has no such number, or there were too many epochs.
    """
    if not 0 < counter < 1 << EPOCH_SHIFT:
        raise OverflowError(f"counter {counter} outside the epoch's range")
    if epoch >= EPOCHS_MAX:
        raise OverflowError(f"epoch {epoch}, at most {EPOCHS_MAX - 1}")
    return epoch << EPOCH_SHIFT | counter
