"""A disk in memory that loses power: the file port with POSIX's promises and no more.

It survives what our daemons are meant to survive. At a power loss each sector
(512 bytes, atomic) holds its last synced content or any content written since,
each size and each directory entry likewise: kept, dropped or, over many
sectors, torn, as the seed says. Nothing that was synced is ever lost; bit rot
is added by hand with `flip_bit`. Whole files are never invented: what a dropped
write left is what was there before.

Only operations that change something count for `crash_after`; an interrupted
write may have happened, an interrupted sync has not.
"""

from __future__ import annotations

import errno
import fnmatch
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from gfs import errors
from gfs.checksum import Buffer
from gfs.disk import File, replace_file, translate

SECTOR_BYTES = 512
ENDLESS_BYTES = 1 << 40
Keep = Callable[[int], bool]


class PowerLoss(BaseException):
    """The machine is off. Not an Exception: no code under test may catch it."""


class SimInode:
    """A file: what programs see, what is certain, and all contents between the two."""

    def __init__(self) -> None:
        self.content = bytearray()
        self.durable = bytearray()
        self.versions: dict[int, list[tuple[int, bytes]]] = {}
        self.sizes: list[tuple[int, int]] = []
        self._written_to = 0  # end of what was ever written since the last sync

    def write(self, number: int, offset: int, buffer: bytes) -> None:
        end = offset + len(buffer)
        first = min(offset, len(self.content))
        if end > len(self.content):
            self.content.extend(bytes(end - len(self.content)))
            self.sizes.append((number, end))
        self.content[offset:end] = buffer
        self._remember(number, first, end)

    def resize(self, number: int, length: int) -> None:
        before = len(self.content)
        if length < before:
            del self.content[length:]
        else:
            self.content.extend(bytes(length - before))
        self.sizes.append((number, length))
        # Beyond what was ever there, new sectors can be nothing but zeros: not worth a note.
        highest = max(len(self.durable), self._written_to, before + 1)
        self._remember(number, min(before, length), min(max(before, length), highest))

    def _remember(self, number: int, start: int, end: int) -> None:
        self._written_to = max(self._written_to, end)
        for sector in range(start // SECTOR_BYTES, -(-end // SECTOR_BYTES)):
            at = sector * SECTOR_BYTES
            content = bytes(self.content[at : at + SECTOR_BYTES])
            self.versions.setdefault(sector, []).append((number, content))

    def sync(self) -> None:
        _resize(self.durable, len(self.content))
        for sector in self.versions:
            at = sector * SECTOR_BYTES
            self.durable[at : at + SECTOR_BYTES] = self.content[at : at + SECTOR_BYTES]
        self.versions.clear()
        self.sizes.clear()
        self._written_to = 0

    def after_power_loss(self, keep: Keep) -> SimInode:
        found = bytearray(self.durable)
        size = len(found)
        for number, length in self.sizes:
            if keep(number):
                size = length
        _resize(found, max(size, len(found)))
        for sector, versions in self.versions.items():
            at = sector * SECTOR_BYTES
            for number, content in versions:
                if keep(number) and at < len(found):
                    found[at : at + SECTOR_BYTES] = content.ljust(SECTOR_BYTES, b"\0")
        _resize(found, size)
        survivor = SimInode()
        survivor.content, survivor.durable = found, bytearray(found)
        return survivor


class SimDirectory:
    """Names: as programs see them and as they are certain."""

    def __init__(self) -> None:
        self.entries: dict[str, SimInode | SimDirectory] = {}
        self.durable: dict[str, SimInode | SimDirectory] = {}


Node = SimInode | SimDirectory
EntryChange = tuple[SimDirectory, str, Node | None]


class SimFile:
    """An open file; dead after a power loss."""

    def __init__(self, disk: SimDisk, inode: SimInode, path: Path) -> None:
        self._disk = disk
        self._inode = inode
        self._path = path
        self._generation = disk.generation

    def pwrite(self, buffer: Buffer, offset: int) -> None:
        content = bytes(memoryview(buffer).cast("B"))
        try:
            self._alive("pwrite")
            if not self._disk.room_for(offset + len(content) - len(self._inode.content)):
                raise translate(OSError(errno.ENOSPC, "No space left"), f"write {self._path}")
        except errors.GfsError:  # a failing write may have done a part of its work
            self._write("half pwrite", content[: len(content) // 2], offset)
            raise
        self._write("pwrite", content, offset)

    def _write(self, operation: str, content: bytes, offset: int) -> None:
        with self._changing(operation) as number:
            if content and self._disk.room_for(offset + len(content) - len(self._inode.content)):
                self._inode.write(number, offset, content)

    def pwritev(self, buffers: Sequence[Buffer], offset: int) -> None:
        self.pwrite(b"".join(buffers), offset)

    def pwrite_around(self, buffer: Buffer, offset: int) -> None:
        self.pwrite(buffer, offset)

    def pread(self, length: int, offset: int) -> bytes:
        self._alive("pread")
        return bytes(self._inode.content[offset : offset + length])

    def preadv_into(self, buffer: bytearray | memoryview, offset: int) -> int:
        view = memoryview(buffer).cast("B")
        content = self.pread(view.nbytes, offset)
        view[: len(content)] = content
        return len(content)

    def read_cached(self, buffer: memoryview, offset: int) -> int:
        return self.preadv_into(buffer, offset)

    def read_aside(self, buffer: memoryview, offset: int) -> int:
        return self.preadv_into(buffer, offset)

    def fdatasync(self) -> None:
        with self._changing("fdatasync"):
            self._inode.sync()

    def fsync(self) -> None:
        with self._changing("fsync"):
            self._inode.sync()

    def allocate(self, offset: int, length: int) -> None:
        with self._changing("allocate") as number:
            if offset + length > len(self._inode.content):
                if not self._disk.room_for(offset + length - len(self._inode.content)):
                    raise translate(OSError(errno.ENOSPC, "No space left"), f"{self._path}")
                self._inode.resize(number, offset + length)

    def zero(self, offset: int, length: int) -> None:
        self.pwrite(bytes(length), offset)

    def truncate(self, length: int) -> None:
        with self._changing("truncate") as number:
            self._inode.resize(number, length)

    def size(self) -> int:
        self._alive("size")
        return len(self._inode.content)

    def fileno(self) -> int:
        raise errors.Unsupported("a simulated file has no descriptor")

    def close(self) -> None:
        self._disk.unlock(self)

    def _alive(self, operation: str) -> None:
        if self._disk.off or self._generation != self._disk.generation:
            raise PowerLoss(f"{operation} {self._path}")
        self._disk.injected(operation, self._path)

    @contextmanager
    def _changing(self, operation: str) -> Iterator[int]:
        if self._disk.off or self._generation != self._disk.generation:
            raise PowerLoss(f"{operation} {self._path}")
        with self._disk.changing(operation, self._path) as number:
            yield number


class SimDisk:
    """The file port in memory. `capacity_bytes` None means never full."""

    def __init__(self, seed: int | str, *, capacity_bytes: int | None = None) -> None:
        self.seed = seed
        self.capacity_bytes = capacity_bytes
        self.operations_total = 0
        self.generation = 0
        self.off = False
        self.before_operation: Callable[[str, Path], None] | None = None
        self.on_power_loss: Callable[[], None] | None = None
        self._random = random.Random(f"{seed}/disk")
        self._root = SimDirectory()
        self._changes: list[tuple[int, list[EntryChange]]] = []
        self._crash_at: int | None = None
        self._faults: list[tuple[str, str, int, int]] = []  # operation, glob, errno, times
        self._locks: dict[Path, SimFile] = {}

    # Faults.

    def crash_after(self, operations: int) -> None:
        """Lose power in the `operations`-th changing operation from now."""
        self._crash_at = self.operations_total + operations

    def crash(self) -> None:
        """Lose power now and come back: only what was synced is certain."""
        survivor = self.after_power_loss(self._random.getrandbits(32))
        self._root = survivor._root
        self._changes.clear()
        self._locks.clear()
        self.generation += 1
        self.off = False
        self._crash_at = None

    def process_ended(self) -> None:
        """kill -9: what was written stays, synced or not; what was open or locked is not."""
        self._locks.clear()
        self.generation += 1
        self._crash_at = None

    def after_power_loss(self, seed: int) -> SimDisk:
        """The disk as a machine would find it that lost power now; this one runs on."""
        survivor = SimDisk(f"{self.seed}/{seed}", capacity_bytes=self.capacity_bytes)
        keep = self._fate(random.Random(f"{self.seed}/{seed}/fate"))
        certain: dict[int, dict[str, Node]] = {}
        for number, changes in self._changes:
            if keep(number):
                for directory, name, node in changes:
                    names = certain.setdefault(id(directory), dict(directory.durable))
                    _set_entry(names, name, node)
        survivor._root = _survivor(self._root, certain, keep, {})
        return survivor

    def fail(self, operation: str, pattern: str, error: int, *, times: int = 1) -> None:
        """Let the next `times` calls of `operation` on paths like `pattern` fail with errno."""
        self._faults.append((operation, pattern, error, times))

    def flip_bit(self, path: Path, offset: int) -> None:
        """Bit rot: one bit of a byte changes, durably and unseen."""
        inode = self._inode(path)
        inode.content[offset] ^= 0x10
        inode.durable[offset] ^= 0x10

    def content(self, path: Path) -> bytes:
        """What a file holds, seen from outside: no fault applies."""
        return bytes(self._inode(path).content)

    def _fate(self, chance: random.Random) -> Keep:
        """How this power loss treats unsynced operations, by number."""
        first = min((number for number, _ in self._changes), default=self.operations_total - 64)
        cut = chance.randint(min(first, self.operations_total - 8), self.operations_total)
        share = chance.choice((0.1, 0.5, 0.9))
        fates: list[Keep] = [
            lambda number: False,
            lambda number: True,
            lambda number: number < cut or (number == cut and chance.random() < 0.5),
            lambda number: chance.random() < share,
        ]
        return chance.choices(fates, weights=(1, 1, 3, 4))[0]

    # The port.

    def open(self, path: Path, *, create: bool = False, exclusive: bool = False) -> File:
        self._alive("open", path)
        directory = self._directory(path.parent)
        node = directory.entries.get(path.name)
        if node is not None and exclusive:
            raise errors.AlreadyExists(f"open {path}")
        if isinstance(node, SimDirectory):
            raise errors.IsADirectory(f"open {path}")
        if node is None:
            if not (create or exclusive):
                raise errors.NotFound(f"open {path}")
            node = SimInode()
            with self.changing("create", path) as number:
                self._change(number, (directory, path.name, node))
        return SimFile(self, node, path)

    def rename(self, source: Path, destination: Path) -> None:
        old, new = self._directory(source.parent), self._directory(destination.parent)
        node = self._node(source)
        with self.changing("rename", source) as number:
            self._change(number, (old, source.name, None), (new, destination.name, node))

    def link(self, source: Path, destination: Path) -> None:
        node = self._inode(source)
        if self.exists(destination):
            raise errors.AlreadyExists(f"link {destination}")
        with self.changing("link", destination) as number:
            self._change(number, (self._directory(destination.parent), destination.name, node))

    def unlink(self, path: Path) -> None:
        if isinstance(self._node(path), SimDirectory):
            raise errors.IsADirectory(f"unlink {path}")
        with self.changing("unlink", path) as number:
            self._change(number, (self._directory(path.parent), path.name, None))

    def mkdir(self, path: Path, *, parents: bool = False) -> None:
        if self.exists(path):
            if parents:
                return
            raise errors.AlreadyExists(f"mkdir {path}")
        if parents:
            self.mkdir(path.parent, parents=True)
        with self.changing("mkdir", path) as number:
            self._change(number, (self._directory(path.parent), path.name, SimDirectory()))

    def listdir(self, path: Path) -> list[str]:
        self._alive("listdir", path)
        return sorted(self._directory(path).entries)

    def exists(self, path: Path) -> bool:
        self._alive("exists", path)
        try:
            self._node(path)
        except errors.NotFound:
            return False
        return True

    def sync_directory(self, path: Path) -> None:
        directory = self._directory(path)
        with self.changing("sync_directory", path):
            waiting = []
            for number, changes in self._changes:
                if any(changed is directory for changed, _, _ in changes):
                    for changed, name, node in changes:
                        _set_entry(changed.durable, name, node)
                else:
                    waiting.append((number, changes))
            self._changes = waiting

    def replace_file(self, path: Path, content: bytes) -> None:
        replace_file(self, path, content)

    def free_bytes(self, path: Path) -> tuple[int, int]:
        if self.capacity_bytes is None:
            return ENDLESS_BYTES, ENDLESS_BYTES
        return max(0, self.capacity_bytes - _used(self._root)), self.capacity_bytes

    def lock(self, path: Path) -> File:
        if path in self._locks:
            raise errors.DirectoryInUse(f"{path.parent} is in use by process simulated")
        file = self.open(path, create=True)
        assert isinstance(file, SimFile)
        self._locks[path] = file
        return file

    def write_behind_hint(self, file: File, offset: int, length: int) -> None:
        pass  # what a hint has written may still be lost

    # For SimFile.

    def unlock(self, file: SimFile) -> None:
        self._locks = {path: held for path, held in self._locks.items() if held is not file}

    def room_for(self, growth: int) -> bool:
        if self.capacity_bytes is None or growth <= 0:
            return True
        return _used(self._root) + growth <= self.capacity_bytes

    def injected(self, operation: str, path: Path) -> None:
        """Raise the error that a test has asked for, if any is left."""
        for at, (wanted, pattern, error, times) in enumerate(self._faults):
            if wanted == operation and fnmatch.fnmatch(str(path), pattern):
                self._faults[at : at + 1] = [(wanted, pattern, error, times - 1)] * (times > 1)
                raise translate(OSError(error, "injected"), f"{operation} {path}")

    @contextmanager
    def changing(self, operation: str, path: Path) -> Iterator[int]:
        """Count an operation, let it fail if asked, and lose power in it if it is time."""
        self._alive(operation, path)
        if self.before_operation is not None:
            self.before_operation(operation, path)
        self.operations_total += 1
        dying = self.operations_total == self._crash_at
        if dying and operation in ("fdatasync", "fsync", "sync_directory"):
            self._lose_power(operation, path)
        yield self.operations_total
        if dying:
            self._lose_power(operation, path)

    def _lose_power(self, operation: str, path: Path) -> None:
        self.off = True
        if self.on_power_loss is not None:
            self.on_power_loss()
        raise PowerLoss(f"{operation} {path}")

    def _alive(self, operation: str, path: Path) -> None:
        if self.off:
            raise PowerLoss(f"{operation} {path}")
        self.injected(operation, path)

    def _change(self, number: int, *changes: EntryChange) -> None:
        for directory, name, node in changes:
            _set_entry(directory.entries, name, node)
        self._changes.append((number, list(changes)))

    def _node(self, path: Path) -> Node:
        node: Node | None = self._root
        for name in path.parts[1:]:
            node = node.entries.get(name) if isinstance(node, SimDirectory) else None
        if node is None:
            raise errors.NotFound(f"{path}")
        return node

    def _directory(self, path: Path) -> SimDirectory:
        node = self._node(path)
        if not isinstance(node, SimDirectory):
            raise errors.NotADirectory(f"{path}")
        return node

    def _inode(self, path: Path) -> SimInode:
        node = self._node(path)
        if not isinstance(node, SimInode):
            raise errors.IsADirectory(f"{path}")
        return node


def _resize(content: bytearray, length: int) -> None:
    if length < len(content):
        del content[length:]
    else:
        content.extend(bytes(length - len(content)))


def _set_entry(names: dict[str, Node], name: str, node: Node | None) -> None:
    if node is None:
        names.pop(name, None)
    else:
        names[name] = node


def _survivor(
    directory: SimDirectory, certain: dict[int, dict[str, Node]], keep: Keep, seen: dict[int, Node]
) -> SimDirectory:
    """Copy of a directory with what is left of it; hard links stay one inode."""
    found = SimDirectory()
    for name, node in certain.get(id(directory), directory.durable).items():
        if id(node) not in seen:
            if isinstance(node, SimDirectory):
                seen[id(node)] = _survivor(node, certain, keep, seen)
            else:
                seen[id(node)] = node.after_power_loss(keep)
        found.entries[name] = seen[id(node)]
    found.durable = dict(found.entries)
    return found


def _used(directory: SimDirectory) -> int:
    return sum(
        _used(node) if isinstance(node, SimDirectory) else len(node.content)
        for node in directory.entries.values()
    )
