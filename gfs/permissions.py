"""What mode bits let a caller do: the rule of the master, and of clients that need not ask it.

The caller's supplementary groups cost a look into /proc of its host, so they
come only when they matter: a check that groups would turn either way raises
`NeedGroups`, and the request comes again with them.
"""

from __future__ import annotations

from gfs.items import Inode
from gfs.messages import Actor

READ, WRITE, EXECUTE = 4, 2, 1
ROOT_UID = 0


class NeedGroups(Exception):
    """The answer depends on supplementary groups that the caller did not send."""


def in_group(actor: Actor, gid: int) -> bool:
    """Raises NeedGroups when it cannot be told."""
    if actor.gid == gid:
        return True
    if actor.groups is None:
        raise NeedGroups
    return gid in actor.groups


def allowed(inode: Inode, actor: Actor, want: int) -> bool:
    """Do the mode bits grant `want` (READ | WRITE | EXECUTE)?"""
    mode = inode.mode
    if actor.uid == ROOT_UID:
        return not want & EXECUTE or inode.is_directory or bool(mode & 0o111)
    if actor.uid == inode.uid:
        return mode >> 6 & want == want
    by_group, by_other = mode >> 3 & want == want, mode & want == want
    if by_group == by_other:
        return by_other
    return by_group if in_group(actor, inode.gid) else by_other
