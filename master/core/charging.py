"""What quotas count, kept exactly: from the changes of each record, whatever made them.

`charge` sees which inodes came, went, grew, shrank or moved to where other quotas count
them, and adds the changed counts of these quotas to the same record. So the count follows from
the log as everything else does, and no operation needs to think of it. What moves with a
directory is counted on the spot; a quota below tells what lies in it; where that is too much,
a rename to below another quota is refused (EXDEV: mv(1) then copies), and whatever must
not be refused has the quotas concerned counted anew.

Invariant: `Quota.used_*` = sum over the inodes that `realms` says it counts, unless it is
being counted; then that holds for `counted_*` and the inodes counted so far.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from msgspec.structs import replace

from gfs.errors import CrossesDevice
from gfs.items import INODES, LINKS_BY_INO, ORPHANS, QUOTAS, Inode, Key, Orphan, Quota
from gfs.records import DirentChange, InodeChange
from master.core.decision import Decision
from master.core.quota_counting import amount_below, judged, let_orphans_go, recounted
from master.core.quotas import Chain, check
from master.core.realms import home


@dataclass
class _Delta:
    """Change of one quota's counts."""

    stored: int = 0
    files: int = 0
    counted_stored: int = 0  # of inodes in what has been counted
    counted_files: int = 0
    anew: bool = False  # nobody can tell: count all again


@dataclass
class _Moves:
    """Names that a transaction took away and gave, by inode."""

    removed: defaultdict[int, list[Key]] = field(default_factory=lambda: defaultdict(list))
    added: defaultdict[int, list[Key]] = field(default_factory=lambda: defaultdict(list))


def charge(decision: Decision, *, limited: bool = False, known: bool = False) -> list[Any]:
    """Put the counts that the changes of this decision make; call when all else is decided.

    Returns all its changes, these included.

    Args:
      limited: refuse what a quota does not allow.
      known: refuse what cannot be counted at once.

    Raises:
      QuotaExceeded: a tree or file moved or copied does not fit.
      CrossesDevice: it is too big to be counted at once.
    """
    changes = decision.tx.changes()
    if not decision.realms or not changes:
        return changes
    charging = _Charging(decision, limited, known)
    charging.run(changes)
    return decision.tx.changes() if charging.wrote else changes


class _Charging:
    def __init__(self, decision: Decision, limited: bool, known: bool) -> None:
        self._decision = decision
        self._tx = decision.tx
        self._before = decision.tx.before
        self._realms = decision.realms
        self._limited, self._known = limited, known
        self._moves = _Moves()
        self._deltas: defaultdict[int, _Delta] = defaultdict(_Delta)
        self.wrote = False

    def run(self, changes: list[Any]) -> None:
        changed: dict[int, tuple[Inode | None, Inode | None]] = {}
        for change in changes:
            if isinstance(change, InodeChange):
                changed[change.key[0]] = change.old, change.new
            elif isinstance(change, DirentChange):
                if change.old is not None:
                    self._moves.removed[change.old.ino].append(change.key)
                if change.new is not None:
                    self._moves.added[change.new.ino].append(change.key)
        moved = self._moves.removed.keys() | self._moves.added.keys()
        for ino in dict.fromkeys((*changed, *moved)):
            old, new = changed.get(ino) or self._unchanged(ino)
            counts = (old is None) != (new is None) or ino in moved
            if counts or (old is not None and new is not None and old.stored != new.stored):
                self._inode(ino, old, new)
        self._copied()
        gone = [ino for ino, (_, new) in changed.items() if new is None and ino in self._realms]
        for ino in gone:
            self._quota_gone(ino)
        for ino, delta in self._deltas.items():
            if ino not in gone:
                self._settle(ino, delta)

    def _unchanged(self, ino: int) -> tuple[Inode | None, Inode | None]:
        inode: Inode | None = self._tx.get(INODES, (ino,))
        return inode, inode

    # --- who counts what

    def _inode(self, ino: int, old: Inode | None, new: Inode | None) -> None:
        before = self._realms.of_inode(self._before, ino, old) if old is not None else ()
        after = self._after(ino, old, new, before) if new is not None else ()
        had, has = old.stored if old is not None else 0, new.stored if new is not None else 0
        if before == after:
            for quota in after:
                self._add(quota, ino, has - had, 0)
            return
        for quota in before:
            self._add(quota, ino, -had, -1)
        for quota in after:
            self._add(quota, ino, has, 1)
        if old is not None and new is not None and new.is_directory:
            self._tree(ino, set(before), set(after))

    def _add(self, quota: int, ino: int, stored: int, files: int) -> None:
        delta = self._deltas[quota]
        delta.stored += stored
        delta.files += files
        item: Quota | None = self._tx.get(QUOTAS, (quota,))
        if item is not None and item.has_counted(ino):
            delta.counted_stored += stored
            delta.counted_files += files

    def _after(self, ino: int, old: Inode | None, inode: Inode, before: Chain) -> Chain:
        """Quotas that count the inode once this is done."""
        if ino not in self._moves.removed and ino not in self._moves.added:
            return before
        if inode.is_directory:
            return self._in(home(self._tx, ino, inode))
        least = self._least_name(ino, is_new=old is None)
        if least is not None:
            return self._in(int(least[0]))
        orphan: Orphan | None = self._tx.get(ORPHANS, (ino,))
        if orphan is None:
            return ()
        if before and not orphan.quota:
            self._tx.put(ORPHANS, (ino,), replace(orphan, quota=before[0]))
            self.wrote = True
        return before

    def _least_name(self, ino: int, *, is_new: bool) -> Key | None:
        removed, added = self._moves.removed.get(ino, []), self._moves.added.get(ino, [])
        if is_new:
            return min(added, default=None)
        stored = self._before.by_index(LINKS_BY_INO, ino, limit=len(removed) + 1)
        left = [key for key in stored if key not in removed]
        return min([*left, *added], default=None)

    def _in(self, directory: int) -> Chain:
        """Quotas that count what lies in a directory, which itself may be new or have moved."""
        passed: list[int] = []
        while directory in self._moves.added:
            inode: Inode | None = self._tx.get(INODES, (directory,))
            if inode is None:
                break
            if directory in self._realms:
                passed.append(directory)
            directory = home(self._tx, directory, inode)
        return (*passed, *self._realms.chain(self._before, directory))

    def _tree(self, top: int, before: set[int], after: set[int]) -> None:
        """All below a directory that has moved."""
        losing, gaining = before - after, after - before
        if not losing and not gaining:
            return
        amount = amount_below(self._before, self._realms, top)
        if amount is None and gaining and self._known:
            raise CrossesDevice("too many files to be counted at once for another quota")
        for quota in losing | gaining:
            delta = self._deltas[quota]
            item: Quota | None = self._tx.get(QUOTAS, (quota,))
            if amount is None or (item is not None and item.is_counting):
                delta.anew = True
            if amount is not None:
                sign = 1 if quota in gaining else -1
                delta.stored += sign * amount.stored
                delta.files += sign * amount.files

    def _copied(self) -> None:
        copy = self._decision.copy
        for quota in self._in(copy.parent) if copy is not None else ():
            assert copy is not None
            delta = self._deltas[quota]
            delta.stored += self._decision.copied_bytes
            delta.counted_stored += self._decision.copied_bytes
            delta.files += copy.count
            delta.counted_files += copy.count

    # --- the counts

    def _quota_gone(self, ino: int) -> None:
        """With its directory. What had lost its names there counts above."""
        above = self._realms.above(self._before, ino)
        heir = above[0] if above else 0
        let_orphans_go(self._decision, ino, heir)
        for change in self._tx.changes():
            new: Any = change.new
            if isinstance(new, Orphan) and new.quota == ino:
                self._tx.put(ORPHANS, change.key, replace(new, quota=heir))
        self._tx.delete(QUOTAS, (ino,))
        self.wrote = True

    def _settle(self, ino: int, delta: _Delta) -> None:
        quota: Quota | None = self._tx.get(QUOTAS, (ino,))
        if quota is None or delta == _Delta():
            return
        if self._limited:
            check(self._decision, ino, quota, delta.stored, delta.files)
        quota = replace(
            quota,
            used_bytes=max(0, quota.used_bytes + delta.stored),
            used_files=max(0, quota.used_files + delta.files),
        )
        if delta.anew:
            quota = recounted(self._decision, quota)
        elif quota.is_counting:
            quota = replace(
                quota,
                counted_bytes=quota.counted_bytes + delta.counted_stored,
                counted_files=quota.counted_files + delta.counted_files,
            )
        self._tx.put(QUOTAS, (ino,), judged(quota, self._decision.now_ns))
        self.wrote = True
