"""`gfs ls|stat|mkdir|rm`: names and attributes."""

from __future__ import annotations

import json
import stat as modes
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import click
import trio

from gfs.changes import text_of
from gfs.cli.finding import about, cluster_option, connected, reach, shadow_option
from gfs.cli.output import complain, out, out_name, shown, size_text, time_text, umask
from gfs.errors import GfsError, IsADirectory, NotFound
from gfs.items import Inode
from gfs.messages import Layout, ListedName

if TYPE_CHECKING:
    from gfs.client.filesystem import Filesystem

_PATH = click.Path(path_type=bytes)
_JSON = click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")


@click.command()
@cluster_option
@shadow_option
@click.argument("paths", nargs=-1, type=_PATH)
@click.option("-l", "--long", is_flag=True, help="Mode, owner, size and time as well.")
@click.option("-0", "--print0", is_flag=True, help="End names with NUL instead of newline.")
@_JSON
@click.pass_context
def ls(
    context: click.Context, paths: tuple[bytes, ...], long: bool, print0: bool, as_json: bool
) -> None:
    """List PATHS (default: where one stands), names in byte order."""
    place = reach(context.obj, paths)
    wanted = [place.path(path) for path in paths] or [place.here]

    async def work() -> None:
        async with connected(place) as files:
            for path in wanted:
                if len(wanted) > 1 and not as_json:
                    out_name(path + b":")
                with about(path):
                    async for one in _listed(files, path, long or as_json):
                        _print_name(one, long, as_json, b"\0" if print0 else b"\n")

    trio.run(work)


@click.command()
@cluster_option
@shadow_option
@click.argument("paths", nargs=-1, required=True, type=_PATH)
@click.option("--chunks", is_flag=True, help="Where the bytes lie: chunks and their replicas.")
@_JSON
@click.pass_context
def stat(context: click.Context, paths: tuple[bytes, ...], chunks: bool, as_json: bool) -> None:
    """Attributes of PATHS; symbolic links are not followed."""
    place = reach(context.obj, paths)

    async def work() -> None:
        async with connected(place) as files:
            for path in map(place.path, paths):
                with about(path):
                    ino, inode = await files.stat(path, follow=False)
                    layout = await files.layout(ino) if chunks else None
                _print_stat(path, ino, inode, layout, as_json)

    trio.run(work)


@click.command()
@cluster_option
@click.argument("paths", nargs=-1, required=True, type=_PATH)
@click.option("-p", "--parents", is_flag=True, help="Missing parents too; existing is no error.")
@click.pass_context
def mkdir(context: click.Context, paths: tuple[bytes, ...], parents: bool) -> None:
    """Make directories."""
    place = reach(context.obj, paths)

    async def work() -> None:
        async with connected(place) as files:
            for path in map(place.path, paths):
                with about(path):
                    await files.make_directory(path, 0o777 & ~umask(), parents=parents)

    trio.run(work)


@click.command()
@cluster_option
@click.argument("paths", nargs=-1, required=True, type=_PATH)
@click.option("-r", "--recursive", is_flag=True, help="Directories with all they hold.")
@click.option("-f", "--force", is_flag=True, help="A missing path is no error.")
@click.pass_context
def rm(context: click.Context, paths: tuple[bytes, ...], recursive: bool, force: bool) -> int:
    """Remove PATHS; what is older than ten minutes, and trees, can be undeleted."""
    place = reach(context.obj, paths)

    async def work() -> int:
        failed = 0
        async with connected(place) as files:
            for path in map(place.path, paths):
                try:
                    with about(path):
                        await files.remove(path, recursive=recursive)
                except NotFound as error:
                    if not force:
                        failed = 1
                        complain(str(error))
                except IsADirectory as error:
                    failed = 1
                    complain(f"{error}; -r removes it with all it holds")
                except GfsError as error:
                    failed = 1
                    complain(str(error))
        return failed

    return trio.run(work)


# --- work ----------------------------------------------------------------------------


async def _listed(files: Filesystem, path: bytes, plus: bool) -> AsyncIterator[ListedName]:
    ino, inode = await files.stat(path)
    if inode.is_directory:
        async for one in files.list_directory(ino, plus=plus):
            yield one
    else:
        yield ListedName(path, ino, modes.S_IFMT(inode.mode), inode)


# --- printing ------------------------------------------------------------------------


def _print_name(one: ListedName, long: bool, as_json: bool, end: bytes) -> None:
    inode = one.inode
    if as_json:
        out(json.dumps({"name": text_of(one.name), **_fields(one.ino, inode)}))
    elif long and inode is not None:
        about_it = (
            f"{modes.filemode(inode.mode)} {inode.nlink:>3} {inode.uid:>5} {inode.gid:>5} "
            f"{inode.size:>12} {time_text(inode.mtime_ns)} "
        )
        out(about_it, end=b"")
        target = b" -> " + inode.target if inode.target else b""
        out_name(one.name + target, end)
    else:
        out_name(one.name, end)


def _fields(ino: int, inode: Inode | None) -> dict[str, Any]:
    if inode is None:
        return {"ino": ino}
    fields: dict[str, Any] = {
        "ino": ino,
        "type": _kind(inode.mode),
        "mode": f"{inode.mode & 0o7777:04o}",
    }
    for name in ("nlink", "uid", "gid", "size", "stored", "atime_ns", "mtime_ns", "ctime_ns"):
        fields[name] = getattr(inode, name)
    fields["data_version"] = inode.data_version
    if inode.target:
        fields["target"] = text_of(inode.target)
    if inode.attributes:
        fields["attributes"] = {
            text_of(name): text_of(value) for name, value in inode.attributes.items()
        }
    return fields


def _kind(mode: int) -> str:
    names = {
        modes.S_IFREG: "file",
        modes.S_IFDIR: "directory",
        modes.S_IFLNK: "link",
        modes.S_IFIFO: "fifo",
        modes.S_IFSOCK: "socket",
        modes.S_IFCHR: "character device",
        modes.S_IFBLK: "block device",
    }
    return names.get(modes.S_IFMT(mode), "unknown")


def _print_stat(path: bytes, ino: int, inode: Inode, layout: Layout | None, as_json: bool) -> None:
    if as_json:
        found = {"path": text_of(path), **_fields(ino, inode)}
        if layout is not None:
            found["chunks"] = list(_chunk_rows(layout))
        out(json.dumps(found))
        return
    mode = f"{inode.mode & 0o7777:04o} {modes.filemode(inode.mode)}"
    out(f"  File: {shown(path)}")
    out(f"  Size: {inode.size} ({size_text(inode.size)}), {inode.stored} stored")
    out(f" Inode: {ino}, {_kind(inode.mode)}, {inode.nlink} links")
    out(f" Owner: {mode} uid {inode.uid} gid {inode.gid}")
    times = {"Access": inode.atime_ns, "Modify": inode.mtime_ns, "Change": inode.ctime_ns}
    for what, when in times.items():
        out(f"{what}: {time_text(when)}.{when % 1_000_000_000:09d}")
    if layout is not None:
        out(f"{'offset':>14} {'length':>12}  handle            version  state   replicas")
        for row in _chunk_rows(layout):
            replicas = ", ".join(row["replicas"]) or "none"
            out(
                f"{row['offset']:>14} {row['length']:>12}  {row['handle']}  "
                f"{row['version']:>7}  {row['state']:<6}  {replicas}"
            )


def _chunk_rows(layout: Layout) -> Any:
    """A row an extent, then the open tail if there is one."""
    chunks = {chunk.handle: chunk for chunk in layout.chunks}
    for laid in layout.extents:
        extent = laid.extent
        chunk = chunks.get(extent.handle)
        yield {
            "offset": laid.file_offset,
            "length": extent.length,
            "handle": f"{extent.handle:016x}",
            "chunk_offset": extent.chunk_offset,
            "version": chunk.version if chunk else 0,
            "state": ("sealed" if chunk.sealed else "open") if chunk else "lost",
            "replicas": [member.address for member in chunk.members] if chunk else [],
        }
