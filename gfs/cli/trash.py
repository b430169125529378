"""`gfs trash list|empty` and `gfs undelete`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click
import trio

from gfs.changes import text_of
from gfs.cli.finding import Place, about, cluster_option, connected, reach
from gfs.cli.output import out, shown, size_text, time_text
from gfs.errors import NotFound
from gfs.messages import TrashEntry

if TYPE_CHECKING:
    from gfs.client.filesystem import Filesystem

_PATH = click.Path(path_type=bytes)


@click.group()
def trash() -> None:
    """What was removed and can still be undeleted; root sees all, others their own."""


@trash.command("list")
@cluster_option
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@click.pass_context
def list_command(context: click.Context, as_json: bool) -> None:
    """List the trash: inode, when and by whom, size, path."""
    place = reach(context.obj)

    async def work() -> None:
        async with connected(place) as files:
            async for one in files.list_trash():
                if as_json:
                    fields = {
                        name: getattr(one, name) for name in ("ino", "deleted_ns", "uid", "size")
                    }
                    out(json.dumps({"path": text_of(one.path), **fields}))
                else:
                    out(
                        f"{one.ino:>14}  {time_text(one.deleted_ns)}  uid {one.uid:<6} "
                        f"{size_text(one.size):>10}  {shown(one.path)}"
                    )

    trio.run(work)


@trash.command()
@cluster_option
@click.argument("paths", nargs=-1, type=_PATH)
@click.option("--all", "everything", is_flag=True, help="Everything one may.")
@click.pass_context
def empty(context: click.Context, paths: tuple[bytes, ...], everything: bool) -> None:
    """Give up PATHS (as `gfs trash list` shows them), or everything, for good."""
    if bool(paths) == everything:
        raise click.UsageError("give paths, or --all")
    place = reach(context.obj, paths)

    async def work() -> None:
        async with connected(place) as files:
            inos = [(await _entry(files, place, path)).ino for path in paths]
            await files.empty_trash(inos)

    trio.run(work)


@click.command()
@cluster_option
@click.argument("path", type=_PATH)
@click.option("--to", type=_PATH, help="Another path to bring it back to.")
@click.pass_context
def undelete(context: click.Context, path: bytes, to: bytes | None) -> None:
    """Bring back PATH (the newest removed there), or the inode number given as PATH.

    Missing parents are made; a taken name gets a suffix. The path it has now is printed.
    """
    place = reach(context.obj, [path])

    async def work() -> None:
        async with connected(place) as files:
            one = await _entry(files, place, path)
            with about(one.path):
                target = place.path(to) if to is not None else b""
                out(await files.undelete(one.ino, target))

    trio.run(work)


async def _entry(files: Filesystem, place: Place, path: bytes) -> TrashEntry:
    """The newest entry of this path, or the one with this inode number."""
    wanted = b"/" + b"/".join(part for part in place.path(path).split(b"/") if part)
    best: TrashEntry | None = None
    async for one in files.list_trash():
        named = one.path == wanted or (path.isdigit() and one.ino == int(path))
        if named and (best is None or one.deleted_ns > best.deleted_ns):
            best = one
    if best is None:
        raise NotFound(f"{shown(wanted)} is not in the trash")
    return best
