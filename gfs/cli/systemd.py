"""`gfs systemd print|install`: units of systemd that start this very installation."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from gfs.cli.output import out, remark
from gfs.cluster.layout import replace_file
from gfs.cluster.units import units
from gfs.errors import UsageError

DIRECTORY = "/etc/systemd/system"


def _chosen(names: tuple[str, ...]) -> dict[str, str]:
    """The units asked for by name, the suffix may be missing; all if none is.

    Raises:
      UsageError: there is no such unit.
    """
    command = os.path.join(os.path.dirname(sys.executable), "gfs")
    known = units(command)
    if not names:
        return known
    found = {}
    for name in names:
        full = next((one for one in known if name in (one, one.partition(".")[0])), None)
        if full is None:
            raise UsageError(f"there is no unit {name}: {', '.join(known)}")
        found[full] = known[full]
    return found


@click.group()
def systemd() -> None:
    """Units for systemd: master, chunk servers, views and mounts."""


@systemd.command(name="print")
@click.argument("names", nargs=-1)
def print_units(names: tuple[str, ...]) -> None:
    """Print the units NAMES (default: all)."""
    for name, text in _chosen(names).items():
        out(f"# {name}")
        out(text)


@systemd.command()
@click.argument("names", nargs=-1)
@click.option("--dir", "directory", default=DIRECTORY, show_default=True, help="Where to.")
def install(names: tuple[str, ...], directory: str) -> None:
    """Write the units NAMES (default: all); what was changed there by drop-ins stays."""
    for name, text in _chosen(names).items():
        path = Path(directory) / name
        replace_file(path, text.encode())
        out(str(path))
    if directory == DIRECTORY:
        remark("now: systemctl daemon-reload, and systemctl enable --now what this host runs")
