"""Opens kept past the last close: what the master counts as open is opened again without it.

An open for reading is a promise of the master: it tells of every change to the file, and
asks before the last name goes. So the last close need not be told at once (a deferred
close, as by handle leases in SMB; a read delegation in NFSv4): while the owner's cache
trusts the file's attributes, it can be opened again here. It ends, and the close is told,
when anything about the file changes, when the master recalls it, when it was not used for
a minute, or when there are too many. A session that is taken up declares what has handles
and nothing else.

Nothing here waits, so a recall finds an open either counted or not begun.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import trio
from msgspec.structs import replace

from gfs.client.closing import Closing
from gfs.client.layouts import FILES_MAX, LayoutCache
from gfs.client.metadata import MasterLink
from gfs.client.settings import ABSENT, UNKNOWN, Callbacks
from gfs.items import Inode
from gfs.messages import (
    Access,
    Actor,
    Entry,
    Operation,
    RemoveDirectory,
    RemoveTree,
    Rename,
    Unlink,
)
from gfs.open_flags import O_TRUNC, writes
from gfs.permissions import READ, NeedGroups, allowed

KEPT_MAX = FILES_MAX  # without a layout it would be asked for when it is read
BREAKS_MAX, BREAKS_S = 16, 1.0  # somebody removes a tree: he shall not ask for each file
IDLE_S = 60.0  # what is not opened within a minute costs a message at each change, for nothing


@dataclass
class KeptOpens:
    """Inodes without a handle that the master counts as open, the longest unused first."""

    limit: int = KEPT_MAX
    _since: OrderedDict[int, float] = field(default_factory=OrderedDict)
    _breaks: deque[float] = field(default_factory=lambda: deque(maxlen=BREAKS_MAX))

    def __contains__(self, ino: int) -> bool:
        return ino in self._since

    def __len__(self) -> int:
        return len(self._since)

    def keep(self, ino: int, now: float) -> list[int]:
        """The last handle is closed; returns what is to be closed for good instead."""
        self._since[ino] = now
        self._since.move_to_end(ino)
        surplus = len(self._since) - self.limit
        return [self._since.popitem(last=False)[0] for _ in range(surplus)]

    def take(self, ino: int) -> bool:
        """It is opened again, or given up; False if it was not kept."""
        return self._since.pop(ino, None) is not None

    def take_some(self, inos: Iterable[int]) -> list[int]:
        """Those of them that were kept, and are not any more."""
        return [ino for ino in inos if self.take(ino)]

    def take_all(self) -> list[int]:
        """What was kept; nothing is any more."""
        found = list(self._since)
        self._since.clear()
        return found

    def take_broken(self, inos: Iterable[int], now: float) -> list[int]:
        """The master has asked for these; with so many questions in a second all is given up."""
        found = self.take_some(inos)
        self._breaks.extend(now for _ in found)
        if len(self._breaks) == BREAKS_MAX and now - self._breaks[0] <= BREAKS_S:
            found += self.take_all()
        return found

    def take_idle(self, now: float) -> list[int]:
        """What was not used for so long that it is not kept any more."""
        found = []
        while self._since and next(iter(self._since.values())) <= now - IDLE_S:
            found.append(self._since.popitem(last=False)[0])
        return found


def may_read(inode: Inode, actor: Actor, flags: int) -> bool:
    """Is this an open that changes nothing, and certainly allowed? Else the master is asked."""
    if writes(flags) or flags & O_TRUNC or not inode.is_file:
        return False
    try:
        return allowed(inode, actor, READ)
    except NeedGroups:
        return False


def is_plain(limits: Sequence[Access]) -> bool:
    """Does the master take the users for what they are, and may the session reach everything?"""
    return all(replace(access, read_only=False) == Access() for access in limits)


class Keeping:
    """What one client keeps open, and when it may open it again.

    Args:
      pending: what waits to be committed of a file.
    """

    def __init__(
        self,
        link: MasterLink,
        closing: Closing,
        callbacks: Callbacks,
        layouts: LayoutCache,
        pending: Callable[[int], object],
    ) -> None:
        self.kept = KeptOpens()
        self._link = link
        self._closing = closing
        self._callbacks = callbacks
        self._layouts = layouts
        self._pending = pending

    def entry(self, ino: int, flags: int, actor: Actor, *, is_open: bool) -> Entry | None:
        """With what a file may be opened as the master would open it now; None: ask it.

        `is_open`: the master counts it as open for a handle.
        """
        if not (is_open or ino in self.kept) or self._pending(ino) is not None:
            return None
        entry = self._known(ino)
        if entry is None or entry.inode is None or not may_read(entry.inode, actor, flags):
            return None
        layout = self._layouts.get(ino)
        if layout is None or layout.version != entry.inode.data_version:
            return None
        return entry

    def _known(self, ino: int) -> Entry | None:
        link = self._link
        if len(link.doubts) or not is_plain(link.limits) or not link.lease.left():
            return None
        return self._callbacks.known(ino)

    def opened(self, ino: int) -> None:
        """There is a handle, or one is asked for."""
        self.kept.take(ino)

    def closed(self, ino: int, *, keep: bool) -> None:
        """The last handle is gone; `keep`: it may be wanted again."""
        if not keep or self._known(ino) is None:
            self._closing.closed(ino)
            return
        self._close(self.kept.keep(ino, trio.current_time()))

    def give_up(self, inos: Iterable[int]) -> None:
        """Something about these has changed, or is about to."""
        self._close(self.kept.take_some(inos))

    def broken(self, inos: Iterable[int]) -> None:
        """The master wants to know whether these are really open: told before it is answered."""
        self._close(self.kept.take_broken(inos, trio.current_time()))
        self._closing.send()

    def before(self, operation: Operation) -> None:
        """A file closed here must count as closed when its name goes (trash, orphans)."""
        if isinstance(operation, Rename):
            going = self._callbacks.leads_to(operation.new_parent, operation.new_name)
        elif isinstance(operation, Unlink | RemoveTree):
            going = self._callbacks.leads_to(operation.parent, operation.name)
        elif isinstance(operation, RemoveDirectory):
            going = ABSENT
        else:
            return
        if going == UNKNOWN:
            self._close(self.kept.take_all())
        else:
            self.give_up([going])
        self._closing.send()

    def tick(self) -> None:
        """Time has passed."""
        self._close(self.kept.take_idle(trio.current_time()))

    def superseded(self) -> None:
        """The session is declared anew: what has no handle is not in it."""
        self.kept.take_all()
        self._closing.superseded()

    def _close(self, inos: Iterable[int]) -> None:
        for ino in inos:
            self._closing.closed(ino)
