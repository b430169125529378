"""Which inodes the kernel knows, which are open, and what the kernel's pages hold.

The kernel counts each successful lookup of an inode and gives the counts back with
`forget`; until then it may use the number, names or not. Handles are numbers of our
own. An inode that has lost its last name is kept by both until they end.

`pages` is the data_version at which the kernel's page cache of an inode was begun;
only an open at that same version may keep the pages (mtime proves nothing:
`rsync -t` restores it).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, TypeVar

from msgspec.structs import replace

from gfs.items import Inode

NO_PAGES = -1

T = TypeVar("T")


class Known:
    """One inode that the kernel, or a handle, refers to."""

    __slots__ = ("directory", "handles", "lookups", "pages", "trusted_until", "unlinked")

    def __init__(self) -> None:
        self.lookups = 0
        self.handles = 0
        self.pages = NO_PAGES
        self.trusted_until = float("-inf")
        self.unlinked = False
        self.directory: Inode | None = None


class Inodes:
    """Lookup counts and open handles per inode."""

    def __init__(self) -> None:
        self._known: dict[int, Known] = {}

    def _of(self, ino: int) -> Known:
        known = self._known.get(ino)
        if known is None:
            known = self._known[ino] = Known()
        return known

    def looked_up(self, ino: int) -> None:
        """The kernel was given one more reference."""
        self._of(ino).lookups += 1

    def forget(self, ino: int, count: int) -> None:
        """The kernel gives `count` references back; more than it had is taken as all."""
        known = self._known.get(ino)
        if known is not None:
            known.lookups = max(0, known.lookups - count)
            self._drop_unused(ino, known)

    def opened(self, ino: int) -> None:
        self._of(ino).handles += 1

    def released(self, ino: int) -> bool:
        """A handle ends; True if it was the last one of an inode without a name."""
        known = self._of(ino)
        known.handles -= 1
        orphaned = known.unlinked and known.handles <= 0
        self._drop_unused(ino, known)
        return orphaned

    def unlinked(self, ino: int) -> bool:
        """The last name is gone; True if no handle holds the inode."""
        known = self._known.get(ino)
        if known is None:
            return True
        known.unlinked = True
        return known.handles <= 0

    def linked(self, ino: int) -> None:
        """A name leads to it (again)."""
        known = self._known.get(ino)
        if known is not None:
            known.unlinked = False

    def trusts(self, ino: int, until: float) -> None:
        """The kernel is given attributes that it may keep; a reference may follow."""
        self._of(ino).trusted_until = until

    def shown(self, ino: int, directory: Inode) -> None:
        """The kernel is given the image of a directory."""
        self._of(ino).directory = directory

    def removed_directory(self, ino: int) -> Inode | None:
        """What is left of a directory that is gone, for whoever has it open or stands in it."""
        known = self._known.get(ino)
        if known is None or known.directory is None:
            return None
        return replace(known.directory, nlink=0)

    def distrusts(self, ino: int, now: float) -> bool:
        """It is about to be told to drop them; False if it has none to drop.

        Telling it for nothing would do harm: the kernel throws away the reply to a
        getattr that was under way meanwhile, and goes on with the size before.
        """
        known = self._known.get(ino)
        if known is None or known.trusted_until < now:
            return False
        known.trusted_until = float("-inf")
        return True

    def is_known(self, ino: int) -> bool:
        """The kernel may hold something about it."""
        return ino in self._known

    def known(self) -> list[int]:
        """Everything the kernel may hold something about."""
        return list(self._known)

    def is_open(self, ino: int) -> bool:
        known = self._known.get(ino)
        return known is not None and known.handles > 0

    def may_keep_pages(self, ino: int, data_version: int) -> bool:
        """Decide for an open at `data_version`, and note that pages are of it from now on."""
        known = self._of(ino)
        keep = known.pages == data_version
        known.pages = data_version
        return keep

    def content_changed(self, ino: int) -> None:
        """What pages the kernel has are of no one version: the next open drops them."""
        known = self._known.get(ino)
        if known is not None:
            known.pages = NO_PAGES

    def __len__(self) -> int:
        return len(self._known)

    def _drop_unused(self, ino: int, known: Known) -> None:
        if known.lookups <= 0 and known.handles <= 0:
            del self._known[ino]


class Handles(Generic[T]):
    """Numbers for what is open; a number is not used again while the mount lives."""

    def __init__(self) -> None:
        self._open: dict[int, T] = {}
        self._next = 1

    def add(self, item: T) -> int:
        number = self._next
        self._next += 1
        self._open[number] = item
        return number

    def get(self, number: int) -> T | None:
        return self._open.get(number)

    def pop(self, number: int) -> T | None:
        return self._open.pop(number, None)

    def __iter__(self) -> Iterator[T]:
        return iter(self._open.values())

    def __len__(self) -> int:
        return len(self._open)
