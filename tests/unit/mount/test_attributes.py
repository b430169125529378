"""Attributes as the kernel wants them, with what is pending on top."""

from __future__ import annotations

import stat

import pytest

pytest.importorskip("pyfuse3")

from gfs.client.dirty import Pending
from gfs.client.ranges import Overlay, Piece
from gfs.ids import MIB
from gfs.items import Inode
from gfs.messages import FilesystemStat
from mount.attributes import absent, entry_attributes, filesystem
from mount.mountpoint import escaped

NS = 1_700_000_000_123_456_789


def image(mode: int = stat.S_IFREG | 0o640, size: int = 1000, stored: int = 1000) -> Inode:
    return Inode(mode, 7, 8, 2, size, NS, NS + 1, NS + 2, stored=stored)


def written(*ranges: tuple[int, int]) -> Overlay:
    """Ranges (offset, length) that wait in the mount, in the order of writing."""
    overlay = Overlay()
    for offset, length in ranges:
        overlay.add(Piece(offset, bytes(length)))
    return overlay


def test_regular_file_has_everything_to_the_nanosecond() -> None:
    entry = entry_attributes(20, image(), entry_timeout=3, attr_timeout=4)
    assert (entry.st_ino, entry.st_mode, entry.st_nlink) == (20, stat.S_IFREG | 0o640, 2)
    assert (entry.st_uid, entry.st_gid, entry.st_size) == (7, 8, 1000)
    assert (entry.st_atime_ns, entry.st_mtime_ns, entry.st_ctime_ns) == (NS, NS + 1, NS + 2)
    assert (entry.st_blksize, entry.st_blocks) == (MIB, 2)
    assert (entry.entry_timeout, entry.attr_timeout) == (3, 4)


def test_pending_bytes_show_in_size_blocks_and_times() -> None:
    pending = Pending(2048, NS + 50, written((1000, 1048), (900, 500)))
    entry = entry_attributes(20, image(), entry_timeout=0, attr_timeout=0, pending=pending)
    assert (entry.st_size, entry.st_blocks) == (2048, 4)
    assert entry.st_mtime_ns == entry.st_ctime_ns == NS + 50


def test_pending_bytes_inside_the_file_do_not_shrink_it() -> None:
    pending = Pending(10, 0, written((0, 10)))
    entry = entry_attributes(20, image(), entry_timeout=0, attr_timeout=0, pending=pending)
    assert (entry.st_size, entry.st_mtime_ns) == (1000, NS + 1)


def test_hole_before_pending_bytes_is_not_counted_as_blocks() -> None:
    pending = Pending(MIB, NS, written((MIB - 4096, 4096), (MIB - 4096, 4096)))
    inode = image(size=0, stored=0)
    entry = entry_attributes(20, inode, entry_timeout=0, attr_timeout=0, pending=pending)
    assert (entry.st_size, entry.st_blocks) == (MIB, 8)


def test_hole_is_not_counted_as_blocks() -> None:
    entry = entry_attributes(20, image(size=MIB, stored=0), entry_timeout=0, attr_timeout=0)
    assert (entry.st_size, entry.st_blocks) == (MIB, 0)


def test_symbolic_link_is_as_long_as_its_target() -> None:
    inode = image(stat.S_IFLNK | 0o777, size=0)
    inode.target = b"some/where"
    assert entry_attributes(20, inode, entry_timeout=0, attr_timeout=0).st_size == 10


def test_device_keeps_its_number() -> None:
    inode = image(stat.S_IFCHR | 0o600, size=0)
    inode.rdev = 0x103
    assert entry_attributes(20, inode, entry_timeout=0, attr_timeout=0).st_rdev == 0x103


def test_absent_name_is_inode_zero() -> None:
    entry = absent(5)
    assert (entry.st_ino, entry.entry_timeout) == (0, 5)


def test_space_is_in_fragments() -> None:
    found = filesystem(FilesystemStat(8 * MIB, 4 * MIB, 10, MIB))
    assert (found.f_blocks, found.f_bavail, found.f_frsize) == (2048, 1024, 4096)
    assert found.f_bfree == found.f_bavail


@pytest.mark.parametrize(
    ("used", "fits", "blocks"),
    [(5000, MIB - 5000, (256, 254, 254)), (5000, 4096, (256, 254, 1)), (2 * MIB, 0, (256, 0, 0))],
)
def test_space_below_a_quota(used: int, fits: int, blocks: tuple[int, int, int]) -> None:
    found = filesystem(FilesystemStat(MIB, fits, 10, MIB, used_bytes=used))
    assert (found.f_blocks, found.f_bfree, found.f_bavail) == blocks


def test_source_with_commas_and_umlauts_is_escaped_for_libfuse() -> None:
    assert escaped("gfs:/a b,ü\\") == "gfs:/a b\\054\\303\\274\\134"
