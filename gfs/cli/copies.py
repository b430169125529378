"""`gfs snapshot` and `gfs clone`."""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import click
import trio

from gfs.changes import text_of
from gfs.cli.finding import about, cluster_option, connected, reach
from gfs.cli.output import out, remark, shown, waiting

if TYPE_CHECKING:
    from gfs.client.copying import Copied
    from gfs.client.filesystem import Filesystem

_PATH = click.Path(path_type=bytes)
_Copy = Callable[["Filesystem", bytes, bytes], Awaitable["Copied"]]
_JSON = click.option("--json", "as_json", is_flag=True, help="One JSON object.")


@click.command()
@cluster_option
@click.argument("source", type=_PATH)
@click.argument("destination", type=_PATH)
@_JSON
@click.pass_context
def snapshot(context: click.Context, source: bytes, destination: bytes, as_json: bool) -> None:
    """Copy SOURCE, a file or a whole tree, to DESTINATION (or into that directory) at once.

    No content is copied: both share it until one is written. The copy is the tree as it
    is at one moment, and an ordinary tree from then on. Root's keeps owners; anybody
    else needs to read all of it and owns the copy, as with `cp -a`.
    """
    from gfs.client.copying import snapshot as work

    _run(context, source, destination, as_json, work)


@click.command()
@cluster_option
@click.argument("file", type=_PATH)
@click.argument("destination", type=_PATH)
@_JSON
@click.pass_context
def clone(context: click.Context, file: bytes, destination: bytes, as_json: bool) -> None:
    """Copy one FILE to DESTINATION (or into that directory) without copying its content."""
    from gfs.client.copying import clone as work

    _run(context, file, destination, as_json, work)


def _run(
    context: click.Context, source: bytes, destination: bytes, as_json: bool, copy: _Copy
) -> None:
    place = reach(context.obj, [source, destination])
    began = time.perf_counter()

    async def work() -> Copied:
        async with connected(place) as files:
            with about(source):
                return await copy(files, place.path(source), place.path(destination))

    assert context.command.name is not None
    with waiting(f"{context.command.name} {shown(source)}"):
        made = trio.run(work)
    seconds = time.perf_counter() - began
    if as_json:
        fields = {"ino": made.root, "inodes": made.inodes, "seconds": round(seconds, 3)}
        out(json.dumps({"path": text_of(made.path), **fields}))
    else:
        out(made.path)
        remark(f"{made.inodes} inodes of {shown(source)} copied in {seconds:.2f} s")
