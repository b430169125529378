"""Which names an inode had as of the record at which a reader stands.

The state knows the names of today. `Links` takes it and undoes, in memory, the links that
were made and removed since, so that a filter by path or name judges each event as of its
own record, however far behind the reader is.
"""

from __future__ import annotations

import stat
import time

from gfs import items
from gfs.errors import TooLarge
from gfs.records import DirentChange, Record
from master.state import Reader
from master.stream_log import Records

UNDONE_MAX = 1_000_000  # links remembered for one reader, about 200 bytes each
STATE_TRIES = 50  # the state is read before its position is published
STATE_PAUSE_S = 0.001


class Links:
    """Names by inode; `advance` moves it over a record."""

    def __init__(self, state: Reader, records: Records, next_position: int) -> None:
        self._state = state
        self._records = records
        self._undone_to = next_position - 1  # links changed up to here are in `_links`
        # Links that may differ from today's: inode -> link -> whether it is there at
        # the record at which the reader stands.
        self._links: dict[int, dict[items.Key, bool]] = {}
        self._count = 0

    def prepare(self) -> None:
        """Read what happened since the reader's place; long for a distant one (a thread).

        Raises: TooLarge: too much changed since.
        """
        self._undo_to(int(self._state.applied[0]))

    def advance(self, record: Record) -> bool:
        """Stand behind `record`; says whether a name of a directory has changed."""
        moved = False
        for change in record.changes:
            if isinstance(change, DirentChange):
                self._remember(change, replace=True)
                moved |= stat.S_ISDIR((change.new or change.old).kind)  # type: ignore[union-attr]
        if record.position >= self._undone_to:
            # Nothing later has been undone: the state, less what comes after, is enough.
            self._links.clear()
            self._count = 0
            self._undone_to = record.position
        return moved

    def of(self, ino: int) -> list[items.Key]:
        """All (parent, name) of an inode.

        Raises: TooLarge.
        """
        for _ in range(STATE_TRIES):
            today = self._state.by_index(items.LINKS_BY_INO, ino)
            seen = int(self._state.applied[0])
            self._undo_to(seen)
            if self._undone_to >= seen:
                break
            time.sleep(STATE_PAUSE_S)  # committed, to be published within microseconds
        known = self._links.get(ino, {})
        return [
            *(link for link, present in known.items() if present),
            *(key for key in today if key not in known),
        ]

    def _remember(self, change: DirentChange, *, replace: bool) -> None:
        if change.old is not None:
            self._set(change.old.ino, change.key, present=not replace, replace=replace)
        if change.new is not None:
            self._set(change.new.ino, change.key, present=replace, replace=replace)

    def _set(self, ino: int, link: items.Key, *, present: bool, replace: bool) -> None:
        links = self._links.setdefault(ino, {})
        if replace or link not in links:
            self._count += link not in links
            links[link] = present
        if self._count > UNDONE_MAX:
            raise TooLarge(
                "too many names changed since that cursor for a filter by path or name; start later"
            )

    def _undo_to(self, position: int) -> None:
        """Learn which links of today were not there yet, or were, at the reader's place."""
        while self._undone_to < position:
            records = self._records.read(self._undone_to + 1)
            if not records:
                return
            for record in records:
                for change in record.changes:
                    if isinstance(change, DirentChange):
                        self._remember(change, replace=False)
            self._undone_to = records[-1].position

    def close(self) -> None:
        """Give the connection to the state back."""
        self._state.close()
