"""Trash from the user's side: bring back, or reclaim now."""

from __future__ import annotations

import stat

from msgspec.structs import replace

from gfs.errors import NotFound, NotPermitted
from gfs.ids import ROOT_INO, TRASH_INO
from gfs.items import DIRENTS, TRASH, Dirent, Trash
from gfs.messages import Actor, Done, EmptyTrash, MakeNode, Undelete
from master.core import namespace, removal
from master.core.decision import Decision, check_name
from master.core.permissions import EXECUTE, ROOT_UID, WRITE, require

RECLAIM_BATCH = 1000  # inodes a record


def undelete(decision: Decision, op: Undelete) -> Done:
    """Trash entry back to its path; missing parents are made, a taken name gets a suffix."""
    item = _entry(decision, op.ino)
    inode = decision.inode(op.ino)
    parts = [part for part in (op.path or item.path).split(b"/") if part]
    if not parts or parts[0] == b"?":
        parts = [item.name]
    for part in parts:
        check_name(part)
    parent = _make_parents(decision, parts[:-1])
    directory = decision.directory(parent)
    require(directory, decision.actor, WRITE | EXECUTE)
    name = _free_name(decision, parent, parts[-1])
    tx = decision.tx
    tx.delete(TRASH, (op.ino,))
    tx.delete(DIRENTS, (TRASH_INO, removal.trash_name(op.ino)))
    tx.put(DIRENTS, (parent, name), Dirent(op.ino, stat.S_IFMT(inode.mode)))
    home = parent if inode.is_directory else 0
    back = replace(inode, parent=home, ctime_ns=decision.now_ns, version=inode.version + 1)
    decision.put_inode(op.ino, back)
    decision.touch_directory(parent, directory, links=1 if inode.is_directory else 0)
    return decision.done(op.ino, (parent,))


def _entry(decision: Decision, ino: int) -> Trash:
    item: Trash | None = decision.tx.get(TRASH, (ino,))
    if item is None:
        raise NotFound(f"nothing with number {ino} is in the trash")
    _require_own(item, decision.actor)
    return item


def _require_own(item: Trash, actor: Actor) -> None:
    if actor.uid not in (ROOT_UID, item.uid):
        raise NotPermitted("deleted by another user")


def _make_parents(decision: Decision, parts: list[bytes]) -> int:
    here: int = ROOT_INO
    for part in parts:
        require(decision.directory(here), decision.actor, EXECUTE)
        dirent = decision.dirent(here, part)
        if dirent is None:
            made = namespace.make_node(decision, MakeNode(here, part, stat.S_IFDIR | 0o755))
            assert made.entry is not None
            here = made.entry.ino
        else:
            here = dirent.ino
        decision.directory(here)
    return here


def _free_name(decision: Decision, parent: int, name: bytes) -> bytes:
    candidate, count = name, 0
    while decision.dirent(parent, candidate) is not None:
        count += 1
        suffix = b".undeleted-%d" % count
        candidate = name[: 255 - len(suffix)] + suffix
    return candidate


def empty(decision: Decision, op: EmptyTrash) -> Done:
    """Reclaim what was named; big trees shrink by a batch and are finished behind."""
    for ino in op.inos:
        _entry(decision, ino)
    inos = op.inos or [
        int(key[0])
        for key, item in decision.tx.scan(TRASH, limit=RECLAIM_BATCH)
        if decision.actor.uid in (ROOT_UID, item.uid)
    ]
    budget = RECLAIM_BATCH
    left = []
    for ino in inos:
        if budget > 0:
            budget -= removal.reclaim_trash(decision, ino, budget)
        if decision.tx.get(TRASH, (ino,)) is not None:
            left.append(ino)
    # An entry that is left is due at once: upkeep goes on with it.
    for ino in left:
        item: Trash = decision.tx.get(TRASH, (ino,))
        decision.tx.put(TRASH, (ino,), replace(item, deleted_ns=0))
    return decision.done()
