"""Access times: when reading sets one, and what is still to be told to the master.

relatime, as Linux has it: only if the time is not later than the last change, or a day
old; so a program can tell whether a file was read since it was written, and reading
costs next to nothing. What was read is told in batches; until then, and until the
answer is here, the times stand here and are shown on top of what the master says.

Without a clock: `now_ns` comes in.
"""

from __future__ import annotations

from gfs.items import Inode
from gfs.messages import AccessTime
from gfs.sections import AtimeMode

DAY_NS = 86_400 * 1_000_000_000
WAITING_MAX = 20_000  # what is read while no master answers is not remembered without bound


class AccessTimes:
    """Of one mount."""

    def __init__(self, mode: AtimeMode = "relatime") -> None:
        self.mode = mode
        self._fresh: dict[int, AccessTime] = {}  # by inode: to be told
        self._sent: dict[int, AccessTime] = {}  # on their way

    @property
    def waiting(self) -> bool:
        """Is there anything that the images of the master do not show yet?"""
        return bool(self._fresh or self._sent)

    def read(self, ino: int, inode: Inode | None, now_ns: int, *, written_ns: int = 0) -> None:
        """`ino` is read.

        Args:
          inode: its image as far as known; None: then the master judges.
          written_ns: when somebody last wrote to it, as far as the image does not say.
        """
        if self.mode == "noatime":
            return
        if inode is None:
            self._note(self._fresh.get(ino) or AccessTime(ino, None, now_ns))
            return
        seen_ns = _with(self._sent.get(ino), inode.atime_ns)
        fresh = self._fresh.get(ino)
        atime_ns = _with(fresh, seen_ns)
        changed_ns = max(inode.mtime_ns, inode.ctime_ns, written_ns)
        if self.mode == "relatime" and changed_ns < atime_ns and now_ns - atime_ns < DAY_NS:
            return
        if fresh is not None and fresh.seen_ns is not None:
            seen_ns = fresh.seen_ns
        # The change time is the master's clock: ours may be behind it.
        self._note(AccessTime(ino, seen_ns, max(now_ns, inode.ctime_ns + 1)))

    def _note(self, time: AccessTime) -> None:
        if len(self._fresh) < WAITING_MAX or time.ino in self._fresh:
            self._fresh[time.ino] = time

    def shown(self, ino: int, inode: Inode) -> int:
        """The access time that a caller is to see, given the image of the master."""
        return _with(self._fresh.get(ino), _with(self._sent.get(ino), inode.atime_ns))

    def forget(self, ino: int) -> None:
        """Somebody sets the time: what was read before counts no more."""
        self._fresh.pop(ino, None)
        self._sent.pop(ino, None)

    def take(self, count: int) -> list[AccessTime]:
        """At most so many that are to be told; then `told` of the same."""
        inos = [ino for ino, _ in zip(self._fresh, range(count), strict=False)]
        times = [self._fresh.pop(ino) for ino in inos]
        self._sent.update(zip(inos, times, strict=True))
        return times

    def told(self, times: list[AccessTime]) -> None:
        """The master has answered, or never will: its images show them, or nothing does."""
        for time in times:
            if self._sent.get(time.ino) is time:
                del self._sent[time.ino]


def _with(time: AccessTime | None, atime_ns: int) -> int:
    """The access time once the master has been told `time`."""
    if time is None or time.seen_ns not in (None, atime_ns):
        return atime_ns
    return time.atime_ns if time.seen_ns is not None else max(atime_ns, time.atime_ns)
