"""Who must drop what before a change may be answered (protocols.md "Sessions and coherence").

After COMMIT the holders of everything a record changed are computed and told;
the answers that depend on the record wait until each has acknowledged, or its
session is dead. A session that appears among the holders later has read what
is committed.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

from gfs.ids import ROOT_INO
from gfs.items import LINKS_BY_INO
from gfs.messages import Invalidate, NamePair
from gfs.records import DirentChange, InodeChange, Record
from master.core import relocating
from master.core.registry import Registry
from master.core.tables import ReadTables


@dataclass
class Stale:
    """What one session must drop."""

    names: set[tuple[int, bytes]] = field(default_factory=set)
    inos: set[int] = field(default_factory=set)
    contents: set[int] = field(default_factory=set)
    moved: set[int] = field(default_factory=set)
    tokens: set[int] = field(default_factory=set)  # orders that say so already

    def __bool__(self) -> bool:
        return bool(self.names or self.inos or self.contents or self.moved)

    def add(self, other: Stale) -> None:
        """What `other` says, too."""
        self.names |= other.names
        self.inos |= other.inos
        self.contents |= other.contents
        self.moved |= other.moved
        self.tokens |= other.tokens

    def message(self, position: int) -> Invalidate:
        names = [NamePair(parent, name) for parent, name in sorted(self.names)]
        inos, contents, moved = sorted(self.inos), sorted(self.contents), sorted(self.moved)
        return Invalidate(position, names, inos, contents, moved)


def stale_for(record: Record, registry: Registry, tables: ReadTables) -> defaultdict[int, Stale]:
    """By session, what this record made stale; not for the session that caused it."""
    found: defaultdict[int, Stale] = defaultdict(Stale)
    if not registry.has_others(record.session):
        return found
    for change in record.changes:
        if isinstance(change, DirentChange):
            parent, name = change.key
            for session in registry.holders(parent):
                if session != record.session:
                    found[session].names.add((parent, name))
        elif isinstance(change, InodeChange) and record.operation == relocating.OPERATION:
            # Layouts are asked for without the attributes, so this is always told.
            for session in _holders(change, registry, tables):
                found[session].moved.add(change.key[0])
        elif isinstance(change, InodeChange) and change.old is not None:
            _stale_inode(change, record.session, registry, tables, found)
    return found


def _stale_inode(
    change: InodeChange,
    cause: int,
    registry: Registry,
    tables: ReadTables,
    found: defaultdict[int, Stale],
) -> None:
    ino, old, new = change.key[0], change.old, change.new
    if old and new and old.tail and new.tail == old.tail and new.data_version != old.data_version:
        return  # a tail has grown: its length is asked of the primary, nobody keeps it
    content = new is None or old is None or new.data_version != old.data_version
    content = content or new is None or old is None or new.tail != old.tail
    for session in _holders(change, registry, tables):
        if session == cause:
            continue
        token = registry.told_by(session, ino)
        if token is not None:
            found[session].tokens.add(token)
            continue
        found[session].inos.add(ino)
        if content:
            found[session].contents.add(ino)


def _holders(change: InodeChange, registry: Registry, tables: ReadTables) -> set[int]:
    """`inode_holders`; a directory's one link is known from its own image."""
    ino = change.key[0]
    image = change.new
    if image is not None and not image.is_directory:
        return inode_holders(ino, registry, tables)
    found = registry.openers.get(ino, set()) | registry.holders(ino)
    image = image or change.old
    if image is None or not image.is_directory:
        return found  # its name goes too, and nobody else can ask for it
    return found | registry.holders(image.parent or ROOT_INO)


def inode_holders(ino: int, registry: Registry, tables: ReadTables) -> set[int]:
    """Sessions that may have cached the inode's attributes.

    By the directories holding a link to it, by its own names if it is a
    directory, and by having it open.
    """
    found = set(registry.openers.get(ino, ()))
    found |= registry.holders(ino)
    if not registry.interested:
        return found
    if ino == ROOT_INO:
        return found | registry.holders(ROOT_INO)
    for key in tables.by_index(LINKS_BY_INO, ino):
        found |= registry.holders(int(key[0]))
    return found
