"""One data directory: whose it is, who holds it, where a chunk's files lie in it.

    identity            cluster and server (a sealed block); a stranger's is refused
    lock                held while a chunk server runs on it
    obeyed              highest epoch and committed position
    chunks/ab/<handle>.data   bytes        .side  while open      .meta  once sealed
                      .bad    instead of .meta: sealed, but a checksum did not hold
                      .copy   a copy that is not finished; removed at the next start
    quarantine/         what cannot be trusted and is not deleted
    scrub               how far the verification of all blocks has come
    draining            while it is being emptied: nothing new goes here
    probe               written now and then, to see whether the disk answers

Nothing of a directory that is not this server's is ever changed.
"""

from __future__ import annotations

from pathlib import Path

from chunkd.core.draining import Drain
from chunkd.core.health import Health
from chunkd.formats import IDENTITY, Identity, open_block, refuse_stranger, seal_block
from gfs.disk import Disk, File
from gfs.errors import GfsError, NoSpace, NotFound, StorageFailed, WrongCluster
from gfs.ids import GIB

RESERVE_SHARE = 20  # one 20th of the disk
RESERVE_BYTES_MAX = 2 * GIB
_OURS = {"identity", "identity.new", "lock", "obeyed", "obeyed.new", "probe", "scrub", "scrub.new"}
_OURS |= {"chunks", "quarantine", "draining", "draining.new"}
_HARMLESS = {"lost+found", "chunkd.sock"}
_FANOUT = [f"{number:02x}" for number in range(256)]
_BLOCK_BYTES_MAX = 4096


class DataDirectory:
    """See the module's text. Create with `open`.

    Attributes:
      health: whether it works; see chunkd.core.health.
      drain: how far it has been emptied; None: it is not to be.
    """

    def __init__(self, path: Path, disk: Disk, identity: Identity, lock: File) -> None:
        self.path = path
        self.disk = disk
        self.identity = identity
        self.health = Health()
        self.drain: Drain | None = None
        self._lock = lock
        self._reserve_bytes = -1
        self._room = (0, 0)

    @classmethod
    def open(
        cls, path: Path, disk: Disk, *, cluster: str, server: int, index: int
    ) -> DataDirectory:
        """Take hold of a directory, or make it one; `server` 0 takes what is written there.

        Raises:
          WrongCluster: of another cluster or server, or full of someone's files.
          DirectoryInUse: another process holds it.
          NewerFormat, Corrupt: its identity cannot be read.
        """
        path = path.absolute()
        _make(path, disk)
        names = set(disk.listdir(path))
        if "identity" not in names and (names - _OURS - _HARMLESS or _has_chunks(disk, path)):
            raise WrongCluster(f"{path} holds files but is no chunk server's directory")
        found = _read_identity(path, disk) if "identity" in names else None
        if found is not None:
            _refuse_other(found, cluster, server, path)
        lock = disk.lock(path / "lock")
        if found is None:
            found = _format(path, disk, Identity(cluster, server, index))
        directory = cls(path, disk, found, lock)
        directory.drain = Drain() if "draining" in names else None
        return directory

    def reserve(self, reserve_bytes: int) -> None:
        """Leave so much free; -1: 5 % of the disk, at most 2 GiB."""
        self._reserve_bytes = reserve_bytes

    @property
    def takes_new(self) -> bool:
        """May new chunks be put here, if there is room?"""
        return self.health.is_working and self.drain is None

    def mark_draining(self, *, draining: bool) -> None:
        """Make it durable that it is being emptied, or no more. May take long."""
        mark = self.path / "draining"
        if draining:
            self.disk.replace_file(mark, b"nothing new goes here\n")
        elif self.disk.exists(mark):
            self.disk.unlink(mark)
            self.disk.sync_directory(self.path)

    def room(self) -> tuple[int, int]:
        """Bytes that new chunks may still take, and the size of the disk.

        A disk that does not work is not asked: what it said last.
        """
        if self.health.is_working:
            free, total = self.disk.free_bytes(self.path)
            reserve = self._reserve_bytes
            if reserve < 0:
                reserve = min(total // RESERVE_SHARE, RESERVE_BYTES_MAX)
            self._room = (max(0, free - reserve), total)
        return self._room

    @property
    def is_there(self) -> bool:
        """Is its filesystem still mounted?"""
        return self.disk.exists(self.path / "identity")

    def probe(self) -> None:
        """Is it still ours, and does the disk take a write? May take long, or for ever.

        Raises:
          StorageFailed: it is not there any more, another's, or refuses.
        """
        try:
            if _read_identity(self.path, self.disk) != self.identity:
                raise StorageFailed(f"{self.path} is not the directory it was")
            file = self.disk.open(self.path / "probe", create=True)
            try:
                file.pwrite(b"probe", 0)
                file.fdatasync()
            finally:
                file.close()
        except NoSpace:
            return  # full, not failed
        except GfsError as error:
            raise StorageFailed(f"{error}") from None

    def folder(self, handle: int) -> Path:
        """The subdirectory of a chunk's files, by the low byte (counters spread evenly)."""
        return self.path / "chunks" / _FANOUT[handle & 0xFF]

    def file(self, handle: int, ending: str) -> Path:
        """Path of one of a chunk's files; `ending` without the dot."""
        return self.folder(handle) / f"{handle:016x}.{ending}"

    def contents(self) -> dict[int, set[str]]:
        """Handle -> endings of its files."""
        found: dict[int, set[str]] = {}
        for name in _FANOUT:
            for entry in self.disk.listdir(self.path / "chunks" / name):
                stem, _, ending = entry.partition(".")
                try:
                    found.setdefault(int(stem, 16), set()).add(ending)
                except ValueError:
                    continue  # not ours; left alone
        return found

    def endings(self, handle: int) -> set[str]:
        """Endings of the files that a chunk has here."""
        all_of_them = ("data", "side", "meta", "bad")
        return {one for one in all_of_them if self.disk.exists(self.file(handle, one))}

    def quarantine(self, handle: int, endings: set[str]) -> None:
        """Move files out of the way; the last ones of a chunk are kept."""
        for ending in endings:
            source = self.file(handle, ending)
            if self.disk.exists(source):
                self.disk.rename(source, self.path / "quarantine" / source.name)
        self.disk.sync_directory(self.path / "quarantine")
        self.disk.sync_directory(self.folder(handle))

    def quarantined(self) -> set[int]:
        """Chunks of which something is in quarantine. May take long."""
        return {handle for handle, _ in self._in_quarantine()}

    def empty_quarantine(self, handles: set[int]) -> None:
        """Delete what is there of these chunks. May take long."""
        for handle, path in self._in_quarantine():
            if handle in handles:
                self.disk.unlink(path)

    def _in_quarantine(self) -> list[tuple[int, Path]]:
        folder = self.path / "quarantine"
        found = []
        for name in self.disk.listdir(folder):
            try:
                found.append((int(name.partition(".")[0], 16), folder / name))
            except ValueError:
                continue  # not ours; left alone
        return found

    def close(self) -> None:
        """Let another process have it."""
        self._lock.close()


def _make(path: Path, disk: Disk) -> None:
    """Make the directory, and its name as durable as what will lie in it."""
    missing = [one for one in (path, *path.parents) if not disk.exists(one)]
    disk.mkdir(path, parents=True)
    for made in missing:
        disk.sync_directory(made.parent)


def _has_chunks(disk: Disk, path: Path) -> bool:
    try:
        folders = disk.listdir(path / "chunks")
        return any(disk.listdir(path / "chunks" / name) for name in folders)
    except NotFound:
        return False


def _read_identity(path: Path, disk: Disk) -> Identity:
    file = disk.open(path / "identity")
    try:
        return open_block(IDENTITY, file.pread(_BLOCK_BYTES_MAX, 0), Identity, path / "identity")
    finally:
        file.close()


def read_identity(path: Path, disk: Disk) -> Identity | None:
    """Whose directory this is; None if it is nobody's yet.

    Raises:
      NewerFormat, Corrupt: it cannot be read.
    """
    return _read_identity(path, disk) if disk.exists(path / "identity") else None


def _refuse_other(found: Identity, cluster: str, server: int, path: Path) -> None:
    refuse_stranger(cluster, found.cluster, path)
    if server and server != found.server:
        raise WrongCluster(f"{path} belongs to chunk server {found.server}, not {server}")


def _format(path: Path, disk: Disk, identity: Identity) -> Identity:
    for name in ("quarantine", "chunks"):
        disk.mkdir(path / name, parents=True)
    for name in _FANOUT:
        disk.mkdir(path / "chunks" / name, parents=True)
    disk.sync_directory(path / "chunks")
    disk.sync_directory(path)
    disk.replace_file(path / "identity", seal_block(IDENTITY, identity))
    return identity
