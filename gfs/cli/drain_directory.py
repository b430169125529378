"""`gfs chunkd drain SERVER --dir PATH`: empty one data directory, so that its disk can go.

The server does it and keeps the mark: it goes on when this command is interrupted, and
outlives restarts. Here it is begun, watched and ended.
"""

from __future__ import annotations

import os
import time
from typing import Any

from gfs.cli.output import CommandFailed, progress, size_text
from gfs.cluster.asking import ask, cluster_status
from gfs.config import ClientConfig
from gfs.messages import DirectoriesDraining, DrainDirectory

POLL_S = 0.3
NOWHERE_S = 10.0  # without a replica less, and none that could be moved
UNHEARD_S = 5.0  # a server that is back tells of it with its first heartbeat


def order(config: ClientConfig, server: int, directory: str, *, stop: bool) -> str:
    """Begin or end; returns the directory as its server has it.

    Raises:
      GfsError: no such server or directory, the server is away, the directory does not work.
    """
    path = os.path.abspath(directory)
    ask(config, DrainDirectory(server, path, stop), DirectoriesDraining)
    return path


def follow(config: ClientConfig, server: int, path: str) -> dict[str, Any]:
    """Until it is empty, or stands still because nobody has room; the last report.

    Raises:
      CommandFailed: somebody has stopped it.
    """
    found = _wait_heard(config, server, path)
    with progress("drain", found["bytes_left"]) as advance:
        moved = time.monotonic()
        while not found["done"]:
            time.sleep(POLL_S)
            before, found = found, _wait_heard(config, server, path)
            if found["replicas_left"] < before["replicas_left"]:
                moved = time.monotonic()
            elif _is_stuck(found) and time.monotonic() - moved > NOWHERE_S:
                break
            advance(max(0, before["bytes_left"] - found["bytes_left"]))
    return found


def _is_stuck(found: dict[str, Any]) -> bool:
    """Could none of what is left be moved?"""
    return bool(found["nowhere"] >= found["replicas_left"])


def _wait_heard(config: ClientConfig, server: int, path: str) -> dict[str, Any]:
    """The report; while the server is away it is waited for."""
    unheard_s = 0.0
    while unheard_s < UNHEARD_S:
        status = cluster_status(config)
        for one in status.get("directory_drains", []):
            if (one["server"], one["directory"]) == (f"{server:016x}", path):
                return dict(one)
        alive = [s for s in status["servers"] if s["server"] == f"{server:016x}" and s["alive"]]
        unheard_s += POLL_S if alive else 0.0
        time.sleep(POLL_S)
    raise CommandFailed(f"{path} is drained no more: somebody has stopped it")


def outcome(found: dict[str, Any]) -> str:
    """What `follow` came to, for people."""
    if found["done"]:
        return (
            f"{found['directory']} is drained: nothing is left on it; take it out of `data_dirs`,"
            " restart the chunk server, and the disk may go"
        )
    return (
        f"nowhere to go for {found['replicas_left']} replicas ({size_text(found['bytes_left'])}) in"
        f" {found['directory']}: no other directory of its server has room for them and no other"
        " server can take them; leave it in, it goes on trying"
    )


def text(found: dict[str, Any]) -> str:
    """A line of `gfs status`."""
    which = f"server {found['server']}: {found['directory']}"
    if found["done"]:
        return f"{which} is drained: its disk may be taken out"
    left = f"{found['replicas_left']} replicas, {size_text(found['bytes_left'])} left"
    nowhere = f", {found['nowhere']} of them have nowhere to go" if found["nowhere"] else ""
    return f"{which} drains: {left}{nowhere}"
