"""`gfs cat|put|get|append`: bytes in and out, a mebibyte at a time.

Memory stays bounded whatever the size of the file. Every request carries the caller's
own user and groups, so what `cat` on the mount is refused is refused here.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import TYPE_CHECKING, Any

import click
import trio

from gfs.cli.finding import about, cluster_option, connected, reach, shadow_option
from gfs.cli.output import progress, umask
from gfs.errors import IsADirectory, NotFound, UsageError
from gfs.ids import MIB, RECORD_BYTES_MAX

if TYPE_CHECKING:
    from gfs.client.filesystem import Filesystem
    from gfs.messages import Walked

READ_BYTES = MIB
_ZEROS = bytes(READ_BYTES)
_PATH = click.Path(path_type=bytes)


@click.command()
@cluster_option
@shadow_option
@click.argument("paths", nargs=-1, required=True, type=_PATH)
@click.pass_context
def cat(context: click.Context, paths: tuple[bytes, ...]) -> None:
    """Files to standard output, one after the other."""
    place = reach(context.obj, paths)

    async def work() -> None:
        async with connected(place) as files:
            for path in map(place.path, paths):
                await _to_stdout(files, path)

    trio.run(work)


@click.command()
@cluster_option
@shadow_option
@click.argument("path", type=_PATH)
@click.argument("local", required=False, type=_PATH)
@click.pass_context
def get(context: click.Context, path: bytes, local: bytes | None) -> None:
    """Copy PATH out to LOCAL (default: its name, here; - is standard output).

    LOCAL appears whole or not at all.
    """
    place = reach(context.obj, [path])
    source = place.path(path)

    async def work() -> None:
        async with connected(place) as files:
            if local == b"-":
                await _to_stdout(files, source)
            else:
                await _get(files, source, local or os.path.basename(source.rstrip(b"/")))

    trio.run(work)


@click.command()
@cluster_option
@click.argument("local", type=_PATH)
@click.argument("path", type=_PATH)
@click.pass_context
def put(context: click.Context, local: bytes, path: bytes) -> None:
    """Copy LOCAL (- is standard input) in, to PATH or into the directory PATH.

    An existing file is replaced at once when all bytes are there and synced; whoever has
    it open keeps the old one.
    """
    place = reach(context.obj, [path])
    if local == b"-" and path.endswith(b"/"):
        raise UsageError("standard input needs the name of a file")

    async def work() -> None:
        async with connected(place) as files:
            with _source(local) as (file, size, mode):
                await _put(files, file, size, mode, local, place.path(path))

    trio.run(work)


@click.command()
@cluster_option
@click.argument("path", type=_PATH)
@click.argument("local", default=b"-", type=_PATH)
@click.pass_context
def append(context: click.Context, path: bytes, local: bytes) -> None:
    """Append LOCAL (default: standard input) to PATH, which is made if need be.

    Each read gives one record of whole lines (at most 1,044,480 bytes), which stands
    there once and whole, whoever else appends. When the command returns 0 all of it is
    on the disks of every replica.
    """
    place = reach(context.obj, [path])

    async def work() -> None:
        async with connected(place) as files:
            with _source(local) as (file, size, _):
                await _append(files, file, size, place.path(path))

    trio.run(work)


# --- reading -------------------------------------------------------------------------


async def content_of(
    files: Filesystem, path: bytes, on_size: Callable[[int], None]
) -> AsyncGenerator[bytes | bytearray | memoryview, None]:
    """The bytes of a file, a mebibyte at a time; `on_size` is told how many there are.

    Raises: GfsError: with the path in its text.
    """
    with about(path):
        opened = await files.open(path)
    try:
        with about(path):
            on_size(await opened.size())
            offset = 0
            while data := await opened.read(offset, READ_BYTES):
                offset += len(data)
                yield data
    finally:
        opened.release()


async def _to_stdout(files: Filesystem, path: bytes) -> None:
    async with contextlib.aclosing(content_of(files, path, _ignore)) as content:
        async for data in content:
            await _emit(sys.stdout.fileno(), data)


async def _get(files: Filesystem, source: bytes, local: bytes) -> None:
    descriptor, fresh, final = _destination(source, local)
    try:
        await _fill(files, source, descriptor, sparse=fresh is not None)
        if fresh is not None:
            with about(source):
                _, inode = await files.stat(source)
            os.fchmod(descriptor, stat.S_IMODE(inode.mode) & 0o777 & ~umask())
            os.rename(fresh, final)
    except BaseException:
        if fresh is not None:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(fresh)
        raise
    finally:
        os.close(descriptor)


def _destination(source: bytes, local: bytes) -> tuple[int, bytes | None, bytes]:
    """Descriptor to write to; name to be renamed and its final name (None: written in place)."""
    if os.path.isdir(local):
        local = os.path.join(local, os.path.basename(source))
        if os.path.isdir(local):
            raise UsageError(f"{os.fsdecode(local)} is a directory")
    if os.path.exists(local) and not os.path.isfile(local):  # a device or pipe
        return os.open(local, os.O_WRONLY), None, local
    fresh = os.path.join(os.path.dirname(local), b".gfs-get-" + secrets.token_hex(8).encode())
    return os.open(fresh, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), fresh, local


async def _fill(files: Filesystem, source: bytes, descriptor: int, *, sparse: bool) -> None:
    total = 0
    async with contextlib.AsyncExitStack() as stack:
        step: Callable[[int], None] = _ignore

        def on_size(size: int) -> None:
            nonlocal step
            step = stack.enter_context(progress(os.fsdecode(os.path.basename(source)), size))

        content = contextlib.aclosing(content_of(files, source, on_size))
        async for data in await stack.enter_async_context(content):
            # A hole stays a hole: a sparse file may be larger than this disk.
            if sparse and data == memoryview(_ZEROS)[: len(data)]:
                os.lseek(descriptor, len(data), os.SEEK_CUR)
            else:
                await _emit(descriptor, data)
            total += len(data)
            step(len(data))
    if sparse:
        os.ftruncate(descriptor, total)


def _ignore(_: int) -> None:
    return None


async def _emit(descriptor: int, data: bytes | bytearray | memoryview) -> None:
    # In a thread: a slow reader of our output must not keep the session from renewing.
    await trio.to_thread.run_sync(_write_all, descriptor, data)


def _write_all(descriptor: int, data: bytes | bytearray | memoryview) -> None:
    """write(2) until all is out.

    Raises:
      OSError: as write(2); BrokenPipeError when nobody reads.
    """
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


# --- writing -------------------------------------------------------------------------

_Source = tuple[int, int | None, int | None]


@contextlib.contextmanager
def _source(local: bytes) -> Any:
    """Descriptor, size (None: unknown) and mode (None: standard input) of what is read."""
    if local == b"-":
        yield sys.stdin.fileno(), None, None
        return
    descriptor = os.open(local, os.O_RDONLY)
    try:
        status = os.fstat(descriptor)
        if stat.S_ISDIR(status.st_mode):
            raise UsageError(f"{os.fsdecode(local)} is a directory")
        size = status.st_size if stat.S_ISREG(status.st_mode) else None
        yield descriptor, size, stat.S_IMODE(status.st_mode)
    finally:
        os.close(descriptor)


async def _read(descriptor: int, size: int, *, quick: bool) -> bytes:
    """Some bytes; in a thread when the read may wait, so that the session stays alive."""
    if quick:
        return os.read(descriptor, size)
    return await trio.to_thread.run_sync(os.read, descriptor, size, abandon_on_cancel=True)


async def _put(
    files: Filesystem, file: int, size: int | None, mode: int | None, local: bytes, target: bytes
) -> None:
    with about(target):
        walked = await files.resolve(target.rstrip(b"/") or b"/")
        inode = walked.entry.inode
        if inode is not None and inode.is_directory:
            if local == b"-":
                raise IsADirectory
            target = target.rstrip(b"/") + b"/" + os.path.basename(local)
            walked = await files.resolve(target)
            inode = walked.entry.inode
            if inode is not None and inode.is_directory:
                raise IsADirectory
        elif target.endswith(b"/"):
            raise NotFound("no such directory")
        if inode is not None:
            mode = stat.S_IMODE(inode.mode)  # as the file that is replaced
        else:
            mode = (0o666 if mode is None else mode & 0o777) & ~umask()
        await _replace(files, file, size, walked, mode)


async def _replace(
    files: Filesystem, file: int, size: int | None, walked: Walked, mode: int
) -> None:
    fresh = b".gfs-put-" + secrets.token_hex(8).encode()
    opened = await files.create(walked.parent, fresh, os.O_EXCL | os.O_WRONLY, mode)
    try:
        try:
            await _copy_in(file, size, opened.write)
            await opened.sync()
        finally:
            opened.release()
        await files.rename_in(walked.parent, fresh, walked.name)
    except BaseException:
        with trio.CancelScope(shield=True), trio.move_on_after(5), contextlib.suppress(Exception):
            await files.unlink_in(walked.parent, fresh)
        raise


async def _copy_in(
    file: int, size: int | None, write: Callable[[int, bytes], Awaitable[int]]
) -> None:
    offset = 0
    with progress("put", size) as step:
        while data := await _read(file, READ_BYTES, quick=size is not None):
            await write(offset, data)
            offset += len(data)
            step(len(data))


async def _append(files: Filesystem, file: int, size: int | None, path: bytes) -> None:
    with about(path):
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
        opened = await files.open(path, flags, 0o666 & ~umask())
        try:
            await _records(file, size, opened.write)
            await opened.sync()
        finally:
            opened.release()


async def _records(
    file: int, size: int | None, write: Callable[[int, bytes], Awaitable[int]]
) -> None:
    """Whole lines of the input as records; a line too long for one is cut."""
    held = b""
    with progress("append", size) as step:
        while data := await _read(file, RECORD_BYTES_MAX - len(held), quick=size is not None):
            step(len(data))
            held += data
            cut = held.rfind(b"\n") + 1
            if not cut and len(held) == RECORD_BYTES_MAX:
                cut = len(held)
            if cut:
                await write(0, held[:cut])
                held = held[cut:]
        if held:
            await write(0, held)
