"""Mounts of ours on this host, read from the kernel's table without touching them.

A mount of a dead or hung process makes every call on it fail or wait, so nothing here
looks inside one: `/proc/self/mountinfo` names type, source and place.
"""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import stat
import subprocess
from dataclasses import dataclass
from pathlib import Path

TYPE = "fuse.gfs"
SOURCE_PREFIX = "gfs:"
MNT_DETACH, UMOUNT_NOFOLLOW = 2, 8
_ESCAPED = re.compile(rb"\\([0-7]{3})")


@dataclass(frozen=True)
class Mounted:
    """One mount of ours: `cluster` is the directory or URL it names, `subtree` its root there."""

    mountpoint: bytes
    cluster: str
    device: str  # MAJOR:MINOR; minor names the connection in /sys/fs/fuse/connections
    subtree: bytes = b"/"


def source_of(cluster: str, subtree: str) -> str:
    """The source of a mount that was given none; `parse_source` takes it apart."""
    below = subtree.strip("/")
    return f"{SOURCE_PREFIX}{cluster}//{below}" if below else f"{SOURCE_PREFIX}{cluster}"


def parse_source(source: str) -> tuple[str, str]:
    """Cluster and subtree of a source, as `source_of` makes it or as it stands in fstab.

    There it is ``HOST:PORT[,HOST:PORT][/SUB/TREE]`` or ``DIRECTORY[//SUB/TREE]``.

    >>> parse_source("alpha:7100,beta:7100/sub/tree")
    ('alpha:7100,beta:7100', '/sub/tree')
    >>> parse_source("gfs:/srv/cluster//sub"), parse_source("/srv/cluster")
    (('/srv/cluster', '/sub'), ('/srv/cluster', '/'))
    """
    scheme = "gfs://" if source.removeprefix(SOURCE_PREFIX).startswith("gfs://") else ""
    if not source.startswith("gfs://"):
        source = source.removeprefix(SOURCE_PREFIX)
    rest = source.removeprefix(scheme)
    cluster, _, below = rest.partition("//" if rest.startswith("/") else "/")
    return scheme + cluster, "/" + below.strip("/")


def mounted() -> list[Mounted]:
    """All mounts of ours that this process sees; the topmost of a place comes last."""
    found = []
    for line in Path("/proc/self/mountinfo").read_bytes().splitlines():
        left, _, right = line.partition(b" - ")
        fields, (kind, source) = left.split(b" "), right.split(b" ")[:2]
        if kind == TYPE.encode():
            name, subtree = parse_source(os.fsdecode(_unescape(source)))
            place = _unescape(fields[4])
            found.append(Mounted(place, name, fields[2].decode(), os.fsencode(subtree)))
    return found


def mount_at(path: bytes) -> Mounted | None:
    """The mount of ours with this mountpoint."""
    return next((one for one in reversed(mounted()) if one.mountpoint == path), None)


def mount_of(path: bytes) -> Mounted | None:
    """The mount of ours that an absolute path lies in, by name alone."""
    best = None
    for one in mounted():
        inside = path == one.mountpoint or path.startswith(one.mountpoint.rstrip(b"/") + b"/")
        if inside and (best is None or len(one.mountpoint) >= len(best.mountpoint)):
            best = one
    return best


def control_address(device: str) -> bytes:
    """Abstract Unix socket on which the process behind a mount answers (mount.tracing)."""
    return b"\0gfs-mount-" + device.encode()


def detach(mountpoint: bytes) -> bool:
    """Unmount lazily, as root or by fusermount3; True if nothing is mounted there after."""
    if os.geteuid() == 0:
        ctypes.CDLL(None, use_errno=True).umount2(mountpoint, MNT_DETACH | UMOUNT_NOFOLLOW)
    else:
        words = [b"fusermount3", b"-u", b"-z", b"-q", mountpoint]
        subprocess.run(words, stdin=subprocess.DEVNULL, timeout=10, check=False)
    return mount_at(mountpoint) is None


def abort(device: str) -> None:
    """End a hung mount's connection, so that callers stuck in it get an error (root or owner)."""
    minor = device.partition(":")[2]
    try:
        Path(f"/sys/fs/fuse/connections/{minor}/abort").write_text("1")
    except OSError:
        pass  # the control filesystem is not mounted, or the connection is gone


def why_no_mounts() -> str | None:
    """What stands in the way of mounting here, with what to do; None: nothing."""
    try:
        os.close(os.open("/dev/fuse", os.O_RDWR))
    except FileNotFoundError:
        return (
            "there is no /dev/fuse: modprobe fuse, or start the container with --device /dev/fuse"
        )
    except OSError as error:
        return f"/dev/fuse cannot be opened ({error.strerror}): chmod 666 /dev/fuse, or be root"
    program = shutil.which("fusermount3")
    if program is None:
        return "fusermount3 is missing: apt-get install fuse3"
    if os.geteuid() != 0 and not os.stat(program).st_mode & stat.S_ISUID:
        return f"{program} is not setuid root: chmod u+s {program}, or be root"
    return None


def _unescape(field: bytes) -> bytes:
    return _ESCAPED.sub(lambda match: bytes([int(match[1], 8)]), field)
