"""Client -> master: locks on inodes.

None of these is numbered. A lock is named by a ticket of the session, so each may be
asked again over another connection and means the same.
"""

from __future__ import annotations

from gfs.messages.base import Actor, Message


class TakeLock(Message):
    """The lock of inode `ino` -> `LockTaken`, perhaps much later; `LockHeld` without `wait`.

    Needs permission to write, or to read if `shared`. Who waits is served in order of
    arrival; `DropLock` ends the waiting. `ticket`: the session's own, never used twice.
    """

    ino: int
    ticket: int
    shared: bool
    wait: bool
    actor: Actor


class LockTaken(Message):
    """Held by `session` from now on, until `DropLock` or the session's end.

    Whoever takes this lock later has a higher `fence`.
    """

    session: int
    fence: int


class DropLock(Message):
    """Release the lock of this ticket, or wait for it no longer -> `Ok`, also if it is neither."""

    ticket: int
    actor: Actor


class ListLocks(Message):
    """Locks and who waits for them -> `LockListing`; `ino` 0 = of all inodes, from `after` on.

    Of all inodes root sees all, others what is theirs.
    """

    actor: Actor
    ino: int = 0
    after_ino: int = 0
    after_fence: int = 0


class LockState(Message):
    """A lock that is held, or (`fence` 0) waited for; in the order in which it will be served."""

    ino: int
    path: bytes  # b"" when no name leads there any more
    fence: int
    shared: bool
    since_ns: int
    session: int
    host: str
    mount: str
    pid: int
    uid: int


class LockListing(Message):
    """`after_ino`, `after_fence`: to go on with, if there are `more`."""

    locks: list[LockState]
    more: bool = False
    after_ino: int = 0
    after_fence: int = 0
