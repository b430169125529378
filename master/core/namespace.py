"""Names: create, make, link, remove, rename (GFS §4.1, with POSIX semantics).

Departs from GFS §4.1: directories have inodes and per-directory lists, so
that hard links, permissions and a mount are possible; there are no path locks
because one task decides everything in order.
"""

from __future__ import annotations

import stat

from msgspec.structs import replace

from gfs.errors import (
    AlreadyExists,
    InvalidArgument,
    IsADirectory,
    NameTooLong,
    NotADirectory,
    NotEmpty,
    NotFound,
    NotPermitted,
    TooManyLinks,
)
from gfs.ids import ROOT_INO, SYMLINK_BYTES_MAX
from gfs.items import DIRENTS, INODES, TRASH, Dirent, Inode
from gfs.messages import (
    Create,
    Done,
    MakeLink,
    MakeNode,
    MakeSymlink,
    RemoveDirectory,
    RemoveTree,
    Unlink,
)
from gfs.open_flags import O_ACCMODE, O_EXCL, O_RDONLY, O_RDWR, O_TRUNC, O_WRONLY, writes
from gfs.permissions import EXECUTE, READ, WRITE
from master.core import quotas, removal
from master.core.decision import Decision, check_name, check_new_name
from master.core.permissions import inherited_gid, require, require_owner, require_removable

LINKS_MAX = 65000
_MAKEABLE = {stat.S_IFREG, stat.S_IFDIR, stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR, stat.S_IFBLK}


def access_wanted(flags: int) -> int:
    """Mode bits that open(2) flags need."""
    want = {O_RDONLY: READ, O_WRONLY: WRITE, O_RDWR: READ | WRITE}.get(flags & O_ACCMODE)
    if want is None:
        raise InvalidArgument(f"open flags {flags:o}")
    return want | (WRITE if flags & O_TRUNC else 0)


def create(decision: Decision, op: Create) -> Done:
    """open(2) with O_CREAT."""
    directory = decision.directory(op.parent)
    check_name(op.name)
    require(directory, decision.actor, EXECUTE)
    present = decision.dirent(op.parent, op.name)
    writing = writes(op.flags)
    if present is not None:
        return _open_present(decision, op, present.ino, writing)
    check_new_name(op.parent, op.name)
    require(directory, decision.actor, WRITE | EXECUTE)
    mode = stat.S_IFREG | stat.S_IMODE(op.mode)
    ino = _add(decision, op.parent, directory, op.name, mode)
    decision.registry.add_open(decision.session, ino, writing=writing)
    done = decision.done(ino, (op.parent,))
    if decision.realms:
        chain = decision.realms.chain(decision.tx.before, op.parent)
        done = replace(done, room=quotas.room_for(decision, chain))
    return done


def _open_present(decision: Decision, op: Create, ino: int, writing: bool) -> Done:
    if op.flags & O_EXCL:
        raise AlreadyExists("file exists")
    inode = decision.inode(ino)
    if inode.is_directory:
        raise IsADirectory("is a directory")
    require(inode, decision.actor, access_wanted(op.flags))
    decision.recall_others(ino)
    decision.open_here(ino, writing=writing)
    return decision.done(ino, created=False)


def make_node(decision: Decision, op: MakeNode) -> Done:
    """mkdir(2) and mknod(2)."""
    directory = decision.directory(op.parent)
    check_new_name(op.parent, op.name)
    kind = stat.S_IFMT(op.mode) or stat.S_IFREG
    if kind not in _MAKEABLE:
        raise InvalidArgument(f"mode {op.mode:o} names no type that can be made")
    _require_absent(decision, op.parent, directory, op.name)
    if kind in (stat.S_IFCHR, stat.S_IFBLK) and decision.actor.uid:
        raise NotPermitted("only root makes device nodes")
    mode = kind | stat.S_IMODE(op.mode)
    ino = _add(decision, op.parent, directory, op.name, mode, rdev=op.rdev)
    return decision.done(ino, (op.parent,))


def make_symlink(decision: Decision, op: MakeSymlink) -> Done:
    """symlink(2)."""
    directory = decision.directory(op.parent)
    check_new_name(op.parent, op.name)
    if not op.target:
        raise NotFound("empty target")
    if len(op.target) > SYMLINK_BYTES_MAX:
        raise NameTooLong(f"target of {len(op.target)} bytes")
    _require_absent(decision, op.parent, directory, op.name)
    mode = stat.S_IFLNK | 0o777
    ino = _add(decision, op.parent, directory, op.name, mode, target=op.target)
    return decision.done(ino, (op.parent,))


def make_link(decision: Decision, op: MakeLink) -> Done:
    """link(2)."""
    directory = decision.directory(op.parent)
    check_new_name(op.parent, op.name)
    inode = decision.inode(op.ino)
    if inode.is_directory:
        raise NotPermitted("a directory has one name")
    _require_absent(decision, op.parent, directory, op.name)
    if inode.nlink >= LINKS_MAX:
        raise TooManyLinks(f"{LINKS_MAX} links")
    if inode.nlink <= 0 or decision.tx.get(TRASH, (op.ino,)) is not None:
        raise NotFound("the file has no name any more")
    quotas.require_same_realm(decision, op.ino, inode, op.parent)
    decision.tx.put(DIRENTS, (op.parent, op.name), Dirent(op.ino, stat.S_IFMT(inode.mode)))
    decision.put_inode(
        op.ino,
        replace(inode, nlink=inode.nlink + 1, ctime_ns=decision.now_ns, version=inode.version + 1),
    )
    decision.touch_directory(op.parent, directory)
    return decision.done(op.ino, (op.parent,))


def unlink(decision: Decision, op: Unlink) -> Done:
    """unlink(2); the last name of a file may go to trash."""
    directory, dirent, victim = _victim(decision, op.parent, op.name)
    require_removable(directory, victim, decision.actor)
    if victim.is_directory:
        raise IsADirectory("is a directory")
    if victim.nlink <= 1:
        decision.break_kept(dirent.ino)
    decision.tx.delete(DIRENTS, (op.parent, op.name))
    removal.drop_link(decision, op.parent, op.name, dirent.ino, victim, to_trash=True)
    decision.touch_directory(op.parent, directory)
    return decision.done(dirent.ino, (op.parent,))


def remove_directory(decision: Decision, op: RemoveDirectory) -> Done:
    """rmdir(2)."""
    if op.name == b".":
        raise InvalidArgument("rmdir of '.'")
    directory, dirent, victim = _victim(decision, op.parent, op.name)
    require_removable(directory, victim, decision.actor)
    if not victim.is_directory:
        raise NotADirectory("not a directory")
    require_empty(decision, dirent.ino)
    decision.tx.delete(DIRENTS, (op.parent, op.name))
    decision.tx.delete(INODES, (dirent.ino,))
    decision.touch_directory(op.parent, directory, links=-1)
    return decision.done(0, (op.parent,))


def remove_tree(decision: Decision, op: RemoveTree) -> Done:
    """`gfs rm -r`: one dirent moves to trash, whatever lies below."""
    directory, dirent, victim = _victim(decision, op.parent, op.name)
    require_removable(directory, victim, decision.actor)
    if not victim.is_directory:
        return unlink(decision, Unlink(op.parent, op.name))
    require(victim, decision.actor, READ | WRITE | EXECUTE)
    require_owner(victim, decision.actor)
    decision.tx.delete(DIRENTS, (op.parent, op.name))
    removal.move_to_trash(decision, op.parent, op.name, dirent.ino, victim)
    decision.touch_directory(op.parent, directory, links=-1)
    return decision.done(0, (op.parent,))


def require_empty(decision: Decision, ino: int) -> None:
    """Raises NotEmpty."""
    if decision.tx.range(DIRENTS, ino, limit=1):
        raise NotEmpty("directory not empty")


def _victim(decision: Decision, parent: int, name: bytes) -> tuple[Inode, Dirent, Inode]:
    directory = decision.directory(parent)
    require(directory, decision.actor, EXECUTE)
    dirent = decision.dirent(parent, name)
    if dirent is None:
        raise NotFound("no such file or directory")
    return directory, dirent, decision.inode(dirent.ino)


def _require_absent(decision: Decision, parent: int, directory: Inode, name: bytes) -> None:
    require(directory, decision.actor, EXECUTE)
    if decision.dirent(parent, name) is not None:
        raise AlreadyExists("file exists")
    require(directory, decision.actor, WRITE | EXECUTE)


def _add(
    decision: Decision,
    parent: int,
    directory: Inode,
    name: bytes,
    mode: int,
    *,
    rdev: int = 0,
    target: bytes = b"",
) -> int:
    """A new inode under a free name; returns its number."""
    if directory.nlink <= 0 and parent != ROOT_INO:
        raise NotFound("the directory was removed")
    quotas.require_room(decision, decision.realms.chain(decision.tx.before, parent), files=1)
    ino, now = decision.draw_ino(1), decision.now_ns
    is_directory = stat.S_ISDIR(mode)
    if is_directory and directory.mode & stat.S_ISGID:
        mode |= stat.S_ISGID
    inode = Inode(
        mode,
        decision.actor.uid,
        inherited_gid(directory, decision.actor),
        2 if is_directory else 1,
        len(target),
        now,
        now,
        now,
        rdev=rdev,
        target=target,
        parent=parent if is_directory else 0,
        created_ns=now,
    )
    decision.tx.create(INODES, (ino,), inode)
    decision.tx.put(DIRENTS, (parent, name), Dirent(ino, stat.S_IFMT(mode)))
    decision.touch_directory(parent, directory, links=1 if is_directory else 0)
    return ino
