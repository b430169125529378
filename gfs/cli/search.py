"""`gfs search`: files by name, path, kind, owner, size, time, attribute or link target.

All that is given must fit. Sizes are bytes, as large as they are:
``--size +10M --newer 2026-01-31`` or ``--newer 3d``.
"""

from __future__ import annotations

import grp
import json
import pwd
import re
import time
from collections.abc import Callable
from typing import Any

import click

from gfs.changes import bytes_of, text_of
from gfs.cli.finding import reach
from gfs.cli.output import out, out_name, remark
from gfs.cli.queries import ask_view, asked_path, barrier, print_standing, question
from gfs.cli.report import moment
from gfs.errors import UsageError

PAGE = 10_000  # rows asked for at once
_PATH = click.Path(path_type=bytes)
_UNITS = {"": 1, "c": 1, "k": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
Asked = dict[str, str | int]


@click.command()
@question
@click.argument("text", required=False, type=_PATH)
@click.option("--glob", type=_PATH, help="A shell pattern for the whole name.")
@click.option("--regex", type=_PATH, help="A regular expression (RE2) anywhere in the name.")
@click.option("-i", "--ignore-case", is_flag=True, help="For --glob, --regex, --target.")
@click.option("--path", type=_PATH, help="Only below this directory.")
@click.option("--ext", type=_PATH, help="Names that end with .EXT, any case.")
@click.option("--kind", help="Some of f d l p s b c.")
@click.option("--owner", help="User, by name or number.")
@click.option("--group", help="Group, by name or number.")
@click.option("--perm", help="Octal mode; -MODE all of these bits, /MODE any of them.")
@click.option("--size", multiple=True, help="+10M more, -1k less, 512 exactly; twice for a range.")
@click.option("--newer", help="Changed since: a date, or 3d, 12h ago.")
@click.option("--older", help="Not changed since.")
@click.option("--xattr", type=_PATH, metavar="NAME[=VALUE]", help="Has this attribute.")
@click.option("--target", type=_PATH, help="Symbolic links whose content fits the pattern.")
@click.option("--limit", default=1000, type=click.IntRange(1), help="At most. [1000]")
@click.option("--after", default="", help="The next page: `next` of the answer before.")
@click.option("--trash", is_flag=True, help="What lies in the trash, too.")
@click.option("-0", "--print0", is_flag=True, help="End paths with NUL instead of newline.")
@click.pass_context
def search(
    context: click.Context,
    /,
    text: bytes | None,
    path: bytes | None,
    limit: int,
    after: str,
    print0: bool,
    wait: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Paths whose last part contains TEXT, whatever the case of its letters, and that fit."""
    place = reach(context.obj, [path] if path else [])
    asked = _asked(text, given, time.time_ns())
    if path is not None:
        asked["path"] = asked_path(place, path)
    if wait:
        asked["wait"] = barrier(place)
    found: dict[str, Any] = {"next": after}
    rows: list[Any] = []
    while found["next"] is not None and len(rows) < limit:
        page: Asked = {"limit": min(PAGE, limit - len(rows))}
        page |= {"after": found["next"]} if found["next"] else {}
        found = ask_view(place, "search", "/search", asked | page, wait=False)
        if as_json:
            rows += found["rows"]
            continue
        rows += [None] * len(found["rows"])  # counted alone
        for row in found["rows"]:
            out_name(bytes_of(row["path"]), b"\0" if print0 else b"\n")
    if as_json:
        out(json.dumps(found | {"rows": rows}))
        return
    if found["next"] is not None:
        remark(f"there are more than {limit} (--limit, or --after {found['next']})")
    print_standing(found)


def _asked(text: bytes | None, given: dict[str, Any], now_ns: int) -> Asked:
    """Parameters of the view's ``/search``.

    Raises: UsageError.
    """
    if text is not None and given["glob"] is not None:
        raise UsageError("TEXT or --glob, not both")
    asked: Asked = {}
    for name in ("regex", "ext", "xattr", "target"):
        if given[name] is not None:
            asked[name] = text_of(given[name])
    for name in ("kind", "perm"):
        if given[name] is not None:
            asked[name] = given[name]
    if text is not None:
        asked["q"] = text_of(text)
    if given["glob"] is not None:
        asked |= {"q": text_of(given["glob"]), "glob": 1}
    if given["owner"] is not None:
        asked["uid"] = _number(given["owner"], lambda name: pwd.getpwnam(name).pw_uid)
    if given["group"] is not None:
        asked["gid"] = _number(given["group"], lambda name: grp.getgrnam(name).gr_gid)
    for size in given["size"]:
        asked |= _size(size)
    for name, parameter in (("newer", "mtime_after"), ("older", "mtime_before")):
        if given[name] is not None:
            asked[parameter] = moment(given[name], now_ns)
    asked |= {"trash": 1} if given["trash"] else {}
    asked |= {"fold": 1} if given["ignore_case"] else {}
    return asked


def _number(name: str, lookup: Callable[[str], int]) -> int:
    try:
        return lookup(name)
    except KeyError:
        if name.isascii() and name.isdigit():
            return int(name)
        raise UsageError(f"{name!r} is nobody known here") from None


def _size(text: str) -> Asked:
    """Bounds in bytes; unlike find's, sizes are not rounded up to the unit."""
    found = re.fullmatch(r"([+-]?)([0-9]{1,15})([ckMGT]?)", text, re.ASCII)
    if found is None:
        raise UsageError(f"--size {text!r}: a number with + or - before, c k M G T behind")
    size = int(found[2]) * _UNITS[found[3]]
    if found[1] == "+":
        return {"size_min": size + 1}
    if found[1] == "-":
        if size == 0:
            raise UsageError("--size -0: nothing is smaller")
        return {"size_max": size - 1}
    return {"size_min": size, "size_max": size}
