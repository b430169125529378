"""`gfs trace` and `gfs mount-stats`: what a mount on this host is doing, as it does it."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterable, Iterator
from typing import Any

import click

from gfs import mounts
from gfs.cli.output import CommandFailed, complain, flush, out, remark, shown, size_text
from gfs.errors import UsageError
from gfs.texts import bytes_of

CONNECT_S = 5.0
_TITLES = ("operation", "calls/s", "errors/s", "bytes/s", "mean us", "max us", "at once")


@click.command()
@click.argument("mountpoint", type=click.Path(path_type=bytes), default=b".")
@click.option("--operation", "operations", multiple=True, help="Only these (lookup, read, ...).")
@click.option("--prefix", help="Only paths that begin so, from the root of the mount.")
@click.option("--pid", "pids", multiple=True, type=int, help="Only of these processes.")
@click.option("--errors", is_flag=True, help="Only what failed.")
@click.option("--slower", type=click.FloatRange(0), default=0.0, help="Only over so many ms.")
@click.option("--json", "as_json", is_flag=True, help="An object a line.")
def trace(
    mountpoint: bytes,
    operations: tuple[str, ...],
    prefix: str | None,
    pids: tuple[int, ...],
    errors: bool,
    slower: float,
    as_json: bool,
) -> None:
    """A line for each request that the kernel makes of a mount, until Ctrl-C.

    Time, microseconds, pid, uid, operation, path, bytes@offset, error. What the kernel
    answers from its own caches is not seen. A path with <N> in it: inode N, whose name
    the mount has not heard. Lines that come faster than they are read are dropped, and
    their number is told.
    """
    for told in _listen(mountpoint, 0.0):
        if "missed" in told:
            if told["missed"]:
                complain(f"{told['missed']} requests came too fast to be shown")
            else:
                remark("watching; Ctrl-C ends it")
            continue
        if operations and told["operation"] not in operations:
            continue
        if pids and told["pid"] not in pids:
            continue
        if (errors and not told["errno"]) or told["us"] < slower * 1000:
            continue
        if prefix is not None and not told["path"].startswith(prefix):
            continue
        out(json.dumps(told) if as_json else _line(told))
        flush()


def _line(told: dict[str, Any]) -> str:
    second = time.strftime("%H:%M:%S", time.localtime(told["time"]))
    words = [f"{second}.{int(told['time'] % 1 * 1e6):06}", f"{told['us']:7} us"]
    words += [f"{told['pid']:7}", f"{told['uid']:5}", f"{told['operation']:<11}"]
    words.append(shown(bytes_of(told["path"])))
    if told["to"]:
        words.append(f"-> {shown(bytes_of(told['to']))}")
    if told["bytes"] >= 0:
        words.append(f"{told['bytes']}@{told['offset']}")
    if told["errno"]:
        words.append(told["errno"])
    return " ".join(words)


@click.command("mount-stats")
@click.argument("mountpoint", type=click.Path(path_type=bytes), default=b".")
@click.argument("interval", type=click.FloatRange(0.1, 3600), default=1.0)
@click.argument("count", type=click.IntRange(1), required=False)
@click.option("--json", "as_json", is_flag=True, help="An object an interval.")
def mount_stats(mountpoint: bytes, interval: float, count: int | None, as_json: bool) -> None:
    """What a mount does, every INTERVAL seconds (1), COUNT times or until Ctrl-C, like iostat.

    By kind of request, the most time-consuming first: how many, how many failed, bytes, mean and
    longest time in microseconds, and how many were worked on at once, on average. What the
    kernel answers from its own caches is not seen. The first interval begins now.
    """
    for number, told in enumerate(_listen(mountpoint, interval), 1):
        if as_json:
            out(json.dumps({"time": time.time(), **told}))
        else:
            _table(told)
        flush()
        if number == count:
            return


def _table(told: dict[str, Any]) -> None:
    seconds, operations = told["interval_s"], told["operations"]
    rows: list[tuple[str, ...]] = [_TITLES]
    longest_first = sorted(operations, key=lambda one: -operations[one]["us"])
    rows += [_row(name, operations[name], seconds) for name in longest_first]
    if len(operations) > 1:
        rows.append(_row("all", _sum(operations.values()), seconds))
    if not operations:
        rows = [("no requests",)]
    mount = told["mount"]
    out(
        f"{time.strftime('%H:%M:%S')}  {mount['files']} open files, {mount['inodes']} inodes and"
        f" {mount['directories']} directories known, lease {mount['lease_left_s']:.1f} s,"
        f" {mount['master_requests_total']} requests to the master so far"
    )
    for row in rows:
        out(f"  {row[0]:<12}" + "".join(f"{word:>12}" for word in row[1:]))


def _row(name: str, one: dict[str, int], seconds: float) -> tuple[str, ...]:
    return (
        name,
        _rate(one["calls"] / seconds),
        _rate(one["errors"] / seconds),
        size_text(round(one["bytes"] / seconds)) if one["bytes"] else "-",
        f"{one['us'] / one['calls']:.0f}",
        str(one["us_max"]),
        f"{one['us'] / 1e6 / seconds:.2f}",
    )


def _rate(number: float) -> str:
    """So that what happened once in a long interval does not look as if it had not."""
    return f"{number:.0f}" if not number or number >= 100 else f"{number:.2g}"


def _sum(counts: Iterable[dict[str, int]]) -> dict[str, int]:
    found: dict[str, int] = dict.fromkeys(("calls", "errors", "bytes", "us", "us_max"), 0)
    for one in counts:
        for what in ("calls", "errors", "bytes", "us"):
            found[what] += one[what]
        found["us_max"] = max(found["us_max"], one["us_max"])
    return found


def _listen(place: bytes, interval_s: float) -> Iterator[dict[str, Any]]:
    path = os.path.abspath(place)  # resolves no link: nothing here touches the mount
    mounted = mounts.mount_of(path)
    if mounted is None:
        raise UsageError(f"{shown(path)} is not in a mount of gfs on this host")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(CONNECT_S)
        try:
            connection.connect(mounts.control_address(mounted.device))
            connection.sendall(json.dumps({"interval_s": interval_s}).encode() + b"\n")
        except OSError as error:
            raise CommandFailed(
                f"the mount at {shown(mounted.mountpoint)} cannot be asked"
                f" ({error.strerror or error}): its process is gone or hangs, or lives in another"
                " network namespace"
            ) from None
        connection.settimeout(None)
        with connection.makefile("rb") as lines:
            for line in lines:
                told = json.loads(line)
                if "error" in told:
                    raise CommandFailed(told["error"])
                yield told
    raise CommandFailed(f"the mount at {shown(mounted.mountpoint)} has ended")
