"""What a reader of the stream asked for: tables, kinds, operations, owner, tree, names.

A path prefix is resolved once, to a directory's inode; from then on the tree is that
directory wherever it is moved. Whether something lies below it, or has a name that fits,
is judged as of the record that changed it, not as of today (`Links`). All that is asked
for must hold at once, before the record or after it. What nobody can tell (whose a name
is that a record does not say, what a copy brings along) comes through: a filter may let
pass too much, never too little.
"""

from __future__ import annotations

import fnmatch
import re
import stat
from collections.abc import Callable, Iterable
from typing import Any

from gfs import changes, items
from gfs.changes import Event
from gfs.errors import InvalidArgument, NotADirectory, NotFound
from gfs.ids import ROOT_INO
from gfs.records import (
    DirentChange,
    ExtentChange,
    InodeChange,
    OrphanChange,
    Record,
    TrashChange,
)
from master.core.tables import ReadTables
from master.stream_links import UNDONE_MAX, Links

KINDS = (changes.INSERT, changes.MODIFY, changes.REMOVE, changes.COPY)
PATTERN_CHARACTERS_MAX = 1000
_OF_ONE_INODE = (InodeChange, ExtentChange, OrphanChange, TrashChange)


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


class Pattern:
    """A glob for names, as the shell has it: ``*``, ``?``, ``[a-z]``; letters as they are."""

    def __init__(self, glob: str) -> None:
        """Raises: InvalidArgument."""
        if len(glob) > PATTERN_CHARACTERS_MAX:
            raise InvalidArgument(f"a name pattern has at most {PATTERN_CHARACTERS_MAX} characters")
        self._fits = re.compile(fnmatch.translate(glob)).match

    def fits(self, name: bytes) -> bool:
        """Names that are not UTF-8 are compared as the stream writes them."""
        return self._fits(changes.text_of(name)) is not None


class Place:
    """Which changes lie below a directory, under a name that fits, where a reader stands."""

    def __init__(self, root: int, pattern: Pattern | None, links: Links) -> None:
        self._root = root  # 0: anywhere
        self._pattern = pattern
        self._links = links
        self._below: dict[int, bool] = {}  # directories already judged

    def pick(self, record: Record, events: list[Event]) -> list[Event]:
        """The events of `record` that were in the place before it, or are after it."""
        changed = [(event, _change_of(record, event)) for event in events]
        before = [self._contains(change) for _, change in changed]
        if self._links.advance(record):
            self._below.clear()
        return [
            event
            for was, (event, change) in zip(before, changed, strict=True)
            if was or (self._contains(change) if change is not None else self._copies(record))
        ]

    def close(self) -> None:
        """Give back what it holds of the state."""
        self._links.close()

    def _contains(self, change: Any) -> bool:
        if isinstance(change, DirentChange):
            return self._has(*change.key)
        if not isinstance(change, _OF_ONE_INODE):
            return False
        ino = change.key[0]
        if self._pattern is None and ino == self._root:
            return True
        return any(self._has(parent, name, ino) for parent, name in self._links.of(ino))

    def _has(self, parent: int, name: bytes, ino: int = 0) -> bool:
        if self._pattern is not None and not self._pattern.fits(name):
            return False
        return not self._root or ino == self._root or self._leads_there(parent)

    def _copies(self, record: Record) -> bool:
        """A copy that only has its source in the place changes nothing there."""
        assert record.copy is not None
        return not self._root or self._leads_there(record.copy.parent)

    def _leads_there(self, directory: int) -> bool:
        """Climb from a directory, which has one link, until the answer is known."""
        path: list[int] = []
        while directory != self._root and directory not in self._below:
            if len(path) > UNDONE_MAX:  # a cycle cannot be; a damaged state must not hang us
                return False
            path.append(directory)
            above = next(iter(self._links.of(directory)), None)
            if above is None:
                self._below[directory] = False
                break
            directory = above[0]
        found = self._below.get(directory, False) or directory == self._root
        if len(self._below) > UNDONE_MAX // 10:
            self._below.clear()
        self._below.update(dict.fromkeys(path, found))
        return found


def _change_of(record: Record, event: Event) -> Any:
    """The change that an event tells of; None for a copy."""
    at = int(event.cursor.rpartition(".")[2])
    return record.changes[at] if at < len(record.changes) else None


def _owned(record: Record, uid: int) -> Callable[[Event], bool]:
    """Whether an event is about something that is, or was, a user's."""
    owners: dict[int, set[int]] = {}
    for change in record.changes:
        if isinstance(change, InodeChange):
            images = (change.old, change.new)
            owners[change.key[0]] = {image.uid for image in images if image is not None}
    copy = record.copy

    def owned(event: Event) -> bool:
        change = _change_of(record, event)
        if change is None:
            assert copy is not None
            return uid in copy.owners
        if isinstance(change, DirentChange):
            images = (change.old, change.new)
            inos: Iterable[int] = [image.ino for image in images if image is not None]
        elif isinstance(change, _OF_ONE_INODE):
            inos = (change.key[0],)
        else:
            return False
        return any(ino not in owners or uid in owners[ino] for ino in inos)

    return owned


class Filter:
    """All that one reader asked for; `shared` says which others get the same events."""

    def __init__(
        self,
        tables: frozenset[str] = changes.DEFAULT_TABLES,
        kinds: frozenset[str] = frozenset(KINDS),
        operations: frozenset[str] = frozenset(),
        uid: int | None = None,
        place: Place | None = None,
    ) -> None:
        self._tables = tables
        self._kinds = kinds if len(kinds) < len(KINDS) else None
        self._operations = operations
        self._uid = uid
        self._place = place

    @property
    def shared(self) -> object:
        """Equal for filters that pick the same of every record; None: it has a place of its own."""
        if self._place is not None:
            return None
        return self._tables, self._kinds, self._operations, self._uid

    def pick(self, record: Record, *, after: int = -1) -> list[Event]:
        """Events of `record` for this reader, not yet chained."""
        events: list[Event] = []
        if not self._operations or record.operation in self._operations:
            events = changes.events_of(record, tables=self._tables, after=after)
        if self._kinds is not None:
            events = [event for event in events if event.kind in self._kinds]
        if self._uid is not None and events:
            events = list(filter(_owned(record, self._uid), events))
        return events if self._place is None else self._place.pick(record, events)

    def close(self) -> None:
        """The reader has gone."""
        if self._place is not None:
            self._place.close()


def words(text: str, known: Iterable[str], what: str) -> frozenset[str]:
    """A comma-separated parameter.

    Raises: InvalidArgument.
    """
    found = frozenset(word for word in text.split(",") if word)
    if strange := found - set(known):
        raise InvalidArgument(f"unknown {what} {min(strange)!r}; there are {', '.join(known)}")
    return found
