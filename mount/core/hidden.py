"""Numbers and names of `.gfs`, what a mount shows of its own at its root. Pure.

A number from `HIDDEN_INO` on is a mount's own: never an inode's, so the kernel keeps what it knows
of the two apart. What lies in the trash has there the number of its inode with this bit, so no
table is needed to go from one to the other, and nothing has to be remembered until the kernel
forgets it.
"""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from gfs.ids import HIDDEN_INO, NAME_BYTES_MAX, ROOT_INO, TRASH_INO
from gfs.messages import SnapshotEntry, TrashEntry

TOP = HIDDEN_INO | ROOT_INO
TRASH = HIDDEN_INO | TRASH_INO
STATS, VERSION, SNAPSHOTS = HIDDEN_INO | 3, HIDDEN_INO | 4, HIDDEN_INO | 5
NAMES = {b"snapshots": SNAPSHOTS, b"stats": STATS, b"trash": TRASH, b"version": VERSION}
_LINK = HIDDEN_INO << 1
_EPOCH = dt.datetime(1970, 1, 1)  # noqa: DTZ001 - times are UTC throughout
_NS = 1_000_000_000


def is_hidden(number: object) -> bool:
    """Is it the number of something in `.gfs`, or of a handle of it?"""
    return isinstance(number, int) and number >= HIDDEN_INO


def hidden(ino: int) -> int:
    """The number that an inode has in `.gfs`."""
    return ino | HIDDEN_INO


def real(number: int) -> int:
    """The inode of a number in `.gfs`."""
    return number & ~(HIDDEN_INO | _LINK)


def link_to(ino: int) -> int:
    """The number of the symbolic link in `.gfs` that leads to an inode."""
    return ino | _LINK


def is_link(number: int) -> bool:
    """Is it the number of one?"""
    return bool(number & _LINK)


def trash_names(entries: Iterable[TrashEntry]) -> dict[bytes, TrashEntry]:
    """A name for each: what it was called, and when it was removed (UTC).

    Those that would have the same name, removed within one second, all have their number as well,
    so that none takes over another's name when that has gone.
    """
    entries = list(entries)
    plain = [_plain(entry, b"") for entry in entries]
    counts = Counter(plain)
    return {
        name if counts[name] == 1 else numbered(entry): entry
        for name, entry in zip(plain, entries, strict=True)
    }


def numbered(entry: TrashEntry) -> bytes:
    """The name with the number, which always leads there."""
    return _plain(entry, b"~%x" % entry.ino)


def _plain(entry: TrashEntry, suffix: bytes) -> bytes:
    when = _EPOCH + dt.timedelta(seconds=entry.deleted_ns // _NS)
    suffix = f".{when:%Y-%m-%dT%H%M%SZ}".encode() + suffix
    return _last(entry.path)[: NAME_BYTES_MAX - len(suffix)] + suffix


def snapshot_names(entries: Iterable[SnapshotEntry]) -> dict[bytes, SnapshotEntry]:
    """The last name of each; those that have the same all have their number as well."""
    entries = list(entries)
    counts = Counter(_last(entry.path) for entry in entries)
    found = {}
    for entry in entries:
        name, suffix = _last(entry.path), b"~%x" % entry.ino
        found[name if counts[name] == 1 else name[: NAME_BYTES_MAX - len(suffix)] + suffix] = entry
    return found


def _last(path: bytes) -> bytes:
    return path.rpartition(b"/")[2]


def lines(about: Mapping[str, object], prefix: str = "") -> str:
    """A line for each fact, `name value`; of what lies within another, the names with a dot."""
    found = ""
    for name, value in about.items():
        if isinstance(value, Mapping):
            found += lines(value, f"{prefix}{name}.")
        elif isinstance(value, float):
            found += f"{prefix}{name} {value:.3f}\n"
        else:
            found += f"{prefix}{name} {value}\n"
    return found


def cluster_totals(status: Mapping[str, Any]) -> dict[str, object]:
    """Figures for a user of the mount, out of what `gfs status --json` prints."""
    servers = status["servers"]
    up = [server for server in servers if server["alive"]]
    return {
        **{
            name: status[name]
            for name in ("cluster", "epoch", "position", "goal", "files", "sessions")
        },
        "chunk_servers": len(servers),
        "chunk_servers_up": len(up),
        "total_bytes": sum(server["total_bytes"] for server in up),
        "free_bytes": sum(server["free_bytes"] for server in up),
        "chunks": status["chunks"],
    }
