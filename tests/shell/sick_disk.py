"""A real disk below which directories can be made to fail or to hang, for tests."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gfs.disk import PosixDisk
from gfs.errors import StorageFailed

WRITING = frozenset(
    ("pwrite", "pwritev", "fdatasync", "fsync", "allocate", "zero", "truncate", "create",
     "rename", "link", "unlink", "mkdir", "sync_directory", "replace_file")
)  # fmt: skip
READING = frozenset(("pread", "preadv_into", "read_aside"))
SYNCING = frozenset(("fdatasync", "fsync", "sync_directory", "replace_file"))


class SickDisk(PosixDisk):
    """Calls below a directory named by `fail` are refused, below one named by `hang` wait."""

    def __init__(self) -> None:
        self._failing: dict[Path, frozenset[str]] = {}
        self._hanging: dict[Path, frozenset[str]] = {}
        self._healed = threading.Event()
        self._caught = threading.Event()

    def fail(self, directory: Path, operations: frozenset[str] = WRITING) -> None:
        self._failing[directory] = operations

    def hang(self, directory: Path, operations: frozenset[str] = SYNCING) -> None:
        self._hanging[directory] = operations
        self._healed.clear()
        self._caught.clear()

    def wait_caught(self) -> bool:
        """Return when a call hangs; False: none did within a few seconds. Blocks."""
        return self._caught.wait(5)

    def heal(self) -> None:
        """All is well; what waits goes on."""
        self._failing.clear()
        self._hanging.clear()
        self._healed.set()

    def is_hanging(self, operation: str, path: Path) -> bool:
        return any(
            operation in operations and directory in path.parents
            for directory, operations in self._hanging.items()
        )

    def suffer(self, operation: str, path: Path) -> None:
        """Called before each operation."""
        for directory, operations in list(self._failing.items()):
            if operation in operations and directory in path.parents:
                raise StorageFailed(f"{operation} {path}: {os.strerror(5)}")
        if self.is_hanging(operation, path):
            self._caught.set()
            self._healed.wait(30)

    def open(self, path: Path, *, create: bool = False, exclusive: bool = False) -> Any:
        self.suffer("create" if create or exclusive else "open", path)
        return SickFile(super().open(path, create=create, exclusive=exclusive), path, self)

    def lock(self, path: Path) -> Any:
        return PosixDisk.lock(PosixDisk(), path)


def _with_suffering(name: str) -> Callable[..., Any]:
    def method(self: SickDisk, path: Path, *arguments: Any, **named: Any) -> Any:
        self.suffer(name, path)
        return getattr(PosixDisk, name)(self, path, *arguments, **named)

    return method


for _name in ("rename", "link", "unlink", "mkdir", "sync_directory", "listdir", "replace_file"):
    setattr(SickDisk, _name, _with_suffering(_name))


class SickFile:
    """A file of it."""

    def __init__(self, file: Any, path: Path, disk: SickDisk) -> None:
        self._file = file
        self._path = path
        self._disk = disk

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._file, name)

        if name == "read_cached" and self._disk.is_hanging("pread", self._path):
            return lambda *_: -1

        def call(*arguments: Any, **named: Any) -> Any:
            self._disk.suffer(name, self._path)
            return found(*arguments, **named)

        return call
