"""Ours to pyfuse3's: attributes of inodes, of names that are not there, of the filesystem.

Built for each answer; this is the hottest small function of the mount.
"""

from __future__ import annotations

import stat

import pyfuse3

from gfs.client.dirty import Pending
from gfs.ids import MIB, NAME_BYTES_MAX
from gfs.items import Inode
from gfs.messages import FilesystemStat

READ_BYTES = 1 * MIB  # st_blksize: `cat` and `cp` then read and write whole requests
BLOCK = 512  # st_blocks counts these, whatever st_blksize is
FREE_FILES = 1 << 40  # inode numbers do not run out


def entry_attributes(
    ino: int,
    inode: Inode,
    *,
    entry_timeout: float,
    attr_timeout: float,
    pending: Pending | None = None,
) -> pyfuse3.EntryAttributes:
    """`inode` as the kernel wants it; timeouts in seconds; `pending` on top."""
    entry = pyfuse3.EntryAttributes()
    entry.st_ino = ino
    entry.entry_timeout = entry_timeout
    entry.attr_timeout = attr_timeout
    mode = inode.mode
    entry.st_mode = mode
    entry.st_nlink = inode.nlink
    entry.st_uid = inode.uid
    entry.st_gid = inode.gid
    entry.st_atime_ns = inode.atime_ns
    entry.st_ctime_ns = inode.ctime_ns
    if stat.S_ISREG(mode):
        size, stored = inode.size, inode.stored
        entry.st_mtime_ns = inode.mtime_ns
        if pending is not None:
            end, mtime_ns, overlay = pending
            if end > size:
                stored += overlay.beyond(size)  # the rest of it is a hole
                size = end
            if mtime_ns:
                entry.st_mtime_ns = mtime_ns
                entry.st_ctime_ns = max(inode.ctime_ns, mtime_ns)
        entry.st_size = size
        entry.st_blksize = READ_BYTES
        entry.st_blocks = (stored + BLOCK - 1) // BLOCK
    else:
        entry.st_mtime_ns = inode.mtime_ns
        entry.st_size = len(inode.target) or inode.size
        entry.st_rdev = inode.rdev
    return entry


def absent(entry_timeout: float) -> pyfuse3.EntryAttributes:
    """There is no such name, and the kernel may believe that for `entry_timeout` seconds."""
    entry = pyfuse3.EntryAttributes()
    entry.st_ino = 0
    entry.entry_timeout = entry_timeout
    entry.attr_timeout = 0
    return entry


def only_inode(ino: int, mode: int) -> pyfuse3.EntryAttributes:
    """For "." and ".." of a listing, of which only number and type are looked at."""
    entry = pyfuse3.EntryAttributes()
    entry.st_ino = ino
    entry.st_mode = mode
    entry.entry_timeout = entry.attr_timeout = 0
    return entry


def filesystem(found: FilesystemStat) -> pyfuse3.StatvfsData:
    """statfs(2): space as a user can fill it.

    Below a quota the blocks are its limit, those that are not free its use, and those available
    what fits: less than what is free where the cluster, or a quota further up, leaves less.
    """
    result = pyfuse3.StatvfsData()
    result.f_bsize = READ_BYTES
    result.f_frsize = 4096
    result.f_blocks = found.total_bytes // 4096
    unused = found.total_bytes - found.used_bytes if found.used_bytes >= 0 else 0
    result.f_bfree = max(unused, found.free_bytes) // 4096
    result.f_bavail = found.free_bytes // 4096
    free = FREE_FILES if found.files_free < 0 else found.files_free
    result.f_files = found.files + free
    result.f_ffree = result.f_favail = free
    result.f_namemax = NAME_BYTES_MAX
    return result
