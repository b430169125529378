"""rename(2): onto nothing, onto something, or exchanged; across directories.

What a rename replaces does not go to trash: save-by-rename happens at every
turn of an editor, and the old content is what the user asked to replace.
"""

from __future__ import annotations

import stat

from msgspec.structs import replace

from gfs.errors import AlreadyExists, InvalidArgument, IsADirectory, NotADirectory, NotFound
from gfs.ids import ROOT_INO
from gfs.items import DIRENTS, INODES, Dirent, Inode
from gfs.messages import Done, Rename
from gfs.permissions import EXECUTE, WRITE
from master.core import quotas, removal
from master.core.decision import Decision, check_name, check_new_name
from master.core.namespace import require_empty
from master.core.permissions import require, require_removable

NOREPLACE, EXCHANGE = 1, 2
_DEPTH_MAX = 4096


def rename(decision: Decision, op: Rename) -> Done:
    """Move a name. Replies with both directories as parents and the moved inode as entry."""
    if op.flags not in (0, NOREPLACE, EXCHANGE):
        raise InvalidArgument(f"rename flags {op.flags}")
    source_dir = decision.directory(op.parent)
    target_dir = decision.directory(op.new_parent)
    require(source_dir, decision.actor, EXECUTE)
    require(target_dir, decision.actor, EXECUTE)
    check_name(op.name)
    check_new_name(op.new_parent, op.new_name)
    source = decision.dirent(op.parent, op.name)
    if source is None:
        raise NotFound("no such file or directory")
    target = decision.dirent(op.new_parent, op.new_name)
    moved = decision.inode(source.ino)
    require_removable(source_dir, moved, decision.actor)
    require(target_dir, decision.actor, WRITE | EXECUTE)
    _check_not_below(decision, source.ino, moved, op.new_parent)
    _require_movable(decision, op, moved)
    if op.flags == EXCHANGE:
        return _exchange(decision, op, source, target)
    if target is not None:
        if op.flags == NOREPLACE:
            raise AlreadyExists("file exists")
        if target.ino == source.ino:  # two names of one file: nothing happens, says POSIX
            return decision.done(source.ino, (op.parent, op.new_parent))
        _remove_target(decision, op, moved, target)
    _move(decision, op, source, moved, replaced=target)
    return decision.done(source.ino, (op.parent, op.new_parent))


def _require_movable(decision: Decision, op: Rename, inode: Inode) -> None:
    """A directory that gets another parent is itself written: its ".." changes.

    One of several names of a file cannot go to where other quotas count.
    """
    if op.parent == op.new_parent:
        return
    if inode.is_directory:
        require(inode, decision.actor, WRITE)
    elif inode.nlink > 1:
        quotas.require_same_realms(decision, op.parent, op.new_parent)


def _check_not_below(decision: Decision, ino: int, inode: Inode, new_parent: int) -> None:
    """A directory cannot go into itself or below."""
    if not inode.is_directory:
        return
    here = new_parent
    for _ in range(_DEPTH_MAX):
        if here == ino:
            raise InvalidArgument("a directory cannot move into itself")
        if here == ROOT_INO:
            return
        here = decision.inode(here).parent
    raise InvalidArgument("directories nested too deep")


def _remove_target(decision: Decision, op: Rename, moved: Inode, target: Dirent) -> None:
    victim = decision.inode(target.ino)
    require_removable(decision.directory(op.new_parent), victim, decision.actor)
    if moved.is_directory and not victim.is_directory:
        raise NotADirectory("not a directory")
    if victim.is_directory and not moved.is_directory:
        raise IsADirectory("is a directory")
    if not victim.is_directory and victim.nlink <= 1:
        decision.break_kept(target.ino)
    decision.tx.delete(DIRENTS, (op.new_parent, op.new_name))
    if victim.is_directory:
        require_empty(decision, target.ino)
        decision.tx.delete(INODES, (target.ino,))
    else:
        removal.drop_link(decision, op.new_parent, op.new_name, target.ino, victim, to_trash=False)


def _move(
    decision: Decision, op: Rename, source: Dirent, moved: Inode, *, replaced: Dirent | None
) -> None:
    tx = decision.tx
    tx.delete(DIRENTS, (op.parent, op.name))
    version = 1 if replaced is None else replaced.version + 1
    tx.put(DIRENTS, (op.new_parent, op.new_name), replace(source, version=version))
    _reparent(decision, source.ino, moved, op.new_parent)
    # A directory that goes away takes its ".." link from one parent to the other; a
    # replaced directory took one from the target.
    links = 1 if moved.is_directory else 0
    lost = 1 if replaced is not None and stat.S_ISDIR(replaced.kind) else 0
    if op.parent == op.new_parent:
        decision.touch_directory(op.parent, decision.directory(op.parent), links=-lost)
    else:
        decision.touch_directory(op.parent, decision.directory(op.parent), links=-links)
        decision.touch_directory(
            op.new_parent, decision.directory(op.new_parent), links=links - lost
        )


def _reparent(decision: Decision, ino: int, inode: Inode, parent: int) -> None:
    decision.put_inode(
        ino,
        replace(
            inode,
            parent=parent if inode.is_directory else 0,
            ctime_ns=decision.now_ns,
            version=inode.version + 1,
        ),
    )


def _exchange(decision: Decision, op: Rename, source: Dirent, target: Dirent | None) -> Done:
    if target is None:
        raise NotFound("no such file or directory")
    if target.ino == source.ino:
        return decision.done(source.ino, (op.parent, op.new_parent))
    other = decision.inode(target.ino)
    require_removable(decision.directory(op.new_parent), other, decision.actor)
    _require_movable(decision, op, other)
    _check_not_below(decision, target.ino, other, op.parent)
    tx = decision.tx
    tx.put(DIRENTS, (op.parent, op.name), replace(target, version=source.version + 1))
    tx.put(DIRENTS, (op.new_parent, op.new_name), replace(source, version=target.version + 1))
    moved = decision.inode(source.ino)
    _reparent(decision, source.ino, moved, op.new_parent)
    _reparent(decision, target.ino, decision.inode(target.ino), op.parent)
    shift = int(other.is_directory) - int(moved.is_directory)
    if op.parent == op.new_parent:
        decision.touch_directory(op.parent, decision.directory(op.parent))
    else:
        decision.touch_directory(op.parent, decision.directory(op.parent), links=shift)
        decision.touch_directory(op.new_parent, decision.directory(op.new_parent), links=-shift)
    return decision.done(source.ino, (op.parent, op.new_parent))
