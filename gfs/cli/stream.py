"""`gfs stream`: the change stream as it comes, a JSON object a line; its named consumers."""

from __future__ import annotations

import json
import pwd
import select
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import click

from gfs.changes import text_of
from gfs.cli.finding import Place, cluster_option, reach
from gfs.cli.output import complain, flush, out
from gfs.cli.status import lag_text
from gfs.errors import InvalidArgument, TryAgain, Unreachable, UsageError
from gfs.stream_client import Block, HistoryLost, StreamClient

EXIT_RESET = 3  # a script must notice: the cursor is no longer (or never was) of this log
COMMIT_S = 1.0  # between commits while events come


@click.group(invoke_without_command=True)
@cluster_option
@click.option("--from", "start", metavar="CURSOR", help="A cursor, start or now. [now]")
@click.option("--no-follow", is_flag=True, help="End where the log ends now; from the start.")
@click.option("--consumer", metavar="NAME", help="Go on where this consumer was; it then is here.")
@click.option("--prefix", type=click.Path(path_type=bytes), help="Only below this path.")
@click.option("--name", type=click.Path(path_type=bytes), help="Only names that fit: '*.log'.")
@click.option("--owner", metavar="USER", help="Only what is, or was, this user's.")
@click.option("--kind", help="Only these kinds: insert, modify, remove, copy (commas between).")
@click.option("--operation", help="Only what these did: create, rename, ... (commas between).")
@click.option("--tables", help="These tables instead of dirents and inodes.")
@click.option("--limit", type=click.IntRange(1), help="End after so many events.")
@click.option("--heartbeats", is_flag=True, help="Show the lines between events, too.")
@click.pass_context
def stream(context: click.Context, /, **given: Any) -> int:
    """Print every change of the metadata from a cursor on, and follow.

    Each event names the cursor of the one before, so a reader can prove that it has
    missed nothing. After a break it goes on by itself. Exit code 3: the log no longer
    reaches back to the cursor.

    With --consumer what has been printed counts as done; the next call goes on behind it.
    """
    if context.invoked_subcommand is not None:
        return 0
    prefix, start, consumer = given["prefix"], given["start"], given["consumer"]
    place = reach(context.obj, [prefix] if prefix else [])
    asked = {name: given[name] for name in ("consumer", "kind", "operation", "tables", "limit")}
    if start is None and not consumer:
        start = "start" if given["no_follow"] else "now"
    asked |= {"from": start, "follow": not given["no_follow"]}
    asked["prefix"] = text_of(place.path(prefix)) if prefix else None
    asked["name"] = text_of(given["name"]) if given["name"] else None
    asked["owner"] = _uid(given["owner"]) if given["owner"] else None
    with _client(place) as client:
        return _Printing(client, consumer, given["heartbeats"]).run(asked)


@contextmanager
def _client(place: Place) -> Iterator[StreamClient]:
    with StreamClient.of_config(place.config) as client:
        try:
            yield client
        except InvalidArgument as error:  # what was asked is a mistake of the command line
            raise UsageError(str(error)) from None


def _uid(owner: str) -> int:
    if owner.isascii() and owner.isdigit():
        return int(owner)
    try:
        return pwd.getpwnam(owner).pw_uid
    except KeyError:
        raise UsageError(f"there is no user {owner!r}") from None


class _Printing:
    """Lines to standard output; what got there is committed for the consumer, if there is one."""

    def __init__(self, client: StreamClient, consumer: str | None, heartbeats: bool) -> None:
        self._client = client
        self._consumer = consumer
        self._heartbeats = heartbeats
        self._printed = self._committed = ""  # cursors
        self._committed_at = 0.0

    def run(self, asked: dict[str, Any]) -> int:
        """Until the stream ends, or the reader of our output, or the user's patience."""
        try:
            for block in self._client.blocks(**asked):
                self._print(block)
                if time.monotonic() > self._committed_at + COMMIT_S:
                    with suppress(Unreachable, TryAgain):  # the next one says it all
                        self._commit()
        except HistoryLost as error:
            complain(f"{error}: start from a snapshot")
            return EXIT_RESET
        except KeyboardInterrupt:
            self._commit()
            raise
        self._commit()
        return 0

    def _print(self, block: Block) -> None:
        for raw, head in block:
            if head.table or self._heartbeats:
                out(raw)
            self._printed = head.cursor or head.scanned_to
        flush()  # whoever follows wants each line as it comes
        _check_reader()

    def _commit(self) -> None:
        self._committed_at = time.monotonic()
        if self._consumer and self._printed != self._committed:
            self._client.commit(self._consumer, self._printed)
            self._committed = self._printed


def _check_reader() -> None:
    """While nothing is printed nobody else would tell us that the reader has gone.

    Raises: BrokenPipeError.
    """
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    if any(event & select.POLLERR for _, event in poll.poll(0)):
        raise BrokenPipeError


@stream.command("consumers")
@cluster_option
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@click.argument("name", required=False)
@click.pass_context
def consumers(context: click.Context, name: str | None, as_json: bool) -> None:
    """Where named consumers of the stream are, and how far behind."""
    with _client(reach(context.obj)) as client:
        found = [client.consumer(name)] if name else client.consumers()
    for one in found:
        if as_json:
            out(json.dumps(one))
        else:
            out(f"{one['consumer']}\t{one['cursor']}\t{lag_text(one)}\t{one['readers']} reading")


@stream.command("forget")
@cluster_option
@click.argument("name")
@click.pass_context
def forget(context: click.Context, name: str) -> None:
    """Remove a named consumer of the stream."""
    with _client(reach(context.obj)) as client:
        client.forget(name)
