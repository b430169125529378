"""What happened to each file: events of a record, told as one would tell them.

The stream has a line for each item that changed; a history wants "renamed from a to b"
and "grew from 4 to 9 bytes". A record gives at most one happening of a kind and inode
(a name more, for links). Left out: what directories undergo because of the names in
them, and times of reading, which say nothing that one looks for and come in crowds.
"""

from __future__ import annotations

import stat
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import msgspec

from gfs.changes import Actor, Copied, Image, Keys, Line
from gfs.ids import TRASH_INO

MADE, WRITTEN, RENAMED, LINKED, UNLINKED = "made", "written", "renamed", "linked", "unlinked"
TRASHED, UNDELETED, REMOVED, COPIED = "trashed", "undeleted", "removed", "copied"
ATTRIBUTES, XATTRS = "attributes", "xattrs"
_SHOWN = ("mode", "uid", "gid", "mtime_ns", "rdev", "target")
_NOBODY = Actor()
_ENCODER = msgspec.json.Encoder()
_Place = tuple[int, str]  # directory and name
_Event = tuple[str, _Place, _Place, str]  # event, where it is, where it was, detail
_NOWHERE: _Place = (0, "")
TYPE_BITS = 0o170000  # of st_mode
_UNKNOWN = Image()


class Occasion(NamedTuple):
    """When all of a record happened, and who did it."""

    epoch: int
    position: int
    time_ns: int
    uid: int
    pid: int
    host: str
    mount: str


class Happening(NamedTuple):
    """What happened to one inode; a place is (directory's inode, name), (0, "") for none.

    `owner` is whose the inode is. `detail` is JSON or "": for attributes
    ``{"mode": [old, new]}``, for xattrs ``{"set": [names], "removed": [names]}``, for what a
    snapshot or clone made ``{"source": ino, "count": inodes}``.
    """

    occasion: Occasion
    ino: int
    event: str
    kind: int  # type bits of st_mode, 0 where the record does not say
    parent: int  # where it is now
    name: str
    from_parent: int  # where it was
    from_name: str
    size: int
    size_before: int
    owner: int
    detail: str


# A third of the price of Occasion(...) and Happening(...).
_new_occasion = partial(tuple.__new__, Occasion)
new_happening = partial(tuple.__new__, Happening)


class Duplicate(NamedTuple):
    """A snapshot or clone: `inodes` of them from `first` on, made of `source` and what it held."""

    epoch: int
    position: int
    time_ns: int
    operation: str
    source: int
    root: int
    first: int
    inodes: int
    bytes: int
    parent: int
    name: str
    uid: int
    pid: int
    host: str
    mount: str


class _Trace(msgspec.Struct, gc=False):
    """What a record says of one inode: images around it, names it lost and got."""

    old: Image | None = None
    new: Image | None = None
    touched: bool = False  # whether there are images
    gone: tuple[_Place, ...] = ()
    got: tuple[_Place, ...] = ()
    kind: int = 0  # by a name


@dataclass
class Told:
    """What the history gets of some records."""

    events: list[Happening] = field(default_factory=list)
    copies: list[Duplicate] = field(default_factory=list)

    def add(self, lines: Sequence[Line]) -> None:
        """What happened in whole records, in order."""
        begin = 0
        for at, line in enumerate(lines):
            if line.more:
                continue
            events = _of_record(lines[begin : at + 1])
            begin = at + 1
            if line.copy is not None:  # the last of its record
                self.copies.append(_duplicate(line, line.copy))
                events = [_as_copy(one, line.copy) for one in events]
            self.events += events


def occasion_of(line: Line) -> Occasion:
    """That of the record that a line is of."""
    epoch, _, rest = line.cursor.partition("-")
    actor = line.actor or _NOBODY
    position = int(rest.partition(".")[0])
    return _new_occasion(
        (int(epoch), position, line.time_ns, actor.uid, actor.pid, actor.host, actor.mount)
    )


def _as_copy(one: Happening, copy: Copied) -> Happening:
    if one.ino != copy.root or one.event != LINKED:
        return one
    detail = {"source": copy.source, "count": copy.count}
    return one._replace(event=COPIED, detail=_ENCODER.encode(detail).decode())


def _duplicate(line: Line, copy: Copied) -> Duplicate:
    at = occasion_of(line)
    return Duplicate(
        at.epoch,
        at.position,
        at.time_ns,
        line.operation,
        copy.source,
        copy.root,
        copy.first,
        copy.count,
        sum(one.bytes for one in copy.owners),
        copy.parent,
        copy.name,
        at.uid,
        at.pid,
        at.host,
        at.mount,
    )


def _of_record(record: Sequence[Line]) -> list[Happening]:
    occasion = occasion_of(record[0])
    traces: defaultdict[int, _Trace] = defaultdict(_Trace)
    parents: set[int] = set()
    for line in record:
        keys = line.keys
        if keys is None:
            continue
        if line.table == "inodes":
            trace = traces[keys.ino]
            if not trace.touched:
                trace.old, trace.touched = line.old, True
            trace.new = line.new
        else:
            parents.add(keys.parent)
            _names(keys, line.old, line.new, traces)
    found: list[Happening] = []
    for ino, trace in traces.items():
        is_parent = ino in parents
        if not is_parent or trace.gone or trace.got or not only_names(trace.old, trace.new):
            found += _told(occasion, ino, trace, is_parent=is_parent)
    return found


def _names(
    keys: Keys, old: Image | None, new: Image | None, traces: defaultdict[int, _Trace]
) -> None:
    if old is not None and new is not None and old.ino == new.ino:
        return
    place = keys.parent, keys.name
    if old is not None:
        trace = traces[old.ino]
        trace.gone += (place,)
        trace.kind = old.kind
    if new is not None:
        trace = traces[new.ino]
        trace.got += (place,)
        trace.kind = new.kind


def only_names(old: Image | None, new: Image | None) -> bool:
    """Whether a directory underwent no more than that names in it came and went."""
    return (
        old is not None
        and new is not None
        and old.mode == new.mode
        and old.uid == new.uid
        and old.gid == new.gid
        and old.attributes == new.attributes
    )


def _told(occasion: Occasion, ino: int, trace: _Trace, *, is_parent: bool) -> list[Happening]:
    """What happened to one inode in one record."""
    old, new = trace.old, trace.new
    if old is None or new is None or trace.gone or trace.got:
        events = _moves(trace)
        if old is not None and new is not None:
            events += _changes(old, new, is_parent)
    else:
        events = _changes(old, new, is_parent)
    last = new or old or _UNKNOWN
    kind = last.mode & TYPE_BITS or trace.kind
    size = 0 if new is None else new.size
    before = 0 if old is None else old.size
    return [
        new_happening((occasion, ino, event, kind, *to, *came_from, size, before, last.uid, detail))
        for event, to, came_from, detail in events
    ]


def _changes(old: Image, new: Image, is_parent: bool) -> list[_Event]:
    """What was done to an inode that was there and is."""
    told: list[_Event] = []
    if old.size != new.size or (
        old.data_version != new.data_version and not stat.S_ISDIR(new.mode)
    ):
        told.append((WRITTEN, _NOWHERE, _NOWHERE, ""))
        if old.mode == new.mode and old.uid == new.uid and old.gid == new.gid:
            return told
    changed = _changed(old, new, is_parent)
    if changed:
        told.append((ATTRIBUTES, _NOWHERE, _NOWHERE, _ENCODER.encode(changed).decode()))
    if old.attributes != new.attributes:
        detail = _xattrs(old.attributes, new.attributes)
        told.append((XATTRS, _NOWHERE, _NOWHERE, _ENCODER.encode(detail).decode()))
    return told


def _moves(trace: _Trace) -> list[_Event]:
    """Names that an inode lost and got: pairs of them are moves."""
    gone, got = trace.gone, trace.got
    made = trace.old is None and trace.new is not None
    removed = trace.old is not None and trace.new is None
    told: list[_Event] = []
    for at in range(max(len(gone), len(got), int(made or removed))):
        left = gone[at] if at < len(gone) else _NOWHERE
        to = got[at] if at < len(got) else _NOWHERE
        if made and at == 0:
            told.append((MADE, to, _NOWHERE, ""))
        elif left[0] and to[0]:
            event = TRASHED if to[0] == TRASH_INO else RENAMED
            told.append((UNDELETED if left[0] == TRASH_INO else event, to, left, ""))
        elif to[0]:
            told.append((LINKED, to, _NOWHERE, ""))
        elif removed and at == 0:
            told.append((REMOVED, _NOWHERE, left, ""))
        else:
            told.append((UNLINKED, _NOWHERE, left, ""))
    return told


def _changed(old: Image, new: Image, is_parent: bool) -> dict[str, list[int | str]]:
    """Attributes somebody set; those that follow from content or names are not among them."""
    names = _SHOWN
    follows = is_parent or old.data_version != new.data_version or old.size != new.size
    return {
        name: [getattr(old, name), getattr(new, name)]
        for name in names
        if getattr(old, name) != getattr(new, name) and not (name == "mtime_ns" and follows)
    }


def _xattrs(old: dict[str, str], new: dict[str, str]) -> dict[str, list[str]]:
    given = sorted(name for name in new if old.get(name) != new[name])
    return {"set": given, "removed": sorted(old.keys() - new.keys())}
