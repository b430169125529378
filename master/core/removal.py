"""What happens when a name goes: trash, orphan, or reclaimed at once.

protocols.md "Deletion": to trash goes the last link of a file that nobody has
open; not what is still open, what a rename replaced, files younger than
the policy's age, and what lies in a directory with user.gfs.trash=0. Trash is
a directory outside the tree (inode 2) whose names are inode numbers.
"""

from __future__ import annotations

from msgspec.structs import replace

from gfs.ids import ROOT_INO, TRASH_INO
from gfs.items import DIRENTS, INODES, LINKS_BY_INO, ORPHANS, TRASH, Dirent, Inode, Orphan, Trash
from master.core import extents
from master.core.decision import Decision
from master.core.transaction import Transaction

NO_TRASH = b"user.gfs.trash"
PAGE = 50  # inodes with the largest attributes, of which a record holds a few hundred
_DEPTH_MAX = 4096


def path_of(tx: Transaction, parent: int, name: bytes) -> bytes:
    """Absolute path of a name; what was removed meanwhile shows as "?"."""
    parts = [name]
    for _ in range(_DEPTH_MAX):
        if parent == ROOT_INO:
            return b"/" + b"/".join(reversed(parts))
        keys = tx.by_index(LINKS_BY_INO, parent, limit=1)
        inode: Inode | None = tx.get(INODES, (parent,))
        if not keys or inode is None:
            break
        parent, above = keys[0]
        parts.append(above)
    return b"?/" + b"/".join(reversed(parts))


def _above(tx: Transaction, directory: int) -> tuple[int, ...]:
    """Those above a directory, nearest first, without the root: it may be removed itself later."""
    found: list[int] = []
    for _ in range(_DEPTH_MAX):
        inode: Inode | None = tx.get(INODES, (directory,))
        if inode is None or inode.parent in (ROOT_INO, TRASH_INO, directory):
            break
        directory = inode.parent
        found.append(directory)
    return tuple(found)


def drop_link(
    decision: Decision, parent: int, name: bytes, ino: int, inode: Inode, *, to_trash: bool
) -> None:
    """Account for a dirent that the caller has deleted; the last one decides the fate."""
    inode = replace(
        inode, nlink=inode.nlink - 1, ctime_ns=decision.now_ns, version=inode.version + 1
    )
    if inode.nlink > 0:
        decision.put_inode(ino, inode)
    elif to_trash and not decision.registry.is_open(ino) and wants_trash(decision, parent, inode):
        move_to_trash(decision, parent, name, ino, inode)
    else:
        reclaim_or_orphan(decision, ino, inode, parent)


def wants_trash(decision: Decision, parent: int, inode: Inode) -> bool:
    """Only files old and full enough to be missed."""
    if not inode.is_file or not (inode.size or inode.tail):
        return False
    if decision.now_ns - inode.created_ns < decision.policy.trash_min_age_ns:
        return False
    return _keeps_trash(decision, parent)


def _keeps_trash(decision: Decision, directory: int) -> bool:
    """The nearest directory that says so decides, upwards; what goes in the trash goes for good."""
    for _ in range(_DEPTH_MAX):
        if directory == TRASH_INO:
            return False
        inode: Inode | None = decision.tx.get(INODES, (directory,))
        if inode is None or directory == inode.parent:
            break
        said = inode.attributes.get(NO_TRASH)
        if said is not None:
            return said != b"0"
        directory = inode.parent
    return inode is None or inode.attributes.get(NO_TRASH) != b"0"


def move_to_trash(decision: Decision, parent: int, name: bytes, ino: int, inode: Inode) -> None:
    """Hide under the trash directory (GFS §4.4); `inode.nlink` comes back as 1 for a file.

    A tree that keeps no trash, or lies where none is kept, is due at once: upkeep takes
    it down a batch at a time.
    """
    tx = decision.tx
    keeper = ino if inode.is_directory else parent
    deleted_ns = decision.now_ns if _keeps_trash(decision, keeper) else 0
    if not inode.is_directory:
        inode = replace(inode, nlink=1)
    else:
        inode = replace(inode, parent=TRASH_INO)
    decision.put_inode(ino, inode)
    tx.put(DIRENTS, (TRASH_INO, trash_name(ino)), Dirent(ino, inode.mode & 0o170000))
    path = path_of(tx, parent, name)
    above = _above(tx, parent)
    tx.put(TRASH, (ino,), Trash(parent, name, path, deleted_ns, decision.actor.uid, above))


def trash_name(ino: int) -> bytes:
    return b"%016x" % ino


def reclaim(decision: Decision, ino: int, inode: Inode) -> None:
    """The inode and its content cease to exist."""
    if inode.is_file:
        extents.release(decision, ino, inode)
    decision.tx.delete(INODES, (ino,))


def reclaim_orphan(decision: Decision, ino: int, budget: int) -> int:
    """A file without a name that nobody holds; returns how many items that took, or their worth.

    One with more than `budget` extents gives back so many and stays an orphan.
    """
    inode: Inode | None = decision.tx.get(INODES, (ino,))
    used = _cost(inode)
    if inode is not None and inode.nlink <= 0:
        used += extents.release_some(decision, ino, inode, budget)
        if used > max(budget, _cost(inode)):
            return used
        reclaim(decision, ino, decision.inode(ino))
    decision.tx.delete(ORPHANS, (ino,))
    return used


def _cost(inode: Inode | None) -> int:
    """How many inodes without attributes would take as much of a record, about."""
    attributes = inode.attributes.items() if inode is not None else ()
    return 1 + sum(len(name) + len(value) for name, value in attributes) // 1024


def reclaim_trash(decision: Decision, ino: int, budget: int) -> int:
    """Reclaim a trash entry, a tree bottom-up, `budget` inodes or a page more; returns how many.

    The entry itself goes last; once something below is gone it is not listed any more.
    """
    used = _reclaim_below(decision, ino, budget)
    if used >= budget:
        give_up(decision, ino)
        return used
    inode: Inode | None = decision.tx.get(INODES, (ino,))
    decision.tx.delete(TRASH, (ino,))
    decision.tx.delete(DIRENTS, (TRASH_INO, trash_name(ino)))
    if inode is not None:
        reclaim_or_orphan(decision, ino, inode)
    return used + _cost(inode)


def give_up(decision: Decision, ino: int) -> None:
    """A trash entry of which nothing can be undeleted any more: upkeep reclaims it."""
    item: Trash | None = decision.tx.get(TRASH, (ino,))
    if item is not None:
        decision.tx.put(TRASH, (ino,), replace(item, deleted_ns=0))


def _reclaim_below(decision: Decision, root: int, budget: int) -> int:
    """Depth first without recursion: trees may be deeper than Python's stack."""
    used = 0
    path = [root]
    while path and used < budget:
        here = path[-1]
        inode: Inode | None = decision.tx.get(INODES, (here,))
        if inode is None or not inode.is_directory:
            path.pop()
            continue
        names = decision.tx.range(DIRENTS, here, limit=min(budget - used, PAGE))
        down, cost = _remove_leaves(decision, names)
        used += cost
        if down:
            path.append(down[0])
            continue
        if names:
            continue
        path.pop()
        if path:
            _remove_directory(decision, path[-1], here)
            used += _cost(inode)
    return used


def _remove_leaves(
    decision: Decision, names: list[tuple[tuple[int, bytes], Dirent]]
) -> tuple[list[int], int]:
    """Drop the names that are no directories; returns the inodes of those that are, and a cost."""
    directories = []
    cost = 0
    for key, dirent in names:
        child: Inode | None = decision.tx.get(INODES, (dirent.ino,))
        if child is not None and child.is_directory:
            directories.append(dirent.ino)
            continue
        decision.tx.delete(DIRENTS, key)
        cost += _cost(child)
        if child is not None:
            drop_link(decision, key[0], key[1], dirent.ino, child, to_trash=False)
    return directories, cost


def _remove_directory(decision: Decision, parent: int, ino: int) -> None:
    for key in decision.tx.by_index(LINKS_BY_INO, ino):
        if key[0] == parent:
            decision.tx.delete(DIRENTS, key)
    decision.tx.delete(INODES, (ino,))
    decision.touch_directory(parent, decision.inode(parent), links=-1)


def reclaim_or_orphan(decision: Decision, ino: int, inode: Inode, parent: int = 0) -> None:
    """No name is left: a file that is open waits for its close, a scattered one for upkeep."""
    is_open = decision.registry.is_open(ino) and not inode.is_directory
    if is_open or (inode.is_file and extents.is_scattered(decision.tx, ino, inode)):
        decision.put_inode(ino, replace(inode, nlink=0, version=inode.version + 1))
        above = _above(decision.tx, parent)
        decision.tx.put(ORPHANS, (ino,), Orphan(decision.now_ns, parent, above=above))
    else:
        reclaim(decision, ino, inode)
