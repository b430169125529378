"""`gfs report NAME`: questions that many ask of the analytics view, by name."""

from __future__ import annotations

import json
import re
import time
from typing import Any

import click
import trio

from gfs.cli.alike import verified
from gfs.cli.finding import reach
from gfs.cli.output import out, remark
from gfs.cli.queries import ask_view, asked_path, print_rows, print_standing, question
from gfs.errors import UsageError

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400, "y": 365 * 86400}


def moment(text: str, now_ns: int) -> int:
    """Nanoseconds since 1970 of ``90d`` (ago; s m h d w y) or ``2026-01-31[T12:00:00]``, local.

    Raises: UsageError.
    """
    if ago := re.fullmatch(r"([0-9]{1,9})([smhdwy])", text, re.ASCII):
        return max(0, now_ns - int(ago[1]) * _SECONDS[ago[2]] * 10**9)
    for form in ("%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"):
        try:
            return max(0, int(time.mktime(time.strptime(text, form)))) * 10**9
        except (ValueError, OverflowError):
            continue
    raise UsageError(f"{text[:40]!r} is no time: 90d, 12h, 2026-01-31 or 2026-01-31T12:00:00")


@click.command()
@question
@click.argument("name", required=False)
@click.argument("path", required=False, type=click.Path(path_type=bytes))
@click.option("-n", "rows", type=click.IntRange(1, 10_000), help="Rows at most. [20]")
@click.option("--since", help="90d, 12h, or a date: only what came after; for cold, before.")
@click.option("--by", help="What rows are: growth by hour, growing by tree, sums by group, ...")
@click.option("--per-owner", is_flag=True, help="growth: a row each owner and period.")
@click.option("--of", help="ages: of mtime, atime, ctime, created or used (read or written).")
@click.option("--uid", type=click.IntRange(0), help="Only this user's; active, deleted: by him.")
@click.option("--name", "glob", help="deleted: a shell pattern for the name.")
@click.option("--verify", is_flag=True, help="duplicates: read the files and compare them.")
@click.pass_context
def report(
    context: click.Context,
    name: str | None,
    path: bytes | None,
    rows: int | None,
    since: str | None,
    by: str | None,
    per_owner: bool,
    of: str | None,
    uid: int | None,
    glob: str | None,
    verify: bool,
    wait: bool,
    as_json: bool,
) -> None:
    """A report by its NAME, of everything or of the tree at PATH. Without NAME: which there are."""
    place = reach(context.obj, [path] if path else [])
    given: dict[str, str | int | None] = {
        "path": None if path is None else asked_path(place, path),
        "n": rows,
        "since_ns": None if since is None else moment(since, time.time_ns()),
        "by": by,
        "owner": 1 if per_owner else None,
        "of": of,
        "uid": uid,
        "name": glob,
    }
    asked = {key: value for key, value in given.items() if value is not None}
    target = "/report" if name is None else f"/report/{name}"
    if name is not None and not re.fullmatch("[a-z]{1,40}", name):
        raise UsageError(f"{name[:40]!r} is no report; `gfs report` lists them")
    if verify and name != "duplicates":
        raise UsageError("--verify is for the report duplicates")
    found: dict[str, Any] = ask_view(place, "analytics", target, asked, wait=wait)
    if verify:
        said = trio.run(verified, place, found)
        found["columns"].append("verified")
        found["rows"] = [[*row, one] for row, one in zip(found["rows"], said, strict=True)]
    if as_json:
        out(json.dumps(found))
        return
    if name is None:
        shown = [[one["report"], one["title"], " ".join(one["takes"])] for one in found["reports"]]
        print_rows(["report", "answers", "takes"], shown)
        return
    print_rows(found["columns"], found["rows"])
    if found["truncated"]:
        remark(f"only the first {len(found['rows'])} rows")
    print_standing(found)
