"""`gfs history PATH`: what happened to a file, through renames, links, trash and copies."""

from __future__ import annotations

import json
import stat
import time
from collections.abc import Callable
from typing import Any

import click

from gfs.cli.finding import reach
from gfs.cli.output import out, remark, time_text
from gfs.cli.queries import ask_view, asked_path, print_rows, print_standing, question
from gfs.cli.report import moment
from gfs.errors import UsageError

_STATES = {"there": "", "trash": ", in the trash", "gone": ", gone"}


@click.command()
@question
@click.argument("path", required=False, type=click.Path(path_type=bytes))
@click.option("--ino", type=click.IntRange(1), help="By its number instead of a path.")
@click.option("-n", "--limit", type=click.IntRange(1, 100_000), help="Events at most. [100]")
@click.option("--since", help="90d, 12h, or a date: only what came after.")
@click.option("--until", help="Only what came before.")
@click.option("--reverse", is_flag=True, help="Oldest first.")
@click.pass_context
def history(
    context: click.Context,
    path: bytes | None,
    ino: int | None,
    limit: int | None,
    since: str | None,
    until: str | None,
    reverse: bool,
    wait: bool,
    as_json: bool,
) -> None:
    """Every event of the file at PATH, newest first; also of one that is gone, by its last path."""
    if (path is None) == (ino is None):
        raise UsageError("give a PATH, or --ino")
    place = reach(context.obj, [path] if path else [])
    now = time.time_ns()
    given: dict[str, str | int | None] = {
        "path": None if path is None else asked_path(place, path),
        "ino": ino,
        "limit": limit,
        "since_ns": None if since is None else moment(since, now),
        "until_ns": None if until is None else moment(until, now),
        "order": "oldest" if reverse else None,
    }
    asked = {key: value for key, value in given.items() if value is not None}
    found: dict[str, Any] = ask_view(place, "analytics", "/history", asked, wait=wait)
    if as_json:
        out(json.dumps(found))
        return
    rows = [dict(zip(found["columns"], row, strict=True)) for row in found["rows"]]
    shown = [[time_text(row["time_ns"]), row["event"], told(row), _actor(row)] for row in rows]
    print_rows(["time", "event", "what", "by"], shown)
    _remarks(found)
    print_standing(found)


def told(row: dict[str, Any]) -> str:
    """What an event did, for people."""
    event, detail = row["event"], json.loads(row["detail"] or "{}")
    if event == "written":
        return f"{row['size_before']} -> {row['size']} bytes"
    if event == "attributes":
        return ", ".join(f"{name} {_values(name, both)}" for name, both in detail.items())
    if event == "xattrs":
        gone = [f"-{name}" for name in detail["removed"]]
        return ", ".join([*(f"+{name}" for name in detail["set"]), *gone])
    if event == "copied":
        return f"{row['path']} made as a copy of inode {detail['source']}"
    if row["path"] and row["from_path"]:
        return f"{row['from_path']} -> {row['path']}"
    return str(row["path"] or row["from_path"] or "")


_SHOWN: dict[str, Callable[[Any], str]] = {
    "mode": lambda value: f"{stat.S_IMODE(value):04o}",
    "mtime_ns": time_text,
}


def _values(name: str, both: list[Any]) -> str:
    text = _SHOWN.get(name, str)
    return f"{text(both[0])} -> {text(both[1])}"


def _actor(row: dict[str, Any]) -> str:
    where = f" at {row['host']}:{row['mount']}" if row["mount"] else f" at {row['host']}"
    by = f"uid {row['uid']}" + (f" pid {row['pid']}" if row["pid"] else "")
    return by + (where if row["host"] else "")


def _remarks(found: dict[str, Any]) -> None:
    path = found["path"] or "no name of it is known"
    remark(f"inode {found['ino']}, {path}{_STATES[found['state']]}")
    if found["others"]:
        numbers = ", ".join(map(str, found["others"]))
        remark(f"others were at this path before (--ino): {numbers}")
    if found["truncated"]:
        remark(f"only {len(found['rows'])} events (--limit)")
