"""chmod, chown, truncate, utimens and extended attributes."""

from __future__ import annotations

import stat

from msgspec.structs import replace

from gfs.errors import (
    AlreadyExists,
    InvalidArgument,
    IsADirectory,
    NameTooLong,
    NoAttribute,
    NoSpace,
    NotPermitted,
    TooLarge,
    Unsupported,
)
from gfs.ids import NAME_BYTES_MAX, TIME_NS_MAX, XATTR_BYTES_MAX
from gfs.items import Inode
from gfs.messages import Actor, Done, RemoveXattr, SetAttributes, SetXattr
from gfs.permissions import READ, ROOT_UID, WRITE, in_group
from master.core import extents
from master.core.decision import Decision, NeedsSeal
from master.core.permissions import require, require_owner, without_privileges

XATTR_CREATE, XATTR_REPLACE = 1, 2
XATTRS_BYTES_MAX = XATTR_BYTES_MAX + 4096  # of one inode: each record has them twice
ID_LIMIT = (1 << 32) - 1  # -1 means "leave"
_NAMESPACES = (b"user.", b"trusted.", b"security.", b"system.")


def set_attributes(decision: Decision, op: SetAttributes) -> Done:
    """Each given field, checked by its own rule, in one mutation.

    Whatever is given moves the change time, though it be what was there (POSIX chmod, chown).
    """
    inode = decision.inode(op.ino)
    _check_times(decision, op, inode)
    changed = inode
    if op.mode is not None:
        changed = _chmod(decision, op, changed)
    if op.uid is not None or op.gid is not None:
        changed = _chown(changed, decision.actor, op.uid, op.gid)
    if op.size is not None:
        changed = _truncate(decision, op, changed)
    changed = _set_times(decision, op, changed)
    given = (op.mode, op.uid, op.gid, op.atime_ns, op.mtime_ns)
    if changed == inode and all(one is None for one in given):
        return decision.done(op.ino)
    decision.put_inode(
        op.ino, replace(changed, ctime_ns=decision.now_ns, version=inode.version + 1)
    )
    return decision.done(op.ino)


def _chmod(decision: Decision, op: SetAttributes, inode: Inode) -> Inode:
    actor = decision.actor
    assert op.mode is not None
    bits = stat.S_IMODE(op.mode)
    if bits == stat.S_IMODE(without_privileges(inode, actor)) and _is_open(decision, op.ino):
        return replace(inode, mode=stat.S_IFMT(inode.mode) | bits)  # a write of whoever takes them
    require_owner(inode, actor)
    loses_setgid = bits & stat.S_ISGID and actor.uid != ROOT_UID and not inode.is_directory
    if loses_setgid and not in_group(actor, inode.gid):
        bits &= ~stat.S_ISGID
    return replace(inode, mode=stat.S_IFMT(inode.mode) | bits)


def _chown(inode: Inode, actor: Actor, uid: int | None, gid: int | None) -> Inode:
    if not (0 <= (uid or 0) < ID_LIMIT and 0 <= (gid or 0) < ID_LIMIT):
        raise InvalidArgument(f"owner {uid}:{gid}")
    if actor.uid != ROOT_UID:
        if uid is not None and uid != inode.uid:
            raise NotPermitted("only root gives files away")
        require_owner(inode, actor)
        if gid is not None and gid != inode.gid and not in_group(actor, gid):
            raise NotPermitted("not a member of that group")
    mode = inode.mode
    if not inode.is_directory and mode & 0o111:
        mode &= ~(stat.S_ISUID | (stat.S_ISGID if mode & stat.S_IXGRP else 0))
    return replace(
        inode,
        mode=mode,
        uid=inode.uid if uid is None else uid,
        gid=inode.gid if gid is None else gid,
    )


def _truncate(decision: Decision, op: SetAttributes, inode: Inode) -> Inode:
    assert op.size is not None
    if inode.is_directory:
        raise IsADirectory("is a directory")
    if not inode.is_file:
        raise InvalidArgument("not a regular file")
    if not (op.handle_open_for_write and _is_open(decision, op.ino)):
        require(inode, decision.actor, WRITE)
    require_exclusive(decision, op.ino, inode)
    if op.size < inode.size:
        extents.require_few(decision, op.ino, max(op.size, 0))
    changed = extents.truncate(decision, op.ino, inode, op.size)
    return replace(
        changed,
        mode=without_privileges(inode, decision.actor),
        mtime_ns=inode.written_at(decision.now_ns),
        data_version=inode.data_version + 1,
    )


def _is_open(decision: Decision, ino: int) -> bool:
    return decision.session in decision.registry.openers.get(ino, ())


def require_exclusive(decision: Decision, ino: int, inode: Inode) -> None:
    """What others hold back comes in first, and the tail is sealed.

    Raises:
      NeedsRecall, NeedsSeal
    """
    decision.recall_others(ino)
    if inode.tail:
        raise NeedsSeal(inode.tail)


def _set_times(decision: Decision, op: SetAttributes, inode: Inode) -> Inode:
    atime = decision.now_ns if op.atime_now else op.atime_ns
    mtime = decision.now_ns if op.mtime_now else op.mtime_ns
    if mtime is not None and inode.is_file:
        require_exclusive(decision, op.ino, inode)  # what was written before must not undo it
    return replace(
        inode,
        atime_ns=inode.atime_ns if atime is None else atime,
        mtime_ns=inode.mtime_ns if mtime is None else mtime,
    )


def _check_times(decision: Decision, op: SetAttributes, inode: Inode) -> None:
    """All refusals that concern times, before anything is cut off."""
    explicit = op.atime_ns is not None or op.mtime_ns is not None
    if explicit or (op.size is None and (op.atime_now or op.mtime_now)):
        _require_may_set_times(inode, decision.actor, explicit)
    check_time(op.atime_ns)
    check_time(op.mtime_ns)


def check_time(time_ns: int | None) -> None:
    """Raises InvalidArgument for what no clock shows."""
    if time_ns is not None and abs(time_ns) > TIME_NS_MAX:
        raise InvalidArgument(f"time {time_ns} ns")


def _require_may_set_times(inode: Inode, actor: Actor, explicit: bool) -> None:
    """Any writer may set them to now; other values are the owner's."""
    if explicit:
        require_owner(inode, actor)
    elif actor.uid not in (ROOT_UID, inode.uid):
        require(inode, actor, WRITE)


def set_xattr(decision: Decision, op: SetXattr) -> Done:
    """setxattr(2)."""
    inode = decision.inode(op.ino)
    _check_xattr(inode, decision.actor, op.name, writing=True)
    if len(op.value) > XATTR_BYTES_MAX:
        raise TooLarge(f"attribute of {len(op.value)} bytes, at most {XATTR_BYTES_MAX}")
    present = op.name in inode.attributes
    if op.flags & XATTR_CREATE and present:
        raise AlreadyExists("attribute exists")
    if op.flags & XATTR_REPLACE and not present:
        raise NoAttribute("no such attribute")
    if inode.attributes.get(op.name) == op.value:
        return decision.done(op.ino)  # as ext4: nothing moves
    attributes = {**inode.attributes, op.name: op.value}
    if sum(len(name) + len(value) for name, value in attributes.items()) > XATTRS_BYTES_MAX:
        raise NoSpace(f"more than {XATTRS_BYTES_MAX} bytes of attributes")
    return _with_attributes(decision, op.ino, inode, attributes)


def remove_xattr(decision: Decision, op: RemoveXattr) -> Done:
    """removexattr(2)."""
    inode = decision.inode(op.ino)
    _check_xattr(inode, decision.actor, op.name, writing=True)
    if op.name not in inode.attributes:
        raise NoAttribute("no such attribute")
    left = {name: value for name, value in inode.attributes.items() if name != op.name}
    return _with_attributes(decision, op.ino, inode, left)


def _with_attributes(
    decision: Decision, ino: int, inode: Inode, attributes: dict[bytes, bytes]
) -> Done:
    decision.put_inode(
        ino,
        replace(inode, attributes=attributes, ctime_ns=decision.now_ns, version=inode.version + 1),
    )
    return decision.done(ino)


def _check_xattr(inode: Inode, actor: Actor, name: bytes, *, writing: bool) -> None:
    if not name or len(name) > NAME_BYTES_MAX:
        raise NameTooLong("attribute name of 1 to 255 bytes")
    if not name.startswith(_NAMESPACES):
        raise Unsupported("attribute outside user., trusted., security., system.")
    if name.startswith(b"system.posix_acl"):
        raise Unsupported("POSIX ACLs are not kept")
    if name.startswith(b"user."):
        if not (inode.is_file or inode.is_directory):
            raise NotPermitted("user attributes belong on files and directories")
        require(inode, actor, WRITE if writing else READ)
    elif actor.uid != ROOT_UID:
        raise NotPermitted("only root sets these attributes")
