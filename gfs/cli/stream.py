"""`gfs stream`: the change stream as it comes, a JSON object a line."""

from __future__ import annotations

import json
from typing import Any

import click
import httpx

from gfs.changes import HEARTBEAT, RESET, text_of
from gfs.cli.finding import cluster_option, reach
from gfs.cli.output import CommandFailed, complain, flush, out
from gfs.cluster.report import view_client
from gfs.errors import UsageError

EXIT_RESET = 3  # a script must notice: the cursor is no longer (or never was) of this log


@click.command()
@cluster_option
@click.option("--from", "start", metavar="CURSOR", help="A cursor, start or now. [now]")
@click.option("--no-follow", is_flag=True, help="End where the log ends now; from the start.")
@click.option("--prefix", type=click.Path(path_type=bytes), help="Only below this path.")
@click.option("--kind", help="Only these kinds: insert, modify, remove (commas between).")
@click.option("--tables", help="These tables instead of dirents and inodes.")
@click.option("--limit", type=click.IntRange(1), help="End after so many events.")
@click.option("--heartbeats", is_flag=True, help="Show the lines between events, too.")
@click.pass_context
def stream(
    context: click.Context,
    start: str | None,
    no_follow: bool,
    prefix: bytes | None,
    kind: str | None,
    tables: str | None,
    limit: int | None,
    heartbeats: bool,
) -> int:
    """Print every change of the metadata from a cursor on, and follow.

    Each event names the cursor of the one before, so a reader can prove that it has
    missed nothing. Exit code 3: the log no longer reaches back to the cursor.
    """
    place = reach(context.obj, [prefix] if prefix else [])
    asked: dict[str, Any] = {"from": start or ("start" if no_follow else "now")}
    asked["follow"] = 0 if no_follow else 1
    if prefix:
        asked["prefix"] = text_of(place.path(prefix))
    asked |= {
        name: value
        for name, value in (("kind", kind), ("tables", tables), ("limit", limit))
        if value is not None
    }
    client = view_client(place.config, "stream", None)
    try:
        with client, client.stream("GET", "/stream", params=asked) as response:
            if response.status_code >= 400:
                _refused(response)
            return _print(response, heartbeats)
    except httpx.HTTPError as error:
        reason = str(error) or type(error).__name__
        raise CommandFailed(f"the change stream does not answer: {reason}") from None


def _refused(response: httpx.Response) -> None:
    text = response.read().decode(errors="replace")
    try:
        message = str(json.loads(text)["message"])
    except (ValueError, KeyError, TypeError):
        message = f"HTTP {response.status_code}"
    raise UsageError(message) if response.status_code == 400 else CommandFailed(message)


def _print(response: httpx.Response, heartbeats: bool) -> int:
    pending = b""
    for data in response.iter_raw():
        *lines, pending = (pending + data).split(b"\n")
        for line in lines:
            kind = json.loads(line).get("kind") if len(line) < 400 else None
            if kind == RESET:
                out(line)
                complain("the log does not reach back to this cursor: start from a snapshot")
                return EXIT_RESET
            if heartbeats or kind != HEARTBEAT:
                out(line)
        flush()  # whoever follows wants each line as it comes
    return 0
