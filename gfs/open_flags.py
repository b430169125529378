"""Flags of open(2) as they travel: Linux's numbers (x86-64, arm64), whatever the host's are."""

from __future__ import annotations

O_RDONLY = 0o0
O_WRONLY = 0o1
O_RDWR = 0o2
O_ACCMODE = 0o3
O_EXCL = 0o200
O_TRUNC = 0o1000
O_APPEND = 0o2000
O_NOATIME = 0o1000000


def reads(flags: int) -> bool:
    """Is a file opened so to be read?"""
    return flags & O_ACCMODE != O_WRONLY


def writes(flags: int) -> bool:
    """Is a file opened so to be written?"""
    return flags & O_ACCMODE != O_RDONLY


def appends(flags: int) -> bool:
    """Does each write through such a handle go to the end?"""
    return bool(flags & O_APPEND) and writes(flags)
