"""What this mount may answer without the master, and what the kernel may keep.

The master tells a mount of every change in a directory in which it has shown
interest, and waits for its answer before the change returns to its caller; in
exchange the mount trusts what it knows for as long as its session's lease. Here
is only *what* is known; whether the lease holds is the caller's to ask.

Two tables. Directories: name -> inode, `ABSENT` or `UNKNOWN`, and whether that is
the whole of it (`complete`: made here, or listed whole; then a missing name is
absent and costs no request). Attributes by inode.

Late replies. A reply is a picture of the state as of its position. An invalidation,
or an own mutation, as of a later position may overtake it; then it is used for the
call that asked and kept by nobody (timeout 0 in the kernel). Each directory and
each inode has such a position (`invalid_at`), and for those not in the tables a
bounded memory of recent ones, with a floor for what it has forgotten.

In doubt. What an own mutation without an answer may yet change is asked each time, and
nobody keeps the answer, until the outcome is known (`doubt`, `settle`).

What is kept of an inode hangs on the directories that name it, because interest
does: an inode without a name in the tables is never trusted by the kernel, and is
remembered only while it is open (`pin`).

Bounds: names beyond `names_max` are forgotten by directory, least recently used
first; interest in a directory is given up only when nothing that the kernel was
told about it can still be trusted.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterable, Mapping

from gfs.ids import ROOT_INO
from gfs.items import Inode
from gfs.messages import Entry, ListedName, NamePair

ABSENT = 0
UNKNOWN = -1
NAMES_MAX = 300_000
DIRECTORIES_MAX = 20_000
RECENT_MAX = 4096


class Directory:
    """What is known of one directory. `alive` ends when interest in it is given up.

    `misses` counts names that the master had to be asked for, one by one.
    """

    __slots__ = ("alive", "complete", "ino", "invalid_at", "misses", "names", "trusted_until")

    def __init__(self, ino: int, invalid_at: int) -> None:
        self.ino = ino
        self.names: dict[bytes, int] = {}
        self.complete = False
        self.misses = 0
        self.invalid_at = invalid_at
        self.trusted_until = 0.0
        self.alive = True


class Attributes:
    """An inode's image as of `position`; None when it was invalidated.

    `names` counts cached names that lead here, `pins` open handles. `grown_ns`: when its
    tail last grew, which the image does not say.
    """

    __slots__ = ("cacheable", "grown_ns", "inode", "invalid_at", "names", "pins", "position")

    def __init__(self, invalid_at: int) -> None:
        self.inode: Inode | None = None
        self.cacheable = False
        self.position = 0
        self.invalid_at = invalid_at
        self.names = 0
        self.pins = 0
        self.grown_ns = 0


class Recent:
    """Positions at which things outside the tables were last invalidated; bounded."""

    def __init__(self) -> None:
        self._positions: OrderedDict[int, int] = OrderedDict()
        self._floor = 0

    def note(self, key: int, position: int) -> None:
        self._positions[key] = max(position, self._positions.pop(key, 0))
        if len(self._positions) > RECENT_MAX:
            self._floor = max(self._floor, self._positions.popitem(last=False)[1])

    def note_all(self, position: int) -> None:
        """Everything was invalidated then."""
        self._positions = OrderedDict(
            (key, at) for key, at in self._positions.items() if at > position
        )
        self._floor = max(self._floor, position)

    def at(self, key: int) -> int:
        return self._positions.get(key, self._floor)


class Cache:
    """Names and attributes of one mount. All times are seconds of the caller's clock."""

    def __init__(
        self, *, names_max: int = NAMES_MAX, directories_max: int = DIRECTORIES_MAX
    ) -> None:
        self._directories: OrderedDict[int, Directory] = OrderedDict()
        self._attributes: dict[int, Attributes] = {}
        self._recent_directories = Recent()
        self._recent_inodes = Recent()
        self._doubtful: Counter[int | tuple[int, bytes]] = Counter()
        self._names_max = names_max
        self._directories_max = directories_max
        self._names = 0
        # Removed directories in which interest is still to be given up, and when.
        self._removed: list[tuple[int, float]] = []
        self.pin(ROOT_INO)  # no name leads to it; interest in it covers its attributes

    # --- asking

    def directory(self, ino: int) -> Directory:
        """The directory's record, made if need be; taken *before* the master is asked."""
        directory = self._directories.get(ino)
        if directory is None:
            directory = Directory(ino, self._recent_directories.at(ino))
            self._directories[ino] = directory
            if ino == ROOT_INO:
                self.forget_attributes(ino)  # learned before anybody told us of its changes
        else:
            self._directories.move_to_end(ino)
        return directory

    def lookup(self, parent: int, name: bytes) -> int:
        """Inode number, `ABSENT` or `UNKNOWN`."""
        directory = self._directories.get(parent)
        if directory is None:
            return UNKNOWN
        self._directories.move_to_end(parent)
        return directory.names.get(name, ABSENT if directory.complete else UNKNOWN)

    def attributes(self, ino: int) -> Attributes | None:
        """What is known of an inode, if its image is there."""
        known = self._attributes.get(ino)
        return None if known is None or known.inode is None else known

    def trusted(self, ino: int) -> bool:
        """Whether the kernel may keep this inode's attributes, size and times included."""
        known = self._attributes.get(ino)
        if known is None or known.inode is None or not known.cacheable:
            return False
        return known.names > 0 or (ino == ROOT_INO and ino in self._directories)

    def known(self, ino: int) -> Entry | None:
        """What is trusted of a file that a name leads to."""
        known = self._attributes.get(ino)
        if known is None or known.inode is None or not self.trusted(ino):
            return None
        if not known.inode.nlink:
            return None
        return Entry(known.position, ino, known.inode)

    def is_complete(self, ino: int) -> bool:
        """Every name of the directory is known, none of them in doubt."""
        directory = self._directories.get(ino)
        return (
            directory is not None and directory.complete and UNKNOWN not in directory.names.values()
        )

    def names(self, ino: int) -> list[tuple[bytes, int]]:
        """Names of a complete directory, in byte order."""
        names = self._directories[ino].names
        return sorted((name, child) for name, child in names.items() if child > 0)

    def directories(self) -> list[int]:
        """All in which interest is held; declared again after a reconnection."""
        return list(self._directories)

    # --- learning from replies

    def learn_name(self, directory: Directory, name: bytes, ino: int, position: int) -> bool:
        """A reply as of `position`: `name` is `ino` or `ABSENT`. True = the kernel may keep it."""
        if position < directory.invalid_at or not directory.alive:
            return False
        return self._set_name(directory, name, ino)

    def learn(self, entry: Entry) -> Inode | None:
        """A reply with attributes; returns the newest image known (None: no such inode)."""
        return self._learn(entry.ino, entry.inode, entry.cacheable, entry.position)

    def learn_listed(
        self, directory: Directory, listed: Iterable[ListedName], position: int
    ) -> None:
        """A page of a listing with attributes (`plus`)."""
        for item in listed:
            self.learn_name(directory, item.name, item.ino, position)
            if item.inode is not None:
                self._learn(item.ino, item.inode, item.cacheable, position)

    def learn_whole(self, directory: Directory, names: Mapping[bytes, int], position: int) -> None:
        """A listing that began as of `position` has ended: these are all names there are.

        It counts only if nothing has changed in the directory since it began.
        """
        if position < directory.invalid_at or not directory.alive:
            return
        for gone in directory.names.keys() - names.keys():
            self._drop_name(directory, gone)
        directory.complete = True
        for name, ino in names.items():
            self._set_name(directory, name, ino)
        for key in self._doubtful:
            if isinstance(key, tuple) and key[0] == directory.ino:
                self._doubt(directory, key[1])

    # --- own mutations

    def named(self, parent: int, name: bytes, ino: int, position: int) -> bool:
        """An own mutation at `position` made `name` lead to `ino` (or `ABSENT`, `UNKNOWN`).

        True = the kernel may keep it. If something later was heard of already,
        the name is in doubt; a complete directory must not call it absent. Without
        interest in the directory (lost with a session meanwhile) nothing is kept.
        """
        directory = self._directories.get(parent)
        if directory is None:
            return False
        if position < directory.invalid_at or ino == UNKNOWN:
            directory.invalid_at = max(directory.invalid_at, position)
            self._doubt(directory, name)
            return False
        directory.invalid_at = position
        return self._set_name(directory, name, ino)

    def made_directory(self, ino: int, position: int) -> None:
        """A directory of our own making: empty, and we shall hear of what others put there."""
        directory = self.directory(ino)
        if directory.invalid_at <= position:
            directory.invalid_at = position
            directory.complete = True

    def removed_directory(self, ino: int, *, lease_until: float) -> None:
        """The directory is gone: nothing below it can be named any more.

        If another mount moved it away just before ours removed a new one of its name, it
        is not; so interest in it stays while the kernel may trust what it was told.
        """
        directory = self._directories.pop(ino, None)
        if directory is not None:
            self._strip(directory, lease_until)
            directory.alive = False
            self._removed.append((ino, lease_until))
            self._recent_directories.note(ino, directory.invalid_at)

    def pin(self, ino: int) -> None:
        """The inode is open here: the master tells of its changes whatever names it."""
        self._record(ino).pins += 1

    def unpin(self, ino: int) -> None:
        known = self._attributes.get(ino)
        if known is not None:
            known.pins -= 1
            self._forget_unused(ino, known)

    # --- forgetting

    def invalidate(self, position: int, names: Iterable[NamePair], inos: Iterable[int]) -> None:
        """Somebody else changed these at `position`."""
        for pair in names:
            directory = self._directories.get(pair.parent)
            if directory is None:
                self._recent_directories.note(pair.parent, position)
                continue
            directory.invalid_at = max(directory.invalid_at, position)
            self._doubt(directory, pair.name)
        for ino in inos:
            known = self._attributes.get(ino)
            if known is None:
                self._recent_inodes.note(ino, position)
            elif known.position < position:
                known.inode = None
                known.invalid_at = max(known.invalid_at, position)

    def knows_directory(self, ino: int) -> bool:
        """Are names in this directory known?"""
        return ino in self._directories

    def outdate(self, position: int) -> None:
        """Whatever was learned as of before `position` counts no more."""
        for directory in self._directories.values():
            directory.invalid_at = max(directory.invalid_at, position)
            self._strip(directory, directory.trusted_until)
        self._recent_directories.note_all(position)
        self.invalidate(position, (), list(self._attributes))
        self._recent_inodes.note_all(position)

    def doubt(self, names: Iterable[NamePair], inos: Iterable[int]) -> None:
        """These may change without a word, until `settle` is called as often."""
        for pair in names:
            self._doubtful[pair.parent, pair.name] += 1
            directory = self._directories.get(pair.parent)
            if directory is not None:
                self._doubt(directory, pair.name)
        for ino in inos:
            self._doubtful[ino] += 1
            self.forget_attributes(ino)

    def settle(self, names: Iterable[NamePair], inos: Iterable[int]) -> None:
        """It is known what has become of the mutation that put these in doubt."""
        self._doubtful -= Counter([*((pair.parent, pair.name) for pair in names), *inos])

    def grew(self, ino: int, time_ns: int) -> None:
        """Records were appended to the file, the last at `time_ns`."""
        known = self._attributes.get(ino)
        if known is not None:
            known.grown_ns = time_ns

    def forget_attributes(self, ino: int) -> None:
        """What is known of the inode may be out of date; whoever needs it asks."""
        known = self._attributes.get(ino)
        if known is not None:
            known.inode = None

    def clear(self) -> None:
        """The session is lost: nothing is known, and replies on their way are worthless."""
        for directory in self._directories.values():
            directory.alive = False
        self._directories.clear()
        self._names = 0
        pinned = {ino: known.pins for ino, known in self._attributes.items() if known.pins}
        self._attributes.clear()
        for ino, pins in pinned.items():
            self._record(ino).pins = pins

    def shed(self, *, now: float, lease_until: float) -> list[int]:
        """Keep to the bounds; returns the directories in which interest is to be given up."""
        excess = self._names - self._names_max
        surplus = len(self._directories) - self._directories_max
        dropped = self._removed_by(now)
        if excess <= 0 and surplus <= 0:
            return dropped
        for ino, directory in list(self._directories.items()):
            if excess <= 0 and surplus <= 0:
                break
            surplus -= 1  # stripped now, dropped when the kernel's trust has run out
            if directory.names or directory.complete:
                excess -= len(directory.names)
                self._strip(directory, lease_until)
            elif directory.trusted_until <= now and len(self._directories) > self._directories_max:
                directory.alive = False
                del self._directories[ino]
                self._recent_directories.note(ino, directory.invalid_at)
                dropped.append(ino)
        return dropped

    # --- inside

    def _removed_by(self, now: float) -> list[int]:
        due = [ino for ino, until in self._removed if until <= now]
        self._removed = [(ino, until) for ino, until in self._removed if until > now]
        return [ino for ino in due if ino not in self._directories]

    def _learn(self, ino: int, inode: Inode | None, cacheable: bool, position: int) -> Inode | None:
        known = self._attributes.get(ino)
        if known is None or inode is None:
            return inode
        if position < known.invalid_at or (self._doubtful and ino in self._doubtful):
            return inode
        if known.inode is not None and position < known.position:
            return known.inode
        known.inode = inode
        known.cacheable = cacheable
        known.position = position
        return inode

    def _record(self, ino: int) -> Attributes:
        known = self._attributes.get(ino)
        if known is None:
            known = self._attributes[ino] = Attributes(self._recent_inodes.at(ino))
        return known

    def _forget_unused(self, ino: int, known: Attributes) -> None:
        if known.names <= 0 and known.pins <= 0:
            del self._attributes[ino]
            # A reply older than what we knew must not come back to life later.
            self._recent_inodes.note(ino, max(known.invalid_at, known.position))

    def _set_name(self, directory: Directory, name: bytes, ino: int) -> bool:
        """False: it is in doubt, and not kept."""
        if self._doubtful and ino != UNKNOWN and (directory.ino, name) in self._doubtful:
            self._doubt(directory, name)
            return False
        if ino == ABSENT and directory.complete:  # as all that it does not name
            self._drop_name(directory, name)
            return True
        old = directory.names.get(name)
        if old == ino:
            return True
        if old is None:
            self._names += 1
        directory.names[name] = ino
        if ino > 0:
            self._record(ino).names += 1
        if old is not None and old > 0:
            self._leave(old)
        return True

    def _drop_name(self, directory: Directory, name: bytes) -> None:
        old = directory.names.pop(name, None)
        if old is not None:
            self._names -= 1
            if old > 0:
                self._leave(old)

    def _doubt(self, directory: Directory, name: bytes) -> None:
        if directory.complete:
            self._set_name(directory, name, UNKNOWN)
        else:
            self._drop_name(directory, name)

    def _leave(self, ino: int) -> None:
        known = self._attributes.get(ino)
        if known is not None:
            known.names -= 1
            self._forget_unused(ino, known)

    def _strip(self, directory: Directory, lease_until: float) -> None:
        directory.trusted_until = max(directory.trusted_until, lease_until)
        directory.complete = False
        for name in list(directory.names):
            self._drop_name(directory, name)
