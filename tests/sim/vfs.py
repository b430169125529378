"""SQLite on the simulated disk: the state's file meets the same power losses as the rest.

A VFS without shared memory, so a WAL database must be opened `exclusive` (its
index then lies in memory). Locks are nobody's business here: one connection a
file at a time. Like SQLite's own VFS it makes a new file's name durable at the
file's first sync.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import apsw

from gfs import errors
from gfs.disk import File
from tests.sim.disk import SECTOR_BYTES, SimDisk


class SimVFSFile:
    """What SQLite asks of an open file; see the SQLite documentation of sqlite3_io_methods."""

    def __init__(self, vfs: SimVFS, path: Path, file: File, *, new: bool, temporary: bool) -> None:
        self._vfs = vfs
        self._path = path
        self._file = file
        self._name_unsynced = new
        self._temporary = temporary

    def xRead(self, amount: int, offset: int) -> bytes:
        return self._file.pread(amount, offset)

    def xWrite(self, content: bytes, offset: int) -> None:
        self._file.pwrite(content, offset)

    def xTruncate(self, length: int) -> None:
        self._file.truncate(length)

    def xSync(self, flags: int) -> None:
        self._file.fdatasync()
        if self._name_unsynced:
            self._vfs.disk.sync_directory(self._path.parent)
            self._name_unsynced = False

    def xFileSize(self) -> int:
        return self._file.size()

    def xClose(self) -> None:
        self._file.close()
        if self._temporary and not self._vfs.disk.off:
            self._vfs.disk.unlink(self._path)

    def xLock(self, level: int) -> None:
        pass

    def xUnlock(self, level: int) -> None:
        pass

    def xCheckReservedLock(self) -> bool:
        return False

    def xFileControl(self, operation: int, pointer: int) -> bool:
        return False

    def xSectorSize(self) -> int:
        return SECTOR_BYTES

    def xDeviceCharacteristics(self) -> int:
        return int(apsw.SQLITE_IOCAP_POWERSAFE_OVERWRITE)  # sectors are atomic here

    def excepthook(self, *_: object) -> None:
        pass  # the exception also leaves through the call that SQLite was asked for


class SimVFS(apsw.VFS):
    """The VFS named `name` on a simulated disk; `unregister` it at the end."""

    def __init__(self, name: str, disk: SimDisk) -> None:
        super().__init__(name, base="", iVersion=1)
        self.name = name
        self.disk = disk
        self._random = random.Random(f"{disk.seed}/vfs")
        self._temporary = 0

    def xOpen(self, name: Any, flags: list[int]) -> SimVFSFile:  # type: ignore[override]
        temporary = name is None
        if temporary:
            self._temporary += 1
            path = Path(f"/sqlite-temporary-{self._temporary}")
        else:
            path = Path(name if isinstance(name, str) else name.filename())
        create = bool(flags[0] & apsw.SQLITE_OPEN_CREATE)
        new = create and not self.disk.exists(path)
        try:
            file = self.disk.open(path, create=create)
        except errors.GfsError as error:
            raise apsw.CantOpenError(str(error)) from error
        return SimVFSFile(self, path, file, new=new, temporary=temporary)

    def xDelete(self, name: str, sync_directory: bool) -> None:
        path = Path(name)
        if self.disk.exists(path):
            self.disk.unlink(path)
        if sync_directory:
            self.disk.sync_directory(path.parent)

    def xAccess(self, name: str, flags: int) -> bool:
        return self.disk.exists(Path(name))

    def xFullPathname(self, name: str) -> str:
        return name

    def xRandomness(self, length: int) -> bytes:
        return self._random.randbytes(length)

    def excepthook(self, *_: object) -> bool:
        return True  # as above
