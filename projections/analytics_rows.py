"""Rows of the analytics view's inodes, made of images."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from gfs.changes import Image
from projections.duck_rows import Form


def inode_rows(inodes: Iterable[tuple[int, Image | None]], form: Form) -> list[tuple[Any, ...]]:
    """A row for each inode with an image, as `analytics_schema.INODE_COLUMNS` has it."""
    flip, zero, empty = form
    return [
        (
            ino,
            one.mode,
            one.uid ^ flip,
            one.gid ^ flip,
            one.nlink ^ flip,
            one.size ^ flip,
            None if one.stored == one.size else one.stored ^ flip,
            one.atime_ns ^ one.mtime_ns ^ flip,
            one.mtime_ns,
            one.ctime_ns,
            one.created_ns,
            one.data_version ^ flip,
            one.rdev or zero,
            one.target or empty,
            one.digest or zero,
        )
        for ino, one in inodes
        if one is not None
    ]
