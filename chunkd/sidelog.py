"""The side log of an open replica: one entry an append, never rewritten.

    0      header block (what this belongs to)
    512    fence slot, 1st, 3rd, ... fence
    1024   fence slot, 2nd, 4th, ...
    4096   entries of 32 bytes: end, CRC32C of the bytes, writer, sequence, own CRC

An entry covers the bytes from the end before it to its own end. The file is
zero-filled ahead, so that a sync of entries changes no metadata. After a crash
the entries are followed as long as each one's own CRC holds and the data
have the CRC it says; there both files are cut. So one structure gives
checksums, record boundaries and the facts for exactly-once appends.

Own CRCs are seeded with the handle: blocks of a deleted file that come back
after a power loss cannot be taken for entries of this one.
"""

from __future__ import annotations

import struct
from pathlib import Path

from chunkd.formats import FENCE, SECTOR_BYTES, SIDE, FenceSlot, SideHeader, open_block, seal_block
from chunkd.sums import BlockSums
from gfs.checksum import crc32c
from gfs.disk import File
from gfs.errors import Corrupt
from gfs.ids import KIB, MIB

ENTRIES_START = 4 * KIB
_ENTRY = struct.Struct("<QIQQ")
_OWN = struct.Struct("<I")
ENTRY_BYTES = _ENTRY.size + _OWN.size
_FIRST_FILL_BYTES = 4 * KIB
_FILL_BYTES = 64 * KIB
_SCAN_BYTES = MIB


class NeverDurable(Corrupt):
    """The power was lost before the first sync: nothing was ever promised of this file."""

    code = "never-durable"


class SideLog:
    """See the module's text.

    Raises, from every method that writes: `NoSpace`, `StorageFailed`.
    """

    __slots__ = ("_filled", "_next", "_seed", "_turn", "file", "header", "lost_something")

    def __init__(self, file: File, header: SideHeader) -> None:
        self.file = file
        self.header = header
        self._seed = crc32c(struct.pack("<Q", header.handle))
        self._next = self._filled = ENTRIES_START
        self._turn = 0
        self.lost_something = False  # `recover` had to cut entries

    @classmethod
    def create(cls, file: File, header: SideHeader) -> SideLog:
        """A new side log in an empty file; not synced."""
        log = cls(file, header)
        file.pwrite(seal_block(SIDE, header).ljust(ENTRIES_START + _FIRST_FILL_BYTES, b"\0"), 0)
        log._filled += _FIRST_FILL_BYTES
        return log

    @classmethod
    def open(cls, file: File, where: Path) -> tuple[SideLog, FenceSlot]:
        """An existing one and the version it is at; call `recover` next.

        Raises:
          NeverDurable: there is no header yet.
          Corrupt: it is damaged.
          NewerFormat: of a newer release.
        """
        first = file.pread(SECTOR_BYTES, 0)
        if not first.strip(b"\0"):
            raise NeverDurable(f"{where}: empty")
        header = open_block(SIDE, first, SideHeader, where)
        log = cls(file, header)
        newest = FenceSlot(0, header.version, fenced=False)
        for number in (1, 2):
            raw = file.pread(SECTOR_BYTES, number * SECTOR_BYTES)
            try:
                slot = open_block(FENCE, raw, FenceSlot, where)
            except Corrupt:
                continue  # empty, or torn by the power loss before it was answered
            if slot.turn > newest.turn:
                newest = slot
        log._turn = newest.turn
        return log, newest

    def append(self, end: int, checksum: int, writer: int, sequence: int) -> None:
        """Write the entry for bytes up to `end`; it counts only once this returns."""
        if self._next + ENTRY_BYTES > self._filled:
            self.file.zero(self._filled, _FILL_BYTES)
            self._filled += _FILL_BYTES
        body = _ENTRY.pack(end, checksum, writer, sequence)
        self.file.pwrite(body + _OWN.pack(crc32c(body, self._seed)), self._next)
        self._next += ENTRY_BYTES

    def persist_fence(self, version: int) -> None:
        """Record a fence durably: certain when this returns. May take long."""
        turn = self._turn + 1
        block = seal_block(FENCE, FenceSlot(turn, version, fenced=True))
        self.file.pwrite(block.ljust(SECTOR_BYTES, b"\0"), SECTOR_BYTES * (2 - turn % 2))
        self.file.fdatasync()
        self._turn = turn

    def recover(self, data: File) -> tuple[BlockSums, dict[int, int]]:
        """Follow the entries, cut both files where they cease to agree.

        Returns:
          Checksums of what is left (their `end` is the replica's) and last sequences.
        """
        sums, writers = BlockSums(), dict[int, int]()
        position = ENTRIES_START
        size = self.file.size()
        held, start = b"", position
        while position + ENTRY_BYTES <= size:
            if position + ENTRY_BYTES > start + len(held):
                held, start = self.file.pread(_SCAN_BYTES, position), position
            at = position - start
            if not self._follow(held[at : at + ENTRY_BYTES], data, sums, writers):
                break
            position += ENTRY_BYTES
        self.lost_something = self._cut(position, data, sums.end)
        return sums, writers

    def _follow(self, raw: bytes, data: File, sums: BlockSums, writers: dict[int, int]) -> bool:
        body = raw[: _ENTRY.size]
        end, checksum, writer, sequence = _ENTRY.unpack(body)
        (own,) = _OWN.unpack_from(raw, _ENTRY.size)
        limit = self.header.chunk_bytes
        if own != crc32c(body, self._seed) or not sums.end < end <= limit:
            return False
        covered = data.pread(end - sums.end, sums.end)
        if len(covered) != end - sums.end or crc32c(covered) != checksum:
            return False
        sums.extend(covered)
        if sequence:
            writers[writer] = sequence
        return True

    def _cut(self, position: int, data: File, end: int) -> bool:
        """Nothing that failed the test may ever be read again; was there anything?"""
        size = self.file.size()
        rest = self.file.pread(max(0, size - position), position)
        had_more = bool(rest.strip(b"\0"))
        if had_more:
            self.file.truncate(position)
            size = position
            self.file.fdatasync()
        if data.size() != end:
            data.truncate(end)
        self._next = position
        self._filled = max(size, position)
        return had_more
