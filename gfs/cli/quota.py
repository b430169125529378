"""`gfs quota`: what a directory may hold, what it holds, and who is near the limit."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click
import trio

from gfs.changes import text_of
from gfs.cli.finding import about, cluster_option, connected, reach
from gfs.cli.output import out, shown, size_text
from gfs.cli.status import grace_text
from gfs.errors import NotFound, UsageError

if TYPE_CHECKING:
    from gfs.messages import QuotaUse

_PATH = click.Path(path_type=bytes)
_JSON = click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
_UNITS = ["", "K", "M", "G", "T", "P"]
_SIZE = re.compile(r"(\d+(?:\.\d+)?)([KMGTP]?)(?:i?B)?", re.IGNORECASE)
_COUNT = re.compile(r"(\d+(?:\.\d+)?)([KMG]?)", re.IGNORECASE)


def limit_of(what: str, text: str) -> int:
    """A number with a unit: a SIZE by 1024 (10G, 1.5TiB), a COUNT by 1000 (200k); "none" is 0.

    Raises: UsageError.
    """
    text = text.strip()
    if text.lower() == "none":
        return 0
    form, base = (_SIZE, 1024) if what == "SIZE" else (_COUNT, 1000)
    found = form.fullmatch(text)
    if found is None:
        example = "10G, 512MiB" if what == "SIZE" else "5000, 200k"
        raise UsageError(f"{text!r} is no {what.lower()} such as {example}, none")
    return int(float(found[1]) * base ** _UNITS.index(found[2].upper()))


class _Limit(click.ParamType):  # type: ignore[type-arg]
    """As `limit_of`."""

    def __init__(self, name: str) -> None:
        self.name = name

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            return limit_of(self.name, str(value))
        except UsageError as error:
            self.fail(str(error), param, ctx)


class _Quota(click.Group):
    """A word that is no command is a path to show."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in self.commands:
            return "show", self.commands["show"], args
        return super().resolve_command(ctx, args)


@click.group(
    cls=_Quota,
    subcommand_metavar="PATH | set PATH ... | clear PATH | list",
    context_settings={"ignore_unknown_options": True},  # they are of the command to come
)
def quota() -> None:
    """Limits on bytes and files below a directory.

    Bytes are those that `du` counts: holes are free, snapshots and clones count in full. Files
    are files, directories, links and all else. A hard limit is passed by nothing but appended
    records, for some seconds; above a soft one there is room for a grace period. All quotas
    above a file count it. The trash counts nowhere.
    """


@quota.command()
@cluster_option
@click.argument("path", type=_PATH)
@_JSON
@click.pass_context
def show(context: click.Context, path: bytes, as_json: bool) -> None:
    """Show the quotas that count what lies at PATH, the nearest first."""
    from gfs.messages import GetQuota, Quotas

    place = reach(context.obj, [path])

    async def work() -> list[QuotaUse]:
        async with connected(place) as files:
            with about(path):
                ino = (await files.walk(place.path(path))).entry.ino
                return (await files.client.link.ask(GetQuota(ino), Quotas)).quotas

    found = trio.run(work)
    if not found and not as_json:
        raise NotFound(f"{shown(path)}: no quota counts what lies there")
    _print(found, as_json)


@quota.command("list")
@cluster_option
@_JSON
@click.pass_context
def list_command(context: click.Context, as_json: bool) -> None:
    """List all quotas; root only."""
    from gfs.messages import ListQuotas, Quotas

    place = reach(context.obj)

    async def work() -> list[QuotaUse]:
        found: list[QuotaUse] = []
        async with connected(place) as files:
            more = True
            while more:
                after = found[-1].ino if found else 0
                page = await files.client.link.ask(ListQuotas(files.actor, after), Quotas)
                found += page.quotas
                more = page.more
        return sorted(found, key=lambda one: one.path)

    _print(trio.run(work), as_json)


@quota.command("set")
@cluster_option
@click.argument("path", type=_PATH)
@click.option("--bytes", "bytes_max", type=_Limit("SIZE"), help="Never more than this: 10G, none.")
@click.option("--soft-bytes", type=_Limit("SIZE"), help="More than this for a while only.")
@click.option("--files", "files_max", type=_Limit("COUNT"), help="Never more than this: 200k.")
@click.option("--soft-files", type=_Limit("COUNT"), help="More than this for a while only.")
@click.pass_context
def set_command(
    context: click.Context,
    path: bytes,
    bytes_max: int | None,
    soft_bytes: int | None,
    files_max: int | None,
    soft_files: int | None,
) -> None:
    """Limit what lies below the directory PATH; root only.

    What is not given stays as it is. What lies in a big tree that had no quota before is
    counted behind the command; `gfs quota PATH` says so until it is done.
    """
    from gfs.messages import SetQuota

    given = (bytes_max, soft_bytes, files_max, soft_files)
    if all(one is None for one in given):
        raise click.UsageError("give a limit: --bytes, --soft-bytes, --files, --soft-files")
    _mutate(context, path, lambda ino: SetQuota(ino, *given))


@quota.command()
@cluster_option
@click.argument("path", type=_PATH)
@click.pass_context
def clear(context: click.Context, path: bytes) -> None:
    """Take the quota of the directory PATH away; root only."""
    from gfs.messages import ClearQuota

    _mutate(context, path, ClearQuota)


def _mutate(context: click.Context, path: bytes, operation: Any) -> None:
    place = reach(context.obj, [path])

    async def work() -> None:
        async with connected(place) as files:
            with about(path):
                ino = (await files.walk(place.path(path))).entry.ino
                await files.client.link.mutate(operation(ino), files.actor)

    trio.run(work)


def _print(found: Sequence[QuotaUse], as_json: bool) -> None:
    for one in found:
        out(json.dumps(_fields(one)) if as_json else "\n".join(describe(one)))


def _fields(one: QuotaUse) -> dict[str, object]:
    return {
        "path": text_of(one.path),
        "ino": one.ino,
        "counting": one.counting,
        "bytes": _figures(one.used_bytes, one.bytes_max, one.bytes_soft, one.bytes_grace_s),
        "files": _figures(one.used_files, one.files_max, one.files_soft, one.files_grace_s),
    }


def _figures(used: int, hard: int, soft: int, grace_s: float) -> dict[str, object]:
    """A limit that there is not is null; so is the grace of what is not exceeded."""
    return {
        "used": used,
        "hard": hard or None,
        "soft": soft or None,
        "percent": round(100 * used / (hard or soft), 1) if hard or soft else None,
        "grace_s": round(grace_s, 1) if grace_s >= 0 else None,
    }


def describe(one: QuotaUse) -> list[str]:
    """A quota in lines for people."""
    path = shown(one.path) if one.path else f"inode {one.ino}, in the trash"
    about_it = ", being counted: there may be more" if one.counting else ""
    in_bytes = _row(one.used_bytes, one.bytes_max, one.bytes_soft, one.bytes_grace_s, size_text)
    in_files = _row(one.used_files, one.files_max, one.files_soft, one.files_grace_s, str)
    return [f"{path}{about_it}", f"  bytes: {in_bytes}", f"  files: {in_files}"]


def _row(used: int, hard: int, soft: int, grace_s: float, text: Callable[[int], str]) -> str:
    line = f"{text(used)} used"
    if hard:
        line += f" of {text(hard)}"
    if soft:
        line += f", soft limit {text(soft)}"
    if hard or soft:
        line += f", {100 * used / (hard or soft):.0f} %"
    if grace_s >= 0:
        line += f", {grace_text(grace_s)}"
    return line
