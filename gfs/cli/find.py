"""`gfs find`: the words of find(1), answered by the search view instead of a walk.

Paths are shown as find shows them: beginning with the start point as it was typed. The
expression is parsed here and evaluated there; what would act on files (-delete, -exec)
is refused, since the answer may be older than the files: pipe ``-print0`` into xargs.
"""

from __future__ import annotations

import grp
import json
import os
import pwd
import stat
import time
from typing import Any

import click
import httpx
import msgspec

from gfs import findexpr
from gfs.changes import bytes_of, text_of
from gfs.cli.finding import Place, reach
from gfs.cli.output import out, out_name, time_text
from gfs.cli.queries import answer, asked_path, print_standing
from gfs.errors import UsageError

# No option of click's own: it would see an -h in -maxdepth.
_WORDS = {
    "ignore_unknown_options": True,
    "allow_interspersed_args": False,
    "help_option_names": [],
}
_OWN = ("--wait", "--json")
_PRINTS = ("print", "print0", "ls")


@click.command(context_settings=_WORDS)
@click.argument("words", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def find(context: click.Context, words: tuple[str, ...]) -> None:
    """find(1)'s own words: gfs find / -name '*.log' -size +1M -print0

    Also, anywhere: --wait (nothing done before is missing), --json (an object a line),
    --cluster DIR-or-URL.
    """
    if words in (("--help",), ("-h",), ("-help",)):
        out(context.get_help())
        return
    rest, own, cluster = _split(list(words), context.obj)
    expression = findexpr.parse(
        [text_of(os.fsencode(word)) for word in rest],
        now_ns=time.time_ns(),
        user=_uid,
        group=_gid,
    )
    action = expression.action.name
    if action not in _PRINTS:
        raise UsageError(f"find: -{action} is not for views; pipe -print0 into xargs -0")
    place = reach(cluster, [bytes_of(path) for path in expression.paths])
    rows = "--json" in own or action == "ls"
    body = msgspec.json.encode(_request(place, expression, nul=not rows))
    with answer(place, "search", "/find", {}, wait="--wait" in own, body=body) as response:
        if not rows:
            _print_paths(response, b"\0" if action == "print0" else b"\n")
        else:
            for line in response.iter_lines():
                out(line) if "--json" in own else _print_long(json.loads(line))
        if "--json" not in own:
            print_standing(_standing(response))


def _split(words: list[str], cluster: str | None) -> tuple[list[str], set[str], str | None]:
    """find's words, our own flags among them, and the cluster."""
    rest: list[str] = []
    own: set[str] = set()
    left = iter(words)
    for word in left:
        if word in _OWN:
            own.add(word)
        elif word == "--cluster":
            cluster = next(left, None)
            if cluster is None:
                raise UsageError("--cluster needs a directory or URL")
        elif word.startswith("--cluster="):
            cluster = word.partition("=")[2]
        else:
            rest.append(word)
    return rest, own, cluster


def _request(place: Place, expression: findexpr.Expression, *, nul: bool) -> dict[str, Any]:
    starts = []
    for path in expression.paths:
        real = asked_path(place, bytes_of(path))
        outside = path == "." and place.here == b"/"  # "." that is no directory of this host
        starts.append({"path": real, "shown": "/" if outside and not place.inside else path})
    predicate = _translated(place, expression.predicate)
    return {
        "paths": starts,
        "predicate": msgspec.Raw(findexpr.to_json(predicate)),
        "mindepth": expression.mindepth,
        "maxdepth": expression.maxdepth,
        "nul": nul,
    }


def _translated(place: Place, predicate: Any) -> Any:
    """Files named in -newer mean what all paths mean."""
    match predicate:
        case findexpr.And(parts) | findexpr.Or(parts):
            return type(predicate)([_translated(place, part) for part in parts])
        case findexpr.Not(part):
            return findexpr.Not(_translated(place, part))
        case findexpr.NewerThan(path=path):
            real = asked_path(place, bytes_of(path))
            return msgspec.structs.replace(predicate, path=real)
    return predicate


def _print_paths(response: httpx.Response, end: bytes) -> None:
    """NUL-ended paths, byte for byte."""
    pending = b""
    for block in response.iter_raw():
        whole, nul, pending = (pending + block).rpartition(b"\0")
        if nul:
            for path in whole.split(b"\0"):
                out_name(path, end)


def _print_long(row: dict[str, Any]) -> None:
    """As find's -ls."""
    blocks = (row["stored"] + 1023) // 1024
    out(
        f"{row['ino']:>14} {blocks:>8} {stat.filemode(row['mode'])} {row['nlink']:>3} "
        f"{row['uid']:<6} {row['gid']:<6} {row['size']:>12} {time_text(row['mtime_ns'])} ",
        end=b"",
    )
    target = b" -> " + bytes_of(row["target"]) if row["target"] else b""
    out_name(bytes_of(row["path"]) + target)


def _standing(response: httpx.Response) -> dict[str, Any]:
    epoch, _, position = response.headers.get("X-GFS-Cursor", "?-?").partition("-")
    return {
        "epoch": epoch,
        "position": position.partition(".")[0],
        "lag_ms": response.headers.get("X-GFS-Lag-Ms"),
        "rebuilding": response.headers.get("X-GFS-Rebuilding") == "1",
    }


def _uid(name: str) -> int | None:
    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError:
        return None


def _gid(name: str) -> int | None:
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        return None
