"""The file port: all that log, chunk store and checkpoints ask of a disk.

`Disk` and `File` are what the shells are written against; `PosixDisk` is the
real thing and the tests have a simulated one that loses power. What the port
promises is what POSIX promises and no more: bytes are certain after
`fdatasync`, the name of a new, renamed or removed file is certain after
`sync_directory` of its directory.

Methods block. Those that may take long (`fsync`, `zero`, `allocate`, `unlink`
of a large file) belong in a thread; a write into the page cache does not, a
thread costs more than the write. System errors leave as `gfs.errors`.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from gfs import errors
from gfs.checksum import Buffer
from gfs.ids import MIB

_BUFFERS_PER_CALL = 1024  # IOV_MAX on Linux
_ZEROS = memoryview(bytes(MIB))
_SYNC_FILE_RANGE_WRITE = 2  # start write-out, wait for nothing (sync_file_range(2))
_AROUND_BYTES = 4096  # offsets and lengths that writes around the page cache need
_UNTRIED = -2

_KINDS: dict[int, type[errors.GfsError]] = {
    errno.ENOENT: errors.NotFound,
    errno.EEXIST: errors.AlreadyExists,
    errno.ENOTDIR: errors.NotADirectory,
    errno.EISDIR: errors.IsADirectory,
    errno.ENOTEMPTY: errors.NotEmpty,
}


class File(Protocol):
    """An open file. Offsets and lengths are in bytes."""

    def pwrite(self, buffer: Buffer, offset: int) -> None:
        """Write all of `buffer` at `offset`."""

    def pwritev(self, buffers: Sequence[Buffer], offset: int) -> None:
        """Write all `buffers`, one behind the other, from `offset`."""

    def pwrite_around(self, buffer: Buffer, offset: int) -> None:
        """`pwrite` that leaves the page cache alone where offset, length and memory allow.

        Waits for the disk, yet makes nothing durable.
        """

    def pread(self, length: int, offset: int) -> bytes:
        """Read `length` bytes; fewer only at the end of the file."""
        ...

    def preadv_into(self, buffer: bytearray | memoryview, offset: int) -> int:
        """Fill `buffer` from `offset`; return the bytes read, fewer only at the end."""
        ...

    def read_cached(self, buffer: memoryview, offset: int) -> int:
        """`preadv_into` of what is in the cache: bytes read; -1: it would wait for the disk."""
        ...

    def read_aside(self, buffer: memoryview, offset: int) -> int:
        """`preadv_into` from the disk itself, past what is cached, leaving nothing there.

        `buffer` begins at a page; it and `offset` are of whole blocks of the disk. Where
        that cannot be done it reads as usual and drops from the cache what it read.
        """
        ...

    def fdatasync(self) -> None:
        """Make the bytes, and the size they need, durable."""

    def fsync(self) -> None:
        """Make bytes and all attributes of the file durable."""

    def allocate(self, offset: int, length: int) -> None:
        """Reserve space for a range; the size grows to cover it, new bytes read as 0."""

    def zero(self, offset: int, length: int) -> None:
        """Write zeros over a range; later writes there change no metadata."""

    def truncate(self, length: int) -> None:
        """Set the size; what is added reads as 0."""

    def size(self) -> int:
        """Size in bytes."""
        ...

    def fileno(self) -> int:
        """The descriptor, for sendfile, mmap or passing on."""
        ...

    def close(self) -> None:
        """Close; a second call does nothing. Makes nothing durable."""


class Disk(Protocol):
    """Files by path. Raises `NotFound`, `AlreadyExists`, `NoSpace`, `StorageFailed` ..."""

    def open(self, path: Path, *, create: bool = False, exclusive: bool = False) -> File:
        """Open for reading and writing; `exclusive` demands that it is new."""
        ...

    def rename(self, source: Path, destination: Path) -> None:
        """Give a file a new name, replacing what has it."""

    def link(self, source: Path, destination: Path) -> None:
        """Give a file a second name that must be free."""

    def unlink(self, path: Path) -> None:
        """Remove a name; open files live on."""

    def mkdir(self, path: Path, *, parents: bool = False) -> None:
        """Make a directory; with `parents` also those above, and existing ones are fine."""

    def listdir(self, path: Path) -> list[str]:
        """Names in a directory, sorted."""
        ...

    def exists(self, path: Path) -> bool:
        """Whether the path names anything."""
        ...

    def sync_directory(self, path: Path) -> None:
        """Make the names in a directory durable."""

    def replace_file(self, path: Path, content: bytes) -> None:
        """Put `content` at `path` durably: after a crash the old or the new, whole."""

    def free_bytes(self, path: Path) -> tuple[int, int]:
        """Bytes that this process may still use, and the size of the filesystem."""
        ...

    def lock(self, path: Path) -> File:
        """Hold `path` for this process until closed; raises `DirectoryInUse`."""
        ...

    def write_behind_hint(self, file: File, offset: int, length: int) -> None:
        """Ask for write-out of a range to begin now; waits for nothing."""


def translate(error: OSError, doing: str) -> errors.GfsError:
    """The error of ours for a failed system call; `doing` says on what."""
    kind = _KINDS.get(error.errno or 0)
    if kind is not None:
        return kind(f"{doing}: {error.strerror}")
    return errors.from_os_error(error, doing)


class PosixFile:
    """A descriptor; hot calls take the short way and fall into loops when cut short."""

    __slots__ = ("_around", "_fd", "_path")

    def __init__(self, fd: int, path: Path) -> None:
        self._fd = fd
        self._path = path
        self._around = _UNTRIED  # a descriptor with O_DIRECT; -1: the filesystem has none

    def pwrite(self, buffer: Buffer, offset: int) -> None:
        try:
            done = os.pwrite(self._fd, buffer, offset)
            total = buffer.nbytes if isinstance(buffer, memoryview) else len(buffer)
            while done < total:  # the system may cut a write at signals or 2 GiB
                view = memoryview(buffer).cast("B")[done:]
                done += os.pwrite(self._fd, view, offset + done)
        except OSError as error:
            raise translate(error, f"write {self._path}") from error

    def pwritev(self, buffers: Sequence[Buffer], offset: int) -> None:
        if len(buffers) > _BUFFERS_PER_CALL:
            self.pwrite(b"".join(buffers), offset)
            return
        try:
            done = os.pwritev(self._fd, buffers, offset)
        except OSError as error:
            raise translate(error, f"write {self._path}") from error
        total = sum(memoryview(buffer).nbytes for buffer in buffers)
        if done < total:
            self.pwrite(b"".join(buffers)[done:], offset + done)

    def pwrite_around(self, buffer: Buffer, offset: int) -> None:
        done = 0
        if offset % _AROUND_BYTES == 0 and len(buffer) % _AROUND_BYTES == 0:
            done = self._pwrite_direct(buffer, offset)
        if done < len(buffer):
            self.pwrite(memoryview(buffer).cast("B")[done:], offset + done)

    def _pwrite_direct(self, buffer: Buffer, offset: int) -> int:
        try:
            if self._around == _UNTRIED:
                self._around = -1
                flags = os.O_WRONLY | os.O_DIRECT | os.O_CLOEXEC
                self._around = os.open(f"/proc/self/fd/{self._fd}", flags)
            return os.pwrite(self._around, buffer, offset) if self._around >= 0 else 0
        except OSError as error:
            if error.errno in (errno.EINVAL, errno.ENOENT):  # not this memory, or not here at all
                return 0
            raise translate(error, f"write {self._path}") from error

    def pread(self, length: int, offset: int) -> bytes:
        try:
            content = os.pread(self._fd, length, offset)
            while len(content) < length:
                more = os.pread(self._fd, length - len(content), offset + len(content))
                if not more:
                    break
                content += more
        except OSError as error:
            raise translate(error, f"read {self._path}") from error
        return content

    def preadv_into(self, buffer: bytearray | memoryview, offset: int) -> int:
        try:
            done = os.preadv(self._fd, [buffer], offset)
            view = memoryview(buffer).cast("B")
            while 0 < done < view.nbytes:
                more = os.preadv(self._fd, [view[done:]], offset + done)
                if not more:
                    break
                done += more
        except OSError as error:
            raise translate(error, f"read {self._path}") from error
        return done

    def read_cached(self, buffer: memoryview, offset: int) -> int:
        try:
            return os.preadv(self._fd, [buffer], offset, os.RWF_NOWAIT)
        except OSError as error:
            if error.errno == errno.EAGAIN:
                return -1
            if error.errno == errno.EOPNOTSUPP:  # filesystems in memory never wait
                return self.preadv_into(buffer, offset)
            raise translate(error, f"read {self._path}") from error

    def read_aside(self, buffer: memoryview, offset: int) -> int:
        try:
            fd = os.open(f"/proc/self/fd/{self._fd}", os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECT)
            try:
                return os.preadv(fd, [buffer], offset)
            finally:
                os.close(fd)
        except OSError as error:
            if error.errno != errno.EINVAL:  # what a filesystem says that has no such reads
                raise translate(error, f"read {self._path}") from error
        done = self.preadv_into(buffer, offset)
        os.posix_fadvise(self._fd, offset, done, os.POSIX_FADV_DONTNEED)
        return done

    def fdatasync(self) -> None:
        try:
            os.fdatasync(self._fd)
        except OSError as error:
            raise translate(error, f"sync {self._path}") from error

    def fsync(self) -> None:
        try:
            os.fsync(self._fd)
        except OSError as error:
            raise translate(error, f"sync {self._path}") from error

    def allocate(self, offset: int, length: int) -> None:
        try:
            os.posix_fallocate(self._fd, offset, length)
        except OSError as error:
            raise translate(error, f"allocate {length} bytes of {self._path}") from error

    def zero(self, offset: int, length: int) -> None:
        # Not FALLOC_FL_ZERO_RANGE: unwritten extents must be converted, through
        # the filesystem's journal, by the very fdatasync that is to be short.
        for start in range(offset, offset + length, MIB):
            self.pwrite(_ZEROS[: min(MIB, offset + length - start)], start)

    def truncate(self, length: int) -> None:
        try:
            os.ftruncate(self._fd, length)
        except OSError as error:
            raise translate(error, f"truncate {self._path}") from error

    def size(self) -> int:
        return os.fstat(self._fd).st_size

    def fileno(self) -> int:
        return self._fd

    def close(self) -> None:
        fds, self._fd, self._around = (self._fd, self._around), -1, -1
        for fd in fds:
            if fd >= 0:
                os.close(fd)


class PosixDisk:
    """The host's filesystems."""

    def open(self, path: Path, *, create: bool = False, exclusive: bool = False) -> File:
        flags = os.O_RDWR | os.O_CLOEXEC
        if create or exclusive:
            flags |= os.O_CREAT
        if exclusive:
            flags |= os.O_EXCL
        try:
            return PosixFile(os.open(path, flags, 0o600), path)
        except OSError as error:
            raise translate(error, f"open {path}") from error

    def rename(self, source: Path, destination: Path) -> None:
        try:
            os.rename(source, destination)
        except OSError as error:
            raise translate(error, f"rename {source} to {destination}") from error

    def link(self, source: Path, destination: Path) -> None:
        try:
            os.link(source, destination)
        except OSError as error:
            raise translate(error, f"link {source} to {destination}") from error

    def unlink(self, path: Path) -> None:
        try:
            os.unlink(path)
        except OSError as error:
            raise translate(error, f"unlink {path}") from error

    def mkdir(self, path: Path, *, parents: bool = False) -> None:
        try:
            if parents:
                os.makedirs(path, 0o700, exist_ok=True)
            else:
                os.mkdir(path, 0o700)
        except OSError as error:
            raise translate(error, f"make directory {path}") from error

    def listdir(self, path: Path) -> list[str]:
        try:
            return sorted(os.listdir(path))
        except OSError as error:
            raise translate(error, f"list {path}") from error

    def exists(self, path: Path) -> bool:
        return os.path.lexists(path)

    def sync_directory(self, path: Path) -> None:
        try:
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)
        except OSError as error:
            raise translate(error, f"sync directory {path}") from error

    def replace_file(self, path: Path, content: bytes) -> None:
        replace_file(self, path, content)

    def free_bytes(self, path: Path) -> tuple[int, int]:
        try:
            figures = os.statvfs(path)
        except OSError as error:
            raise translate(error, f"ask for the free space of {path}") from error
        return figures.f_bavail * figures.f_frsize, figures.f_blocks * figures.f_frsize

    def lock(self, path: Path) -> File:
        file = self.open(path, create=True)
        try:
            fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = file.pread(20, 0).decode("ascii", "replace").strip() or "unknown"
            file.close()
            if error.errno != errno.EWOULDBLOCK:
                raise translate(error, f"lock {path}") from error
            text = f"{path.parent} is in use by process {holder}"
            raise errors.DirectoryInUse(text) from error
        file.truncate(0)
        file.pwrite(b"%d\n" % os.getpid(), 0)
        return file

    def write_behind_hint(self, file: File, offset: int, length: int) -> None:
        if _sync_file_range is not None:
            _sync_file_range(file.fileno(), offset, length, _SYNC_FILE_RANGE_WRITE)


def replace_file(disk: Disk, path: Path, content: bytes) -> None:
    """`Disk.replace_file` out of the port's other calls, the same on every disk."""
    temporary = path.with_name(path.name + ".new")
    if disk.exists(temporary):  # left by a crash; may be longer than `content`
        disk.unlink(temporary)
    file = disk.open(temporary, exclusive=True)
    try:
        file.pwrite(content, 0)
        file.fsync()
    finally:
        file.close()
    disk.rename(temporary, path)
    disk.sync_directory(path.parent)


def make_directory(disk: Disk, path: Path) -> None:
    """Make a directory, and those above it that are missing, certain to be there."""
    if not disk.exists(path):
        if not disk.exists(path.parent):
            make_directory(disk, path.parent)
        disk.mkdir(path)
    disk.sync_directory(path.parent)  # also of an old one: its maker may not have come so far


def _find_sync_file_range() -> Callable[[int, int, int, int], int] | None:
    """sync_file_range(2) of the C library; None where there is none."""
    try:
        function = ctypes.CDLL(None).sync_file_range
    except (OSError, AttributeError):
        return None
    function.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)
    function.restype = ctypes.c_int
    called: Callable[[int, int, int, int], int] = function
    return called


_sync_file_range = _find_sync_file_range()
