"""`gfs chunkd drain`: empty a chunk server, so that it can be switched off, or one of its disks.

The drain is the master's: it goes on when this command is interrupted, and outlives
restarts. Here it is begun, watched and ended.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import click

from gfs.cli import drain_directory
from gfs.cli.finding import cluster_option, reach
from gfs.cli.output import CommandFailed, out, progress, remark, size_text
from gfs.cluster.asking import ask, cluster_status
from gfs.cluster.layout import Layout
from gfs.config import ClientConfig
from gfs.errors import UsageError
from gfs.messages import Drain, Ok

POLL_S = 0.5
STUCK_S = 30.0  # without a chunk less


@click.command()
@cluster_option
@click.argument("server")
@click.option("--dir", "directory", metavar="PATH", help="One of its data directories alone.")
@click.option("--stop", is_flag=True, help="Drain it no more: its copies count again.")
@click.option("--no-wait", is_flag=True, help="Return at once; `gfs status` shows how it goes.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object when it ends.")
@click.pass_context
def drain(
    context: click.Context, server: str, directory: str | None, stop: bool, no_wait: bool,
    as_json: bool,
) -> int:  # fmt: skip
    """Copy elsewhere what chunk server SERVER has, and give it nothing new.

    SERVER is its id or address as `gfs status` prints them, or the name of one of a local
    cluster. Exit code 0 when it may be switched off, 1 when no other server can take what
    it has. With --dir that directory alone is emptied, into the server's other
    directories as far as they have room, else onto other servers.
    """
    place = reach(context.obj)
    chosen = find_server(place.config, server, _addresses(place.name))
    if directory is not None:
        return _drain_directory(place.config, chosen, directory, stop, no_wait, as_json)
    ask(place.config, Drain(chosen, stop), Ok)
    if stop:
        remark(f"server {chosen:016x} is drained no more")
        return 0
    if no_wait:
        remark(f"server {chosen:016x} drains; `gfs status` shows how far it is")
        return 0
    found = _follow(place.config, chosen)
    if as_json:
        out(json.dumps(found))
    elif found["done"]:
        out(f"server {chosen:016x} is drained: it may be switched off")
    else:
        left = f"{found['chunks_left']} chunks ({size_text(found['bytes_left'])})"
        remark(f"no other server can take {left} of server {chosen:016x}; it goes on trying")
    return 0 if found["done"] else 1


def _drain_directory(
    config: ClientConfig, server: int, directory: str, stop: bool, no_wait: bool, as_json: bool
) -> int:
    path = drain_directory.order(config, server, directory, stop=stop)
    if stop:
        remark(f"{path} is drained no more")
        return 0
    if no_wait:
        remark(f"{path} drains; `gfs status` shows how far it is")
        return 0
    found = drain_directory.follow(config, server, path)
    if as_json:
        out(json.dumps(found))
    elif found["done"]:
        out(drain_directory.outcome(found))
    else:
        remark(drain_directory.outcome(found))
    return 0 if found["done"] else 1


def _addresses(name: str) -> dict[str, str]:
    """Addresses by process name, if the cluster is a local one."""
    return {} if "://" in name else dict(Layout(name).load().addresses)


def find_server(config: ClientConfig, wanted: str, addresses: dict[str, str]) -> int:
    """The id of the server that `wanted` means: start of an id, address, or local name.

    Raises:
      UsageError: none, or more than one.
    """
    servers = cluster_status(config).get("servers", [])
    address = addresses.get(wanted, wanted)
    found = [s for s in servers if s["address"] == address or s["server"] == wanted]
    found = found or [s for s in servers if wanted and s["server"].startswith(wanted)]
    if len(found) != 1:
        raise UsageError(f"{wanted} means {len(found) or 'no'} chunk servers; see `gfs status`")
    return int(found[0]["server"], 16)


def _follow(config: ClientConfig, server: int) -> dict[str, Any]:
    """Until it is done, or stands still because nobody has room; the last report."""
    found = _report(config, server)
    with progress("drain", found["bytes_left"]) as advance:
        moved = time.monotonic()
        while not found["done"]:
            time.sleep(POLL_S)
            before, found = found, _report(config, server)
            if found["chunks_left"] < before["chunks_left"]:
                moved = time.monotonic()
            elif found["stuck"] and time.monotonic() - moved > STUCK_S:
                break
            _advance(advance, before, found)
    return found


def _advance(advance: Callable[[int], None], before: dict[str, Any], now: dict[str, Any]) -> None:
    advance(max(0, before["bytes_left"] - now["bytes_left"]))


def _report(config: ClientConfig, server: int) -> dict[str, Any]:
    status = cluster_status(config)
    stuck = int(status["repair"]["stuck"])
    for one in status.get("drains", []):
        if one["server"] == f"{server:016x}":
            return {**one, "stuck": stuck}
    raise CommandFailed(f"server {server:016x} is drained no more: somebody has stopped it")
