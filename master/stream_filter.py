"""What a reader of the stream asked for: tables, kinds, and a tree by its directory.

A path prefix is resolved once, to a directory's inode; from then on the tree is that
directory wherever it is moved. Whether something lies below it is judged as of the
record that changed it, not as of today: `Subtree` takes the state as it is now and
undoes, in memory, the links that were made and removed since.
"""

from __future__ import annotations

import stat
import time
from typing import Any

from gfs import changes, items
from gfs.changes import Event
from gfs.errors import InvalidArgument, NotADirectory, NotFound, TooLarge
from gfs.ids import ROOT_INO
from gfs.records import DirentChange, InodeChange, Record
from master.core.tables import ReadTables
from master.state import Reader
from master.stream_log import ReaderPool, decode

KINDS = (changes.INSERT, changes.MODIFY, changes.REMOVE, changes.COPY)
UNDONE_MAX = 1_000_000  # links remembered for one reader, about 200 bytes each
STATE_TRIES = 50  # the state is read before its position is published
STATE_PAUSE_S = 0.001


def resolve(tables: ReadTables, path: str) -> int:
    """Inode of the directory at `path` now.

    Raises: InvalidArgument, NotFound, NotADirectory.
    """
    if not path.startswith("/"):
        raise InvalidArgument(f"prefix {path[:100]!r} does not begin with /")
    ino = int(ROOT_INO)
    for name in changes.bytes_of(path).split(b"/"):
        if name in (b"", b"."):
            continue
        dirent: items.Dirent | None = tables.get(items.DIRENTS, (ino, name))
        if dirent is None:
            raise NotFound(f"{path}: there is no such directory")
        if not stat.S_ISDIR(dirent.kind):
            raise NotADirectory(f"{path}: a prefix must be a directory")
        ino = dirent.ino
    return ino


class Subtree:
    """Which changes lie below a directory, as of the record at which a reader stands."""

    def __init__(self, root: int, state: Reader, pool: ReaderPool, next_position: int) -> None:
        self.root = root
        self._state = state
        self._pool = pool
        self._undone_to = next_position - 1  # links changed up to here are in `_links`
        # Links that may differ from today's: inode -> link -> whether it is there at
        # the record at which the reader stands.
        self._links: dict[int, dict[items.Key, bool]] = {}
        self._count = 0
        self._below: dict[int, bool] = {}  # directories already judged

    def pick(self, record: Record, events: list[Event]) -> list[Event]:
        """The events of `record` that lie in the tree, before it or after it."""
        if not events:
            self._advance(record)
            return events
        by_cursor = {int(event.cursor.rpartition(".")[2]): event for event in events}
        changed = [(by_cursor[at], one) for at, one in enumerate(record.changes) if at in by_cursor]
        before = [self._contains(one) for _, one in changed]
        self._advance(record)
        picked = [
            event
            for was, (event, one) in zip(before, changed, strict=True)
            if was or self._contains(one)
        ]
        copied = by_cursor.get(len(record.changes))
        if copied is not None and record.copy is not None and self._is_below(record.copy.parent):
            picked.append(copied)  # one that only has its source here changes nothing here
        return picked

    def prepare(self) -> None:
        """Read what happened since the reader's place; long for a distant one (a thread).

        Raises: TooLarge: too much changed since.
        """
        self._undo_to(int(self._state.applied[0]))

    def _advance(self, record: Record) -> None:
        for change in record.changes:
            if isinstance(change, DirentChange):
                self._remember(change, replace=True)
                if stat.S_ISDIR((change.new or change.old).kind):  # type: ignore[union-attr]
                    self._below.clear()
        if record.position > self._undone_to:
            self._undone_to = record.position

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
            raise TooLarge("too many names changed since that cursor for a prefix; start later")

    def _undo_to(self, position: int) -> None:
        """Learn which links of today were not there yet, or were, at the reader's place."""
        while self._undone_to < position:
            records = self._pool.read(self._undone_to + 1)
            if not records:
                return
            for raw in records:
                for change in decode(raw).changes:
                    if isinstance(change, DirentChange):
                        self._remember(change, replace=False)
            self._undone_to = int(records[-1].position)

    def _contains(self, change: Any) -> bool:
        if isinstance(change, DirentChange):
            return self._is_below(change.key[0])
        if isinstance(change, InodeChange):
            return self._is_below(change.key[0])
        return False

    def _is_below(self, ino: int) -> bool:
        """Whether `ino` is the tree's root or any of its links leads there."""
        return ino == self.root or any(self._leads_there(parent) for parent in self._parents(ino))

    def _leads_there(self, directory: int) -> bool:
        """Climb from a directory, which has one link, until the answer is known."""
        path: list[int] = []
        while directory != self.root and directory not in self._below:
            if len(path) > UNDONE_MAX:  # a cycle cannot be; a damaged state must not hang us
                return False
            path.append(directory)
            above = next(iter(self._parents(directory)), None)
            if above is None:
                self._below[directory] = False
                break
            directory = above
        found = self._below.get(directory, False) or directory == self.root
        if len(self._below) > UNDONE_MAX // 10:
            self._below.clear()
        self._below.update(dict.fromkeys(path, found))
        return found

    def _parents(self, ino: int) -> list[int]:
        for _ in range(STATE_TRIES):
            today = self._state.by_index(items.LINKS_BY_INO, ino)
            seen = int(self._state.applied[0])
            self._undo_to(seen)
            if self._undone_to >= seen:
                break
            time.sleep(STATE_PAUSE_S)  # committed, to be published within microseconds
        known = self._links.get(ino, {})
        return [
            *(int(link[0]) for link, present in known.items() if present),
            *(int(key[0]) for key in today if key not in known),
        ]


class Filter:
    """All that one reader asked for."""

    def __init__(
        self, tables: frozenset[str], kinds: frozenset[str], subtree: Subtree | None
    ) -> None:
        self.tables = tables
        self.kinds = kinds
        self.subtree = subtree

    @property
    def passes_all(self) -> bool:
        """Nothing is left out of what everybody gets, so encoded events can be shared."""
        whole = self.tables == changes.DEFAULT_TABLES and len(self.kinds) == len(KINDS)
        return whole and self.subtree is None

    def pick(self, record: Record, *, after: int = -1) -> list[Event]:
        """Events of `record` for this reader, not yet chained."""
        events = changes.events_of(record, tables=self.tables, after=after)
        if self.subtree is not None:
            events = self.subtree.pick(record, events)
        if len(self.kinds) == len(KINDS):
            return events
        return [event for event in events if event.kind in self.kinds]


def words(text: str, known: tuple[str, ...], what: str) -> frozenset[str]:
    """A comma-separated parameter; empty means all of `known`.

    Raises: InvalidArgument.
    """
    found = frozenset(word for word in text.split(",") if word)
    if strange := found - set(known):
        raise InvalidArgument(f"unknown {what} {min(strange)!r}; there are {', '.join(known)}")
    return found or frozenset(known)
