"""Who has what open, writes what, and caches which directories: volatile.

Nothing here is logged: after a restart each session declares its part again,
and mutations wait until all have. Kept in both directions so that the end of
a session costs what it held.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

TOLD_MAX = 10_000  # inodes remembered as dropped, a session: a megabyte


class Registry:
    """Opens, writers and interest by session.

    An open may outlast the last close: a session keeps what it may open again without asking.
    Whether there is a handle it alone knows (`Decision.break_kept`).

    Invariant: a session is in `openers[ino]` iff ino is in `opens[session]`;
    likewise for writers and interest.
    """

    def __init__(self) -> None:
        self.openers: defaultdict[int, set[int]] = defaultdict(set)
        self.writers: defaultdict[int, set[int]] = defaultdict(set)
        self.interested: defaultdict[int, set[int]] = defaultdict(set)
        self._told: defaultdict[int, dict[int, int]] = defaultdict(dict)
        self._opens: defaultdict[int, set[int]] = defaultdict(set)
        self._writes: defaultdict[int, set[int]] = defaultdict(set)
        self._interests: defaultdict[int, set[int]] = defaultdict(set)

    def add_interest(self, session: int, directory: int) -> None:
        """Before the master reads for it, so that no change can slip between."""
        if session not in self.interested[directory]:
            self.interested[directory].add(session)
            self._interests[session].add(directory)

    def drop_interest(self, session: int, directory: int) -> None:
        self._interests[session].discard(directory)
        _discard(self.interested, directory, session)

    def add_open(self, session: int, ino: int, *, writing: bool) -> bool:
        """Register; True if this session was no writer of it before and is now."""
        self.openers[ino].add(session)
        self._opens[session].add(ino)
        return writing and self._add_writer(session, ino)

    def close(self, session: int, ino: int) -> None:
        """It has no open handle any more."""
        self._opens[session].discard(ino)
        _discard(self.openers, ino, session)

    def written(self, session: int, ino: int) -> None:
        """All commits of this session to the inode have been answered."""
        self._writes[session].discard(ino)
        _discard(self.writers, ino, session)

    def declare(
        self, session: int, opens: Iterable[int], writers: Iterable[int]
    ) -> tuple[list[int], list[int]]:
        """What a session holds from now on, and nothing else.

        Interest is not taken back: too much of it costs a message, too little a stale name.

        Returns:
          what it was no writer of before; what it held before and does not any more.
        """
        opens, writers = set(opens), set(writers)
        held = self._opens.get(session, set()) | self._writes.get(session, set())
        for ino in self._opens.get(session, set()) - opens:
            self.close(session, ino)
        for ino in self._writes.get(session, set()) - writers:
            self.written(session, ino)
        for ino in opens:
            self.add_open(session, ino, writing=False)
        newly = sorted(ino for ino in writers if self._add_writer(session, ino))
        return newly, sorted(held - opens - writers)

    def _add_writer(self, session: int, ino: int) -> bool:
        if session in self.writers[ino]:
            return False
        self.writers[ino].add(session)
        self._writes[session].add(ino)
        return True

    def is_open(self, ino: int) -> bool:
        return ino in self.openers or ino in self.writers

    def other_writers(self, ino: int, session: int) -> frozenset[int]:
        """Sessions but this one that may hold content back."""
        found = self.writers.get(ino)
        return frozenset(found - {session}) if found else frozenset()

    def other_holders(self, ino: int, session: int) -> set[int]:
        """Sessions but this one for which it is open, as far as the master has been told."""
        return (self.openers.get(ino, set()) | self.writers.get(ino, set())) - {session}

    def end(self, session: int) -> list[int]:
        """Forget a session; returns the inodes it had open or had not committed."""
        for directory in self._interests.pop(session, set()):
            _discard(self.interested, directory, session)
        written = self._writes.pop(session, set())
        for ino in written:
            _discard(self.writers, ino, session)
        self._told.pop(session, None)
        opened = self._opens.pop(session, set())
        for ino in opened:
            _discard(self.openers, ino, session)
        return sorted(opened | written)

    def shown(self, session: int, ino: int) -> None:
        """The session is about to read the inode's attributes and may cache them."""
        told = self._told.get(session)
        if told:
            told.pop(ino, None)

    def told(self, session: int, ino: int, token: int) -> None:
        """The session was told by this order to drop the inode's attributes."""
        told = self._told[session]
        if len(told) >= TOLD_MAX:
            told.clear()
        told[ino] = token

    def told_by(self, session: int, ino: int) -> int | None:
        """The order by which it dropped, or is dropping, what it has not read again since.

        A directory in which one mount creates thousands of files thus costs another
        mount one message, not thousands. Whoever has it open is always told (None).
        """
        if session in self.openers.get(ino, ()):
            return None
        told = self._told.get(session)
        return told.get(ino) if told else None

    def has_others(self, session: int) -> bool:
        """Does any session but this one have anything open or cached?"""
        return any(one != session for one in (*self._interests, *self._opens))

    def holders(self, directory: int) -> set[int]:
        return self.interested.get(directory, set())

    def statistics(self) -> dict[str, int]:
        """Sizes, for people."""
        return {
            "open_inodes": len(self.openers),
            "written_inodes": len(self.writers),
            "directories_cached": len(self.interested),
        }


def _discard(by_key: defaultdict[int, set[int]], key: int, session: int) -> None:
    found = by_key.get(key)
    if found is not None:
        found.discard(session)
        if not found:
            del by_key[key]
