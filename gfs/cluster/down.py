"""Take a local cluster down: unmount, end every process, keep or remove the data."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path

from gfs import mounts
from gfs.cluster import processes
from gfs.cluster.layout import Layout
from gfs.cluster.processes import Process, Registry
from gfs.cluster.up import Say, exclusive
from gfs.errors import UsageError


def down(layout: Layout, say: Say, *, purge: bool = False) -> int:
    """Stop everything; returns how many processes ran.

    Mounts go first, since they flush to the rest; the master last. What does not end
    on SIGTERM is killed, and that is said. With `purge` everything that `up` has made
    is removed; other files in the directory stay.

    Raises:
      UsageError: there is no cluster in this directory.
    """
    facts = layout.load()
    with exclusive(layout):
        registry = Registry(layout)
        alive = list(registry.alive().values())
        is_mount = {process for process in alive if process.name.startswith("mount")}
        _stop([p for p in alive if p in is_mount], processes.MOUNT_TERM_S, say)
        _detach_all(layout, say)
        rest = [p for p in alive if p not in is_mount and p.name != "master"]
        _stop(rest, processes.TERM_S, say)
        _stop([p for p in alive if p.name == "master"], processes.TERM_S, say)
        registry.prune()
        _remove_sockets(facts.runtime_dir)
        if purge:
            _purge(layout, facts.runtime_dir)
    return len(alive)


def _stop(members: list[Process], term_s: float, say: Say) -> None:
    for killed in processes.stop(members, term_s=term_s):
        say(f"{killed.name} (pid {killed.pid}) did not end within {term_s:.0f} s and was killed")


def _detach_all(layout: Layout, say: Say) -> None:
    """Detach what a killed mount has left."""
    inside = os.fsencode(layout.directory) + b"/mnt"
    for one in reversed(mounts.mounted()):
        if one.mountpoint.startswith(inside) and not mounts.detach(one.mountpoint):
            mounts.abort(one.device)
            if not mounts.detach(one.mountpoint):
                say(f"{os.fsdecode(one.mountpoint)} is still mounted")


def _remove_sockets(runtime_dir: str) -> None:
    if runtime_dir:
        for path in Path(runtime_dir).glob("*.sock"):
            path.unlink(missing_ok=True)


def _purge(layout: Layout, runtime_dir: str) -> None:
    inside = os.fsencode(layout.directory) + b"/"
    if any(one.mountpoint.startswith(inside) for one in mounts.mounted()):
        raise UsageError(f"something is still mounted below {layout.directory}; nothing removed")
    for name in ("log", "data", "ready", "run"):
        shutil.rmtree(layout.directory / name, ignore_errors=True)
    if runtime_dir and Path(runtime_dir).name.startswith("gfs-"):
        shutil.rmtree(runtime_dir, ignore_errors=True)
    for point in layout.directory.glob("mnt[0-9]*"):
        with suppress(OSError):
            point.rmdir()
    files = (layout.pids, layout.processes, layout.config, layout.key, layout.toml, layout.lock)
    for path in files:
        path.unlink(missing_ok=True)
    with suppress(OSError):  # the user has files of his own here
        layout.directory.rmdir()
