"""The files of one replica: data with side log while it grows, data with sums once sealed.

Nothing here decides what may be appended (chunkd.core does); here bytes become
certain. An append is data first, then its entry; `sync` makes both durable and,
the first time, their names. `condense` is the way from the side log to block
checksums: data, then the new file, then the side log goes; a crash between any
two leaves a replica that is still right.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from chunkd.directory import DataDirectory
from chunkd.formats import (
    SEALED,
    FenceSlot,
    SealedMeta,
    SideHeader,
    open_block,
    refuse_stranger,
    seal_block,
)
from chunkd.sidelog import SideLog
from chunkd.sums import BlockSums, joined
from gfs.checksum import Buffer, block_checksums, crc32c
from gfs.disk import File
from gfs.errors import Corrupt, NoSpace, NotFound, StorageFailed
from gfs.ids import BLOCK_BYTES, KIB, MIB

TAIL_STEP_BYTES = MIB  # tails are synced often: a reserved range makes that short
PRIVATE_STEP_BYTES = 0  # streamed in: delayed allocation costs less and lays out better
WRITE_BEHIND_BYTES = 8 * MIB
COPY_BYTES = MIB
REPLICA_ENDINGS = {"data", "side", "meta", "bad"}
AROUND_BYTES = 256 * KIB  # from here a thread's switch costs less than pages do
AROUND_STEP_BYTES = 4 * KIB


class Held:
    """Descriptors that a thread may still be using when their owner is done with them."""

    __slots__ = ("_retired", "_users")

    def __init__(self) -> None:
        self._users = 0
        self._retired = False

    def hold(self) -> None:
        """Keep it open until `release`. This and the others: in the loop's thread only."""
        self._users += 1

    def release(self) -> None:
        self._users -= 1
        if self._retired and not self._users:
            self.close()

    def retire(self) -> None:
        """Close as soon as nobody holds it."""
        self._retired = True
        if not self._users:
            self.close()

    @property
    def idle(self) -> bool:
        return not self._users

    def close(self) -> None:
        raise NotImplementedError


class OpenFiles(Held):
    """An open replica's two files. Raises `NoSpace` and `StorageFailed` from all that writes.

    Invariant: `sums.end` is the end of the last whole append.
    """

    __slots__ = (
        "_allocated", "_hinted", "_step", "data", "directory", "handle", "named", "side", "sums",
    )  # fmt: skip

    def __init__(
        self, directory: DataDirectory, data: File, side: SideLog, sums: BlockSums, *, named: bool
    ) -> None:
        super().__init__()
        self.directory = directory
        self.handle = side.header.handle
        self.data = data
        self.side = side
        self.sums = sums
        self.named = named  # the files' names are durable
        self._step = TAIL_STEP_BYTES if side.header.tail else PRIVATE_STEP_BYTES
        self._allocated = self._hinted = sums.end

    @classmethod
    def create(cls, directory: DataDirectory, header: SideHeader) -> OpenFiles:
        """Empty files, not synced."""
        disk, handle = directory.disk, header.handle
        data = disk.open(directory.file(handle, "data"), create=True)
        side_file = disk.open(directory.file(handle, "side"), create=True)
        try:
            for left in (data, side_file):
                if left.size():
                    left.truncate(0)
            side = SideLog.create(side_file, header)
        except BaseException:
            data.close()
            side_file.close()
            raise
        return cls(directory, data, side, BlockSums(), named=False)

    @classmethod
    def recover(
        cls, directory: DataDirectory, handle: int
    ) -> tuple[OpenFiles, FenceSlot, dict[int, int]]:
        """Existing files, cut at the first entry that does not hold; version and writers.

        Raises:
          Corrupt: the side log has no header (it was never synced).
          NewerFormat, WrongCluster: not to be touched.
        """
        disk = directory.disk
        path = directory.file(handle, "side")
        side_file = disk.open(path)
        data: File | None = None
        try:
            side, slot = SideLog.open(side_file, path)
            refuse_stranger(directory.identity.cluster, side.header.cluster, path)
            data = disk.open(directory.file(handle, "data"))
            sums, writers = side.recover(data)
        except BaseException:
            side_file.close()
            if data is not None:
                data.close()
            raise
        return cls(directory, data, side, sums, named=False), slot, writers

    def checksums(self, buffer: memoryview) -> tuple[int, list[int] | None]:
        """CRC32C of bytes to be appended and, if they begin a block, of each block."""
        if self.sums.end % BLOCK_BYTES or len(buffer) <= BLOCK_BYTES:
            return crc32c(buffer), None
        sums = block_checksums(buffer)
        return joined(sums, buffer), sums

    def append(
        self, buffer: Buffer, *, end: int, checksum: int, writer: int, sequence: int,
        sums: list[int] | None = None,
    ) -> None:  # fmt: skip
        """Write `buffer` at the end and the entry that covers it; `sums` from `checksums`."""
        if end > self._allocated and self._step:
            self._allocate(end)
        self.data.pwrite(buffer, self.sums.end)
        self.enter(buffer, end=end, checksum=checksum, writer=writer, sequence=sequence, sums=sums)

    def suits_around(self, length: int) -> bool:
        """May `length` bytes at the end be written around the page cache, in a thread?"""
        aligned = self.sums.end % AROUND_STEP_BYTES == 0 and length % AROUND_STEP_BYTES == 0
        return aligned and length >= AROUND_BYTES and not self._step

    def write_around(self, buffer: Buffer) -> None:
        """The bytes of an append; `enter` what is written, in the loop. Waits for the disk."""
        self.data.pwrite_around(buffer, self.sums.end)

    def entered_around(self) -> None:
        """What was just entered lies on the disk: nothing of it waits to be written out."""
        self._hinted = self.sums.end

    def enter(
        self, buffer: Buffer, *, end: int, checksum: int, writer: int, sequence: int,
        sums: list[int] | None,
    ) -> None:  # fmt: skip
        """The entry and the checksums of bytes that have been written at the end."""
        self.side.append(end, checksum, writer, sequence)
        if sums is None:
            self.sums.extend(buffer)
        else:
            self.sums.extend_blocks(sums, len(buffer))

    def _allocate(self, end: int) -> None:
        limit = self.side.header.chunk_bytes
        target = max(end, min(limit, self._allocated + self._step))
        try:
            self.data.allocate(self._allocated, target - self._allocated)
        except NoSpace:
            target = end  # no room for a step, perhaps for these bytes
        self._allocated = target

    def take_write_behind(self) -> Callable[[], None] | None:
        """What starts write-out of what gathered, to be called in a thread; so syncs stay short."""
        start, end = self._hinted, self.sums.end
        if end - start < WRITE_BEHIND_BYTES:
            return None
        self._hinted = end
        disk, data = self.directory.disk, self.data
        return lambda: disk.write_behind_hint(data, start, end - start)

    def sync_data(self) -> None:
        """Make data durable; with `sync_side` it makes appends certain. May take long."""
        self.data.fdatasync()

    def sync_side(self) -> None:
        """Make entries, and the first time the files' names, durable. May take long."""
        self.side.file.fdatasync()
        if not self.named:
            self.directory.disk.sync_directory(self.directory.folder(self.handle))
            self.named = True

    def sync(self) -> None:
        """Both, one after the other."""
        self.sync_data()
        self.sync_side()

    def persist_fence(self, version: int) -> None:
        """Make a fence durable, the names of the files too. May take long.

        It makes the content durable as well: what a seal finds landed may be
        acknowledged to somebody who asked for fsync before the seal is carried out.
        """
        self.data.fdatasync()
        self.side.persist_fence(version)
        if not self.named:
            self.sync_side()

    def condense(self, version: int, length: int, writers: dict[int, int]) -> BlockSums:
        """Seal at `length` <= end: sums and writers in a file of their own. May take long.

        The caller closes this object and forgets it.
        """
        sums = self.sums.copy()  # readers still use the other
        sums.cut(self.data, length)
        self.data.fdatasync()
        disk, directory = self.directory.disk, self.directory
        meta = SealedMeta(
            directory.identity.cluster, self.handle, version, length, sums.to_bytes(), writers
        )
        disk.replace_file(directory.file(self.handle, "meta"), seal_block(SEALED, meta))
        self.data.truncate(length)
        disk.unlink(directory.file(self.handle, "side"))
        return sums

    def close(self) -> None:
        self.data.close()
        self.side.file.close()


class SealedFiles(Held):
    """A sealed replica's data and checksums, open for reading."""

    __slots__ = ("data", "sums")

    def __init__(self, data: File, sums: BlockSums) -> None:
        super().__init__()
        self.data = data
        self.sums = sums

    @classmethod
    def open(cls, directory: DataDirectory, handle: int) -> SealedFiles:
        """Raises `Corrupt`, `StorageFailed`, `NotFound`."""
        try:
            meta = read_meta(directory, handle, "meta")
        except NotFound:
            meta = read_meta(directory, handle, "bad")
        data = directory.disk.open(directory.file(handle, "data"))
        try:
            return cls(data, BlockSums.from_bytes(meta.sums, meta.length))
        except BaseException:
            data.close()
            raise

    def close(self) -> None:
        self.data.close()


class CopyFile:
    """A copy of a sealed chunk under way, in a file that a crash leaves behind as rubbish."""

    def __init__(self, directory: DataDirectory, handle: int) -> None:
        self.directory = directory
        self.handle = handle
        self.path = directory.file(handle, "copy")
        self.data = directory.disk.open(self.path, create=True)
        if self.data.size():
            self.data.truncate(0)
        self.sums = BlockSums()
        self._hinted = 0

    def take_from(self, files: OpenFiles, length: int) -> None:
        """Begin with what an open replica has, verified, up to `length`. May take long."""
        while self.sums.end < min(length, files.sums.end):
            part, _ = files.sums.read(
                files.data, self.sums.end, min(COPY_BYTES, length - self.sums.end)
            )
            self.write(part)

    def write(self, buffer: Buffer) -> None:
        self.data.pwrite(buffer, self.sums.end)
        self.sums.extend(buffer)

    def write_all(self, buffers: Sequence[Buffer]) -> None:
        """Write these, and have the disk begin with what gathered. May take long."""
        for buffer in buffers:
            self.write(buffer)
        gathered = self.sums.end - self._hinted
        if gathered >= WRITE_BEHIND_BYTES:
            self.directory.disk.write_behind_hint(self.data, self._hinted, gathered)
            self._hinted = self.sums.end

    def finish(self, version: int, writers: dict[int, int], *, aside: bool = False) -> BlockSums:
        """Make it the replica, in the place of whatever was. May take long.

        `aside`: what was is bad, and kept for whoever wants to save something of it.
        """
        disk, directory, handle = self.directory.disk, self.directory, self.handle
        self.data.fsync()
        self.data.close()
        meta = SealedMeta(
            directory.identity.cluster, handle, version, self.sums.end, self.sums.to_bytes(),
            writers,
        )  # fmt: skip
        if aside:
            directory.quarantine(handle, REPLICA_ENDINGS)
        else:
            remove(directory, handle)
        disk.rename(self.path, directory.file(handle, "data"))
        disk.replace_file(directory.file(handle, "meta"), seal_block(SEALED, meta))
        return self.sums

    def abandon(self) -> None:
        """Drop what there is."""
        self.data.close()
        if self.directory.disk.exists(self.path):
            self.directory.disk.unlink(self.path)


def read_meta(directory: DataDirectory, handle: int, ending: str) -> SealedMeta:
    """Checksums and length of a sealed replica.

    Raises:
      Corrupt: damaged, or data shorter than it says.
      NewerFormat, WrongCluster: not to be touched.
    """
    path = directory.file(handle, ending)
    file = directory.disk.open(path)
    try:
        raw = file.pread(file.size(), 0)
    finally:
        file.close()
    meta = open_block(SEALED, raw, SealedMeta, path)
    refuse_stranger(directory.identity.cluster, meta.cluster, path)
    if meta.handle != handle:
        raise Corrupt(f"{path} is about chunk {meta.handle:016x}")
    return meta


def remove(directory: DataDirectory, handle: int) -> None:
    """Delete a replica's files, data first and for certain. May take long."""
    disk, folder = directory.disk, directory.folder(handle)
    data = directory.file(handle, "data")
    if disk.exists(data):
        disk.unlink(data)
        disk.sync_directory(folder)
    for ending in ("side", "meta", "bad"):
        path = directory.file(handle, ending)
        if disk.exists(path):
            disk.unlink(path)
    if not disk.exists(folder):
        raise StorageFailed(f"{folder} is gone")
