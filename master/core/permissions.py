"""Who may do what: the refusals of POSIX, owner rules, sticky directories (`gfs.permissions`)."""

from __future__ import annotations

import stat

from gfs import items
from gfs.errors import NotPermitted, PermissionDenied
from gfs.items import Inode
from gfs.messages import Actor
from gfs.permissions import EXECUTE, ROOT_UID, WRITE, allowed


def require(inode: Inode, actor: Actor, want: int) -> None:
    """Raises PermissionDenied (EACCES) unless `allowed`."""
    if not allowed(inode, actor, want):
        raise PermissionDenied("permission denied")


def require_owner(inode: Inode, actor: Actor) -> None:
    """Raises NotPermitted (EPERM) unless the actor owns the inode or is root."""
    if actor.uid not in (ROOT_UID, inode.uid):
        raise NotPermitted("not the owner")


def require_root(actor: Actor, does: str) -> None:
    """Raises NotPermitted (EPERM) unless the actor is root; `does`: what only root does."""
    if actor.uid != ROOT_UID:
        raise NotPermitted(f"only root {does}")


def require_removable(directory: Inode, victim: Inode, actor: Actor) -> None:
    """Write and search on the directory, and the sticky bit's rule.

    Raises:
      PermissionDenied, NotPermitted
    """
    require(directory, actor, WRITE | EXECUTE)
    if directory.mode & stat.S_ISVTX and actor.uid not in (ROOT_UID, victim.uid, directory.uid):
        raise NotPermitted("the directory is sticky and the file another's")


def inherited_gid(directory: Inode, actor: Actor) -> int:
    """Group of something new: the directory's when that is setgid."""
    return directory.gid if directory.mode & stat.S_ISGID else actor.gid


def without_privileges(inode: Inode, actor: Actor) -> int:
    """Mode after a write by `actor`: setuid and setgid go unless root wrote."""
    return inode.mode if actor.uid == ROOT_UID else items.without_privileges(inode.mode)
