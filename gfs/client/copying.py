"""Snapshots and clones by path (GFS §3.4): copies that share the content of their source."""

from __future__ import annotations

from typing import NamedTuple

from gfs.client.filesystem import Filesystem
from gfs.errors import AlreadyExists, NotPermitted
from gfs.messages import Clone, Snapshot, Walked


class Copied(NamedTuple):
    """A copy that was made."""

    path: bytes
    root: int  # its inode
    inodes: int  # how many were copied


async def snapshot(files: Filesystem, source: bytes, destination: bytes) -> Copied:
    """A copy of the file or tree `source`, at `destination` or in the directory there.

    It is one cut of the tree, with all that was acknowledged before; a symbolic link is
    copied, not followed.

    Raises:
      AlreadyExists, PermissionDenied (all below must be readable), InvalidArgument.
    """
    return await _copy(files, source, destination, Snapshot, follow=False)


async def clone(files: Filesystem, source: bytes, destination: bytes) -> Copied:
    """`snapshot` of one regular file; a symbolic link to one is followed.

    Raises:
      InvalidArgument: it is no regular file.
    """
    return await _copy(files, source, destination, Clone, follow=True)


async def _copy(
    files: Filesystem,
    source: bytes,
    destination: bytes,
    operation: type[Snapshot | Clone],
    *,
    follow: bool,
) -> Copied:
    found = await files.walk(source, follow=follow)
    place = await _place(files, found, destination)
    if not place.name:
        raise NotPermitted("the root cannot be replaced")
    asked = operation(found.entry.ino, place.parent, place.name)
    done = await files.client.link.mutate(asked, files.actor)
    return Copied(await files.path_of(done.root), done.root, done.copied)


async def _place(files: Filesystem, source: Walked, destination: bytes) -> Walked:
    place = await files.resolve(destination)
    if place.entry.inode is not None and place.entry.inode.is_directory and source.name:
        place = await files.resolve(destination.rstrip(b"/") + b"/" + source.name)
    if place.entry.ino:
        raise AlreadyExists
    return place
