"""Which removed thing is meant: by path, by name, or a part of a tree that went whole."""

from __future__ import annotations

import stat
from collections.abc import Iterable
from dataclasses import dataclass

from gfs.client.filesystem import Filesystem
from gfs.errors import NotADirectory, NotFound
from gfs.messages import Entry, LookInTrash, TrashEntry


@dataclass(frozen=True)
class Candidate:
    """Something that can be undeleted: an entry of the trash, or what lies below one."""

    entry: TrashEntry
    part: bytes = b""  # path below the entry

    @property
    def path(self) -> bytes:
        """Where it was."""
        return self.entry.path + b"/" + self.part if self.part else self.entry.path


async def candidates(files: Filesystem, path: bytes, name: bytes = b"") -> list[Candidate]:
    """What stood at `path`, the latest removed first.

    Args:
      name: if nothing stood there, whatever had this name; or an inode number.
    """
    exact: list[Candidate] = []
    by_name: list[Candidate] = []
    async for entry in files.list_trash():
        if entry.path == path or (name.isdigit() and entry.ino == int(name)):
            exact.append(Candidate(entry))
        elif stat.S_ISDIR(entry.kind) and path.startswith(entry.path + b"/"):
            part = path[len(entry.path) + 1 :]
            if await _is_in_trash(files, entry.ino, part):
                exact.append(Candidate(entry, part))
        elif name and entry.path.rpartition(b"/")[2] == name:
            by_name.append(Candidate(entry))
    found = exact or by_name
    return sorted(found, key=lambda one: one.entry.deleted_ns, reverse=True)


async def _is_in_trash(files: Filesystem, ino: int, part: bytes) -> bool:
    try:
        found = await files.client.link.ask(LookInTrash(ino, part, files.actor), Entry)
    except (NotFound, NotADirectory):
        return False
    return bool(found.ino)


def choose(
    found: Iterable[Candidate], *, before_ns: int | None = None, at_ns: int | None = None
) -> Candidate | None:
    """One of the candidates, which come latest first.

    The latest; or the latest removed before `before_ns`; or what stood there at `at_ns`,
    which is the first removed after that.
    """
    chosen = None
    for one in found:
        deleted_ns = one.entry.deleted_ns
        if at_ns is not None:
            if deleted_ns < at_ns:
                break
            chosen = one
        elif before_ns is None or deleted_ns < before_ns:
            return one
    return chosen
