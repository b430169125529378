"""Items of the state as it is now, a page of inodes at a time: ``GET /items``.

For who compares what it has with what the master has. A page is one read transaction,
so all of it is true for the one cursor in its first line. Lines are those of
``GET /snapshot``: inodes above `after` in the order of their numbers, each followed by
its names; the last line counts them. A page with fewer inodes than asked for is the last.
"""

from __future__ import annotations

import stat

from gfs import changes, items
from gfs.changes import Control, Cursor, Event
from master.state import Reader

PAGE_INODES_MAX = 5000
DEFAULT_INODES = 1000


def page(state: Reader, after: int, limit: int) -> bytes:
    """Encoded lines of at most `limit` inodes. Blocks, for some milliseconds a thousand.

    Raises: Overloaded: it took longer than a read transaction may; ask for less.
    """
    with state.snapshot() as (position, epoch):
        cursor = str(Cursor(int(epoch), int(position)))
        found: list[Event] = []
        for key, inode in state.scan(items.INODES, after=(after,), limit=limit):
            found.append(changes.snapshot_event(items.INODES, key, inode, cursor))
            kind = stat.S_IFMT(inode.mode)
            for link in state.by_index(items.LINKS_BY_INO, key[0]):
                dirent = items.Dirent(key[0], kind)
                found.append(changes.snapshot_event(items.DIRENTS, link, dirent, cursor))
    begin, end = (
        Control(kind, cursor=cursor, items=len(found)) for kind in (changes.SNAPSHOT, changes.END)
    )
    return changes.encode((begin, *found, end))
