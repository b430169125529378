"""The place where we mount: fit for it, rid of a dead predecessor, tuned, and left clean.

Nothing here looks inside a live mount of our own: a call into it would wait for the
very loop that makes it. What is needed of it stands in /proc/self/mountinfo.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Sequence
from pathlib import Path

from gfs import mounts
from gfs.errors import UsageError
from gfs.messages import Access
from gfs.sections import MountConfig
from gfs.squashing import ALL

FUSE_CONF = Path("/etc/fuse.conf")
MAX_BACKGROUND = 128  # asynchronous reads in flight; the kernel's default of 12 starves read-ahead


def prepare(mountpoint: str) -> str:
    """The mountpoint as an absolute path, ready to be mounted on.

    What a killed mount has left there is detached first.

    Raises:
      UsageError: nothing can be mounted here or there; the text says what to do.
    """
    if not mountpoint:
        raise UsageError("where to mount? gfs mount MOUNTPOINT")
    if (reason := mounts.why_no_mounts()) is not None:
        raise UsageError(reason)
    path = os.path.abspath(mountpoint)
    _recover(path)
    try:
        path = os.path.realpath(path)
        _recover(path)
        found = os.stat(path)
        names = os.listdir(path) if stat.S_ISDIR(found.st_mode) else []
    except OSError as error:
        hint = f": mkdir {path}" if error.errno == errno.ENOENT else f" ({error.strerror})"
        raise UsageError(f"cannot mount at {path}{hint}") from None
    if not stat.S_ISDIR(found.st_mode):
        raise UsageError(f"cannot mount at {path}: it is not a directory")
    if names:
        raise UsageError(f"cannot mount at {path}: it is not empty ({names[0]!r} is there)")
    return path


def _recover(path: str) -> None:
    """Detach dead mounts of ours at `path`; a live one is a mistake of the caller."""
    while mounts.mount_at(os.fsencode(path)) is not None:
        try:
            os.statvfs(path)
        except OSError as error:
            if error.errno not in (errno.ENOTCONN, errno.ECONNABORTED, errno.EIO):
                raise UsageError(f"cannot mount at {path}: {error.strerror}") from None
            if not mounts.detach(os.fsencode(path)):
                raise UsageError(f"a dead mount is left at {path}: umount -l {path}") from None
        else:
            raise UsageError(f"a live mount is at {path} already: fusermount3 -u {path}")


def options(
    config: MountConfig, limits: Sequence[Access], kernel: Iterable[str] = ()
) -> tuple[set[str], list[str]]:
    """Mount options, and notes for people on what is lost without more rights.

    Args:
      limits: what the master leaves the session of its rights.
      kernel: words that are the kernel's, as `words.applied` found them.

    Raises:
      UsageError: allow_other was asked for and is not permitted.
    """
    cluster = config.cluster_dir or config.master or config.master_unix
    source = config.source or mounts.source_of(cluster, config.subtree)
    found = {"subtype=gfs", f"fsname={escaped(source)}", *kernel}
    if not any(access.squash == ALL for access in limits):
        # Else the kernel would compare owners with whom nobody acts as: the master judges.
        found.add("default_permissions")
    notes = []
    if any(access.read_only for access in limits):
        found = {"ro", *(found - {"rw"})}
        if not config.read_only:
            notes.append("the master exports to this host read-only")
    permitted = os.geteuid() == 0 or _user_allow_other()
    if config.allow_other and not permitted:
        raise UsageError(f"allow_other needs the line user_allow_other in {FUSE_CONF}")
    if config.allow_other or (config.allow_other is None and permitted):
        found.add("allow_other")
    elif config.allow_other is None:
        notes.append(f"only this user can enter the mount (no user_allow_other in {FUSE_CONF})")
    return found, notes


def _user_allow_other() -> bool:
    try:
        lines = FUSE_CONF.read_text(errors="replace").splitlines()
    except OSError:
        return False
    return any(line.strip() == "user_allow_other" for line in lines)


def escaped(text: str) -> str:
    """For libfuse's option parser: a comma would end the option; it knows octal numbers.

    >>> escaped("a,b")
    'a\\\\054b'
    """
    plain = set(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/:._-+@=[] ")
    return "".join(chr(byte) if byte in plain else f"\\{byte:03o}" for byte in os.fsencode(text))


def tune(mountpoint: str, read_ahead_kib: int) -> list[str]:
    """Set what pyfuse3 cannot, through sysfs; returns notes on what is lost without root."""
    mounted = mounts.mount_at(os.fsencode(mountpoint))
    if mounted is None:
        return []
    if os.geteuid() != 0:
        return ["read-ahead stays at the kernel's 128 KiB (more needs root)"]
    notes = []
    bdi = Path(f"/sys/class/bdi/{mounted.device}/read_ahead_kb")
    if read_ahead_kib and not _write(bdi, read_ahead_kib):
        notes.append(f"read-ahead stays at the kernel's 128 KiB ({bdi} cannot be written)")
    minor = mounted.device.partition(":")[2]
    connection = Path(f"/sys/fs/fuse/connections/{minor}")
    if connection.exists():
        _write(connection / "max_background", MAX_BACKGROUND)
        _write(connection / "congestion_threshold", MAX_BACKGROUND * 3 // 4)
    return notes


def _write(path: Path, value: int) -> bool:
    try:
        path.write_text(str(value))
    except OSError:
        return False
    return True
