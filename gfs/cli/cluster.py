"""`gfs cluster up|down|status`."""

from __future__ import annotations

import json
import os
from pathlib import Path

import click

from gfs.cli.output import CommandFailed, complain, out
from gfs.cluster.layout import Layout
from gfs.cluster.up import StartFailed, Wishes, up
from gfs.errors import UsageError
from gfs.mounts import mounted

_COUNT = click.IntRange(1, 64)
_directory = click.option(
    "--dir",
    "directory",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where the cluster lies. Default: --cluster, $GFS_CLUSTER.",
)


@click.group()
def cluster() -> None:
    """Start, stop and inspect a cluster on this host."""


@cluster.command("up")
@_directory
@click.option("--chunkservers", type=_COUNT, help="Chunk servers. [3]")
@click.option("--mounts", type=click.IntRange(0, 64), help="Mounts, at DIR/mnt1, DIR/mnt2, ... [1]")
@click.option("--goal", type=click.IntRange(1, 9), help="Replicas of a chunk. [3]")
@click.option("--projections/--no-projections", default=None, help="Views of the metadata. [on]")
@click.option("--shadow/--no-shadow", default=None, help="A shadow master that follows. [off]")
@click.option(
    "--config",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="TOML file for all daemons; kept in DIR.",
)
@click.pass_obj
def up_command(
    given: str | None,
    directory: Path | None,
    chunkservers: int | None,
    mounts: int | None,
    goal: int | None,
    projections: bool | None,
    shadow: bool | None,
    config: Path | None,
) -> None:
    """Start what is missing of the cluster in DIR and return when all of it serves.

    The first call makes the cluster. Later calls remember the counts. Ports are chosen
    among those of $GFS_PORTS, FIRST-LAST [20000-31999].
    """
    layout = _layout(directory, given)
    wishes = Wishes(chunkservers, mounts, goal, projections, shadow, config)
    try:
        facts = up(layout, wishes, complain)
    except StartFailed as error:
        raise CommandFailed(str(error)) from None
    own = [one.mountpoint for one in mounted() if one.cluster == str(layout.directory)]
    servers = f"{facts.chunkservers} chunk server" + "s" * (facts.chunkservers != 1)
    out(f"cluster {facts.id} is up: {servers}, goal {facts.goal}")
    for point in sorted(own):
        out(b"mounted at " + point)


@cluster.command("down")
@_directory
@click.option("--purge", is_flag=True, help="Remove the data as well.")
@click.pass_obj
def down_command(given: str | None, directory: Path | None, purge: bool) -> None:
    """Unmount and stop the cluster in DIR; its data stay."""
    from gfs.cluster.down import down

    layout = _layout(directory, given)
    stopped = down(layout, complain, purge=purge)
    out(f"{stopped} processes stopped" + ("; data removed" if purge else ""))


@cluster.command("status")
@_directory
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.pass_obj
def status_command(given: str | None, directory: Path | None, as_json: bool) -> int:
    """Processes, servers, chunks, views; exit code 1 if something is not as it should be."""
    from gfs.cli.status import print_report
    from gfs.cluster.report import report

    found = report(_layout(directory, given))
    if as_json:
        out(json.dumps(found))
    else:
        print_report(found)
    return 0 if found["ok"] else 1


def _layout(directory: Path | None, given: str | None) -> Layout:
    name = directory or given or os.environ.get("GFS_CLUSTER")
    if not name:
        raise UsageError("which cluster? Give --dir DIR or set GFS_CLUSTER")
    if "://" in str(name):
        raise UsageError(f"{name} is no directory of this host")
    return Layout(name)
