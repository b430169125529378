"""Trash from the user's side: bring back, or reclaim now."""

from __future__ import annotations

import stat

from msgspec.structs import replace

from gfs.errors import AlreadyExists, InvalidArgument, NotFound, NotPermitted
from gfs.ids import ROOT_INO, TRASH_INO
from gfs.items import DIRENTS, TRASH, Dirent, Trash
from gfs.messages import Actor, Done, EmptyTrash, MakeNode, Undelete
from gfs.permissions import EXECUTE, ROOT_UID, WRITE
from master.core import namespace, removal
from master.core.ancestry import home_of, names_gone
from master.core.decision import Decision, check_name, check_new_name, is_reserved
from master.core.permissions import require, require_removable

RECLAIM_BATCH = 1000  # inodes a record
_DEPTH_MAX = 4096


def undelete(decision: Decision, op: Undelete) -> Done:
    """A trash entry, or what lies at `part` below it, back to its path (`Undelete`)."""
    item = _entry(decision, op.ino)
    below = [name for name in op.part.split(b"/") if name]
    holder, held_as, ino = _held(decision, op.ino, below)
    inode = decision.inode(ino)
    if op.parent:
        parent, name = _named_place(decision, op)
    else:
        parent, name = _old_place(decision, op, item, below)
    tx = decision.tx
    tx.delete(DIRENTS, (holder, held_as))
    tx.put(DIRENTS, (parent, name), Dirent(ino, stat.S_IFMT(inode.mode)))
    home = parent if inode.is_directory else 0
    back = replace(inode, parent=home, ctime_ns=decision.now_ns, version=inode.version + 1)
    decision.put_inode(ino, back)
    links = 1 if inode.is_directory else 0
    if below:
        decision.touch_directory(holder, decision.directory(holder), links=-links)
    else:
        tx.delete(TRASH, (ino,))
    decision.touch_directory(parent, decision.directory(parent), links=links)
    return decision.done(ino, (parent,))


def _named_place(decision: Decision, op: Undelete) -> tuple[int, bytes]:
    """A free name in a directory that stands below the root, and not in the trash."""
    require(decision.directory(op.parent), decision.actor, WRITE | EXECUTE)
    check_new_name(op.parent, op.path)
    if decision.dirent(op.parent, op.path) is not None:
        raise AlreadyExists("file exists")
    _require_live(decision, op.parent)
    return op.parent, op.path


def _require_live(decision: Decision, directory: int) -> None:
    for _ in range(_DEPTH_MAX):
        if directory == ROOT_INO:
            return
        above = decision.inode(directory).parent
        if above == directory:
            break
        directory = above
    raise NotFound("the directory was removed")


def _old_place(
    decision: Decision, op: Undelete, item: Trash, below: list[bytes]
) -> tuple[int, bytes]:
    """Where it was, or the path that is asked for: directory and free name.

    What is to come back below `op.top` goes to the directory that it was in, wherever its
    path would lead by now; if that has gone, it is made again in the nearest one that stands.
    """
    if op.top != ROOT_INO and not op.path:
        home, gone = home_of(decision.tx, item)
        return _free_place(decision, home, [*names_gone(item, gone), item.name, *below])
    path = op.path or b"/".join((item.path, *below))
    parts = [part for part in path.split(b"/") if part]
    if not parts or parts[0] == b"?":
        parts = [below[-1] if below else item.name]
    return _free_place(decision, op.top, parts)


def _free_place(decision: Decision, home: int, parts: list[bytes]) -> tuple[int, bytes]:
    """The directory at the end of these names below `home`, and a free one there."""
    for part in parts:
        check_name(part)
    parent = _make_parents(decision, home, parts[:-1])
    require(decision.directory(parent), decision.actor, WRITE | EXECUTE)
    return parent, _free_name(decision, parent, parts[-1])


def _held(decision: Decision, entry: int, below: list[bytes]) -> tuple[int, bytes, int]:
    """Directory, name and inode of what is asked for; the right to take it out of there."""
    holder, held_as, ino = int(TRASH_INO), removal.trash_name(entry), entry
    for name in below:
        directory = decision.directory(ino)
        require(directory, decision.actor, EXECUTE)
        dirent = decision.dirent(ino, name)
        if dirent is None:
            raise NotFound("no such file or directory")
        holder, held_as, ino = ino, name, dirent.ino
    if below:
        inode = decision.inode(ino)
        require_removable(decision.directory(holder), inode, decision.actor)
        if inode.is_directory:
            require(inode, decision.actor, WRITE)  # its ".." changes
    return holder, held_as, ino


def _entry(decision: Decision, ino: int) -> Trash:
    item: Trash | None = decision.tx.get(TRASH, (ino,))
    if item is None or not item.deleted_ns:
        raise NotFound(f"nothing with number {ino} is in the trash")
    _require_own(item, decision.actor)
    return item


def _require_own(item: Trash, actor: Actor) -> None:
    if actor.uid not in (ROOT_UID, item.uid):
        raise NotPermitted("deleted by another user")


def _make_parents(decision: Decision, home: int, parts: list[bytes]) -> int:
    here = home
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
    while is_reserved(parent, candidate) or decision.dirent(parent, candidate) is not None:
        count += 1
        suffix = b".undeleted-%d" % count
        candidate = name[: 255 - len(suffix)] + suffix
    return candidate


def empty(decision: Decision, op: EmptyTrash) -> Done:
    """Reclaim what was named, as much as a record holds; upkeep goes on with the rest.

    Raises:
      NotFound, NotPermitted: one is not there or another's; nothing is reclaimed.
      InvalidArgument: too many at once.
    """
    if len(op.inos) > RECLAIM_BATCH:
        raise InvalidArgument(f"{len(op.inos)} entries, at most {RECLAIM_BATCH} at once")
    for ino in op.inos:
        _entry(decision, ino)
    budget = RECLAIM_BATCH
    for ino in dict.fromkeys(op.inos):
        if budget > 0:
            budget -= removal.reclaim_trash(decision, ino, budget)
        else:
            removal.give_up(decision, ino)
    return decision.done()
