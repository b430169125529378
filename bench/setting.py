"""What a run needs before it starts: its targets, its workloads, room on a disk."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import NoReturn

import click

from bench.stage import Workload
from bench.targets.catalogue import TARGETS
from bench.targets.commands import alive, mounted_below, unmount
from bench.targets.namespace import end_namespace, leftovers
from bench.targets.ours import Ours
from bench.targets.target import Target, TargetFailed
from bench.workloads.catalogue import WORKLOADS
from gfs.cluster import down as downing
from gfs.cluster.layout import Layout

TEMPORARY = "/var/tmp"  # on a disk; /tmp is often memory
PREFIX = "gfs-bench-"
GIB = 1 << 30
SPACE_PER_TARGET_GIB = 8.0  # two files of 1 GiB, three copies, and what is deleted late
SPACE_SPARE_GIB = 3.0  # peers refuse to write to a nearly full disk

directory_option = click.option(
    "--dir",
    "directory",
    default=TEMPORARY,
    show_default=True,
    type=click.Path(path_type=Path, exists=True, file_okay=False, resolve_path=True),
    help="Disk to work on; a directory made in it is removed at the end.",
)


def choose_workloads(only: str) -> list[Workload]:
    """Workloads named, in their own order; all if none is named.

    Raises:
      click.UsageError: one is unknown.
    """
    wanted = [name for name in only.split(",") if name]
    known = [workload.name for workload in WORKLOADS]
    for name in wanted:
        if name not in known:
            raise click.UsageError(f"no workload {name!r}; there are {', '.join(known)}")
    return [workload for workload in WORKLOADS if not wanted or workload.name in wanted]


def choose_targets(names: str) -> list[type[Target]]:
    """Targets named, in the order given.

    Raises:
      click.UsageError: one is unknown, or none is named.
    """
    wanted = list(dict.fromkeys(name for name in names.split(",") if name))
    for name in wanted:
        if name not in TARGETS:
            raise click.UsageError(f"no target {name!r}; there are {', '.join(TARGETS)}")
    if not wanted:
        raise click.UsageError("no target named")
    return [TARGETS[name] for name in wanted]


@contextlib.contextmanager
def work_directory(parent: Path, scale: float, targets: int) -> Iterator[Path]:
    """A directory below `parent`, removed at the end unless something is mounted in it.

    Raises:
      click.UsageError: `parent` has too little space.
    """
    needed = (SPACE_SPARE_GIB + SPACE_PER_TARGET_GIB * max(scale, 0.1) * targets) * GIB
    free = shutil.disk_usage(parent).free
    if free < needed:
        raise click.UsageError(
            f"{parent} has {free / GIB:.0f} GiB free, {needed / GIB:.0f} are needed: "
            "use --dir on another disk, fewer --targets or a smaller --scale"
        )
    work = _make_work(parent)
    try:
        yield work
    finally:
        if mounted := mounted_below(work):
            click.echo(f"{work} is kept: still mounted {', '.join(map(str, mounted))}", err=True)
        else:
            shutil.rmtree(work, ignore_errors=True)


@contextlib.contextmanager
def local_cluster(parent: Path) -> Iterator[Layout]:
    """A cluster still to be made below `parent`; it ends, and all of it goes, with the block.

    A run that is told to end (SIGTERM, SIGHUP) does the same; after one that was killed it is
    `clean_up` that does.
    """
    end_on_signals()
    work = _make_work(parent)
    layout = Layout(work / Ours.name)
    try:
        yield layout
    finally:
        end_without_interruption()
        downing.down(layout, click.echo, purge=True)
        shutil.rmtree(work, ignore_errors=True)


def end_on_signals() -> None:
    """SIGTERM and SIGHUP act like Ctrl-C, so that a run told to end takes all down."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupted)


def _interrupted(number: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def end_without_interruption() -> None:
    """Ignore what would interrupt taking down, which takes seconds."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


def _make_work(parent: Path) -> Path:
    return Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-", dir=parent))


def clean_up(parent: Path) -> list[str]:
    """End and remove what runs that were killed have left below `parent`.

    Returns:
      Names of what was removed: network namespaces with their daemons, work directories.
    """
    names = leftovers()
    for name in names:
        end_namespace(name)
    for work in parent.glob(f"{PREFIX}*-*"):
        pid = work.name.removeprefix(PREFIX).partition("-")[0]
        if pid.isdigit() and not alive(int(pid)):
            _remove_work(work)
            names.append(str(work))
    return names


def _remove_work(work: Path) -> None:
    for cluster in work.glob(f"{Ours.name}*"):
        Ours(cluster).stop()
    for point in mounted_below(work):
        with contextlib.suppress(TargetFailed):
            unmount(point)
    if not mounted_below(work):
        shutil.rmtree(work, ignore_errors=True)
