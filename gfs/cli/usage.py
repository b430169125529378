"""`gfs du`: what trees hold, from sums that are kept: du(1)'s words, no walk.

Numbers are du(1)'s: blocks of 1 KiB taken on disk, rounded up, with --apparent-size
what stat says of sizes. Two things differ: without -d only the paths given are
printed, and an inode with names in several directories counts in one of them (--by
counts it wherever a name of it lies, as du(1) does).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import click

from gfs.changes import bytes_of
from gfs.cli.finding import Place, reach
from gfs.cli.output import out, out_name, remark, shown, size_text
from gfs.cli.queries import ask_view, asked_path, print_rows, print_standing, question

_PATH = click.Path(path_type=bytes)
_GROUPS = ("owner", "group", "extension", "kind")


@click.command()
@question
@click.argument("paths", nargs=-1, type=_PATH)
@click.option("-d", "--max-depth", "--depth", "depth", type=click.IntRange(0, 1000),
              help="Directories so many levels below, too. [0]")  # fmt: skip
@click.option("-s", "--summarize", is_flag=True, help="Only the paths given (as without -d).")
@click.option("-h", "--human-readable", "human", is_flag=True, help="As 1.5 KiB.")
@click.option("--apparent-size", is_flag=True, help="Sizes, not what is taken on disk.")
@click.option("-b", "--bytes", "exact", is_flag=True, help="Sizes in bytes.")
@click.option("--inodes", is_flag=True, help="Count inodes instead.")
@click.option("--by", type=click.Choice(_GROUPS), help="Sums of each owner, extension, ...")
@click.pass_context
def du(
    context: click.Context,
    paths: tuple[bytes, ...],
    depth: int | None,
    summarize: bool,
    human: bool,
    apparent_size: bool,
    exact: bool,
    inodes: bool,
    by: str | None,
    wait: bool,
    as_json: bool,
) -> None:
    """What PATHS take on disk, in KiB: sums are kept, so at once. With --json one object a path.

    Default: where one stands in a mount, else everything.
    """
    if (summarize or by) and depth is not None:
        raise click.UsageError(f"-d does not go with {'-s' if summarize else '--by'}")
    place = reach(context.obj, paths)
    number = _Shown(human=human, apparent=apparent_size or exact, exact=exact, inodes=inodes)
    found: dict[str, Any] = {}
    for path in paths or (b"." if place.inside else b"/",):
        if by is not None:
            asked: dict[str, str | int] = {"path": asked_path(place, path), "by": by}
            found = ask_view(place, "analytics", "/sums", asked, wait=wait)
        else:
            found = _sums(place, path, depth or 0, wait)
        if as_json:
            out(json.dumps(found))
        elif by is not None:
            print_rows(found["columns"], found["rows"])
        else:
            _print(found, path, number)
    if not as_json:
        print_standing(found)


def _sums(place: Place, path: bytes, depth: int, wait: bool) -> dict[str, Any]:
    asked: dict[str, str | int] = {"path": asked_path(place, path), "depth": depth}
    return ask_view(place, "search", "/du", asked, wait=wait)


class _Shown:
    """How a row's number is printed."""

    def __init__(self, *, human: bool, apparent: bool, exact: bool, inodes: bool) -> None:
        self._human, self._apparent, self._exact, self._inodes = human, apparent, exact, inodes

    def __call__(self, row: Mapping[str, Any]) -> str:
        if self._inodes:
            return str(row["files"] + row["directories"] + row["itself"])
        size: int = row["bytes" if self._apparent else "disk_bytes"]
        if self._human:
            return size_text(size)
        return str(size if self._exact else -(-size // 1024))


def _print(found: Mapping[str, Any], typed: bytes, number: _Shown) -> None:
    """A directory after those in it; paths begin as they were typed."""
    above = len(bytes_of(found["path"]).rstrip(b"/"))
    below = sorted(found["below"], key=lambda row: str(row["path"]), reverse=True)
    for row in below:
        out(number(row), end=b"\t")
        out_name(typed.rstrip(b"/") + bytes_of(row["path"])[above:])
    out(number(found), end=b"\t")
    out_name(typed)
    if found["truncated"]:
        remark(f"{shown(typed)}: only the first {len(below)} directories (a lesser -d)")
