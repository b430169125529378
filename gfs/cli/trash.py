"""`gfs trash list|empty` and `gfs undelete`."""

from __future__ import annotations

import datetime as dt
import json
import re
import time
from typing import TYPE_CHECKING, Any

import click
import trio

from gfs.changes import text_of
from gfs.cli.finding import Place, about, cluster_option, connected, reach
from gfs.cli.output import out, remark, shown, size_text, time_text, waiting
from gfs.errors import NotFound

if TYPE_CHECKING:
    from gfs.client.filesystem import Filesystem
    from gfs.client.trash import Candidate
    from gfs.messages import TrashEntry

_PATH = click.Path(path_type=bytes)
_AGES = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_NS = 1_000_000_000


class _Moment(click.ParamType):  # type: ignore[type-arg]
    """A time in ns: 2026-05-31 17:45, 17:45 (today), 90m (ago), @1780000000."""

    name = "TIME"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        text = str(value).strip()
        age = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text)
        if age:
            return time.time_ns() - int(float(age[1]) * _AGES[age[2]] * _NS)
        try:
            if text.startswith("@"):
                return int(float(text[1:]) * _NS)
            if re.fullmatch(r"\d{1,2}:\d\d(:\d\d)?", text):
                text = f"{dt.datetime.now().astimezone().date().isoformat()} {text.zfill(5)}"
            return int(dt.datetime.fromisoformat(text).astimezone().timestamp() * _NS)
        except (ValueError, OverflowError):
            self.fail(f"{value!r} is no time (2026-05-31 17:45, 17:45, 90m, @1780000000)")


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
                _print_entry(one, one.path, as_json)

    trio.run(work)


def _print_entry(one: TrashEntry, path: bytes, as_json: bool) -> None:
    if as_json:
        fields = {name: getattr(one, name) for name in ("ino", "deleted_ns", "uid", "size")}
        out(json.dumps({"path": text_of(path), **fields}))
    else:
        out(
            f"{one.ino:>14}  {time_text(one.deleted_ns)}  uid {one.uid:<6} "
            f"{size_text(one.size):>10}  {shown(path)}"
        )


@trash.command()
@cluster_option
@click.argument("paths", nargs=-1, type=_PATH)
@click.option("--all", "everything", is_flag=True, help="Everything one may.")
@click.pass_context
def empty(context: click.Context, paths: tuple[bytes, ...], everything: bool) -> None:
    """Give up PATHS (as `gfs trash list` shows them), or everything, for good.

    Large trees are reclaimed behind the command; nothing of them can be undeleted any more.
    """
    if bool(paths) == everything:
        raise click.UsageError("give paths, or --all")
    place = reach(context.obj, paths)

    async def work() -> int:
        async with connected(place) as files:
            if everything:
                return await files.empty_trash()
            return await files.empty_trash([await _entry(files, place, path) for path in paths])

    with waiting("empty the trash"):
        count = trio.run(work)
    remark(f"{count} given up for good")


@click.command()
@cluster_option
@click.argument("path", type=_PATH)
@click.option("--to", type=_PATH, help="Another path to bring it back to.")
@click.option("--before", type=_Moment(), help="The latest one removed before this time.")
@click.option("--at", type=_Moment(), help="What stood there at this time.")
@click.option("--list", "only_list", is_flag=True, help="Show what could be meant, latest first.")
@click.option("--json", "as_json", is_flag=True, help="JSON objects.")
@click.pass_context
def undelete(
    context: click.Context,
    path: bytes,
    to: bytes | None,
    before: int | None,
    at: int | None,
    only_list: bool,
    as_json: bool,
) -> None:
    """Bring back PATH: the latest that stood there, a part of a removed tree, or a NAME.

    Without anything removed at PATH, what had this name, wherever it was; an inode number
    as in `gfs trash list` will do, too. Missing parents are made; a taken name gets a
    suffix. The path it has now is printed. A TIME is 2026-05-31 17:45, 17:45, 90m (ago)
    or @SECONDS.
    """
    if before is not None and at is not None:
        raise click.UsageError("--before or --at, not both")
    place = reach(context.obj, [path])

    async def work() -> None:
        from gfs.client.trash import choose

        async with connected(place) as files:
            found = await _candidates(files, place, path)
            if only_list:
                for one in found:
                    _print_entry(one.entry, one.path, as_json)
                return
            chosen = choose(found, before_ns=before, at_ns=at)
            if chosen is None:
                raise NotFound(f"{shown(path)} was not removed at such a time; --list shows when")
            await _bring_back(files, chosen, place.path(to) if to is not None else b"", as_json)

    trio.run(work)


async def _bring_back(files: Filesystem, chosen: Candidate, to: bytes, as_json: bool) -> None:
    with about(chosen.path), waiting(f"undelete {shown(chosen.path)}"):
        now = await files.undelete(chosen.entry.ino, to, chosen.part)
    if as_json:
        fields = {"was": text_of(chosen.path), "deleted_ns": chosen.entry.deleted_ns}
        out(json.dumps({"path": text_of(now), **fields}))
        return
    out(now)
    remark(f"{shown(chosen.path)}, removed {time_text(chosen.entry.deleted_ns)}, is back")
    if now != (to or chosen.path):
        remark(f"its path is {shown(now)} now: the old name is taken or cannot be had")


async def _candidates(files: Filesystem, place: Place, path: bytes) -> list[Candidate]:
    """Never empty."""
    from gfs.client.trash import candidates

    wanted = _absolute(place, path)
    found = await candidates(files, wanted, path if b"/" not in path else b"")
    if not found:
        raise NotFound(f"{shown(wanted)} is not in the trash")
    return found


def _absolute(place: Place, path: bytes) -> bytes:
    return b"/" + b"/".join(part for part in place.path(path).split(b"/") if part)


async def _entry(files: Filesystem, place: Place, path: bytes) -> int:
    """Inode of the latest entry of this path: whole entries are given up, not parts."""
    from gfs.client.trash import candidates

    wanted = _absolute(place, path)
    for one in await candidates(files, wanted, path if path.isdigit() else b""):
        if not one.part:
            return one.entry.ino
    raise NotFound(f"{shown(wanted)} is not in the trash, or only within a removed tree")
