"""Which quotas count an inode: those of the directories above it, the nearest first.

Nothing of that is stored with inodes. An inode is counted where its least name stands, by
(parent, name), as in the views; from there the quotas above follow from the tree. So a quota
set, cleared or moved with its directory changes no inode, and a file with names below two
quotas counts once. A file that lost its last name while it was open stays counted where that
was (`Orphan.quota`). The trash lies outside of every quota.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable
from typing import Any

from gfs.ids import ROOT_INO, TRASH_INO
from gfs.items import INODES, LINKS_BY_INO, ORPHANS, QUOTAS, Inode, Orphan, Quota
from gfs.records import DirentChange, InodeChange, OrphanChange, QuotaChange, Record
from master.core.tables import Readable

_DEPTH_MAX = 4096
_KNOWN_MAX = 100_000  # directories, and files, remembered


class Realms:
    """The directories that have a quota, and what lies below which of them.

    What is found is remembered, so these must be given the tables as of the last record that
    `note` was told of; who reads older ones takes a `fresh` one.

    Attributes:
      counting: those whose content is not counted to the end.
    """

    def __init__(self, quotas: Iterable[tuple[int, Quota]]) -> None:
        found = dict(quotas)
        self._quotas = set(found)
        self.counting = {ino for ino, quota in found.items() if quota.is_counting}
        self._nearest: dict[int, int] = {}
        self._homes: dict[int, int] = {}  # of files
        self._chains: dict[int, tuple[int, ...]] = {}

    def __bool__(self) -> bool:
        return bool(self._quotas)

    def __contains__(self, ino: int) -> bool:
        return ino in self._quotas

    def all(self) -> list[int]:
        """The directories that have a quota, ascending."""
        return sorted(self._quotas)

    def fresh(self) -> Realms:
        """The same quotas, nothing remembered."""
        other = Realms(())
        other._quotas = self._quotas
        return other

    def note(self, record: Record) -> None:
        """The record was applied."""
        if not self._quotas and record.operation != "quota":
            return
        made: set[int] = set()
        for change in record.changes:
            if isinstance(change, DirentChange):
                self._note_name(change, made)
            elif isinstance(change, InodeChange):
                if change.old is None:
                    made.add(change.key[0])
            elif isinstance(change, OrphanChange):
                self._homes.pop(change.key[0], None)
            elif isinstance(change, QuotaChange):
                self._note_quota(change.key[0], change)

    def _note_name(self, change: DirentChange, made: set[int]) -> None:
        """`made`: inodes that have this name alone."""
        old, new = change.old, change.new
        if old is not None:
            self._homes.pop(old.ino, None)
            if stat.S_ISDIR(old.kind) and self._nearest:
                self._forget()  # it has moved, with all that is below, or is gone
        if new is None:
            return
        if new.ino in made:
            self._learn(new.ino, change.key[0])
        else:
            self._homes.pop(new.ino, None)

    def _learn(self, ino: int, directory: int) -> None:
        if len(self._homes) >= _KNOWN_MAX:
            self._homes.clear()
        self._homes[ino] = directory

    def _note_quota(self, ino: int, change: QuotaChange) -> None:
        if (change.old is None) != (change.new is None):
            self._forget()
        if change.new is None:
            self._quotas.discard(ino)
            self.counting.discard(ino)
            return
        self._quotas.add(ino)
        if change.new.is_counting:
            self.counting.add(ino)
        else:
            self.counting.discard(ino)

    def _forget(self) -> None:
        self._nearest.clear()
        self._chains.clear()

    def chain(self, tables: Readable, directory: int) -> tuple[int, ...]:
        """Quotas that count what lies in `directory` (0: nothing does), the nearest first."""
        if not directory or not self._quotas:
            return ()
        here = self.nearest(tables, directory)
        if not here:
            return ()
        found = self._chains.get(here)
        if found is None:
            found = (here, *self.above(tables, here))
            self._chains[here] = found
        return found

    def above(self, tables: Readable, directory: int) -> tuple[int, ...]:
        """Quotas that count `directory` itself."""
        inode: Inode | None = tables.get(INODES, (directory,))
        if inode is None or directory in (ROOT_INO, TRASH_INO):
            return ()
        return self.chain(tables, inode.parent)

    def nearest(self, tables: Readable, directory: int) -> int:
        """The nearest directory with a quota, `directory` or one above it; 0: there is none."""
        passed = []
        here, found = directory, 0
        for _ in range(_DEPTH_MAX):
            if here in self._quotas:
                found = here
                break
            known = self._nearest.get(here)
            if known is not None:
                found = known
                break
            inode: Inode | None = tables.get(INODES, (here,))
            if inode is None:
                return 0
            passed.append(here)
            if here in (ROOT_INO, TRASH_INO):
                break
            here = inode.parent
        if len(self._nearest) > _KNOWN_MAX:
            self._nearest.clear()
        self._nearest.update(dict.fromkeys(passed, found))
        return found

    def of_inode(self, tables: Readable, ino: int, inode: Inode) -> tuple[int, ...]:
        """Quotas that count the inode, the nearest first."""
        known = self._homes.get(ino)
        if known is None:
            known = home(tables, ino, inode)
            if not inode.is_directory:
                self._learn(ino, known)
        return self.chain(tables, known)


def home(tables: Readable, ino: int, inode: Inode) -> int:
    """The directory in which an inode is counted; 0: in none."""
    if inode.is_directory:
        return 0 if ino in (ROOT_INO, TRASH_INO) else inode.parent
    keys = tables.by_index(LINKS_BY_INO, ino, limit=1)
    if keys:
        return int(keys[0][0])
    orphan: Orphan | None = tables.get(ORPHANS, (ino,))
    return orphan.quota if orphan is not None else 0


def all_quotas(tables: Any) -> list[tuple[int, Quota]]:
    """Every directory with a quota, ascending."""
    found: list[tuple[int, Quota]] = []
    while True:
        page = tables.scan(QUOTAS, after=(found[-1][0],) if found else None, limit=1000)
        found += [(int(key[0]), quota) for key, quota in page]
        if len(page) < 1000:
            return found
