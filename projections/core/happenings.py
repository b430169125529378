"""What happened to each file: events of a record, told as one would tell them.

The stream has a line for each item that changed; a history wants "renamed from a to b"
and "grew from 4 to 9 bytes". A record gives at most one happening of a kind and inode
(a name more, for links). Left out: what directories undergo because of the names in
them, and times of reading, which say nothing that one looks for and come in crowds.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import msgspec

from gfs.changes import Actor, Copied, Image, Keys, Line, parse_cursor
from gfs.ids import TRASH_INO

MADE, WRITTEN, RENAMED, LINKED, UNLINKED = "made", "written", "renamed", "linked", "unlinked"
TRASHED, UNDELETED, REMOVED, COPIED = "trashed", "undeleted", "removed", "copied"
ATTRIBUTES, XATTRS = "attributes", "xattrs"
_SHOWN = ("mode", "uid", "gid", "mtime_ns", "rdev", "target")
_NOBODY = Actor()
_ENCODER = msgspec.json.Encoder()
_Place = tuple[int, str]  # directory and name
_Told = tuple[str, _Place, _Place, str]  # event, where it is, where it was, detail
_NOWHERE: _Place = (0, "")
_NONE: tuple[_Place, ...] = ()
_UNTOUCHED, _UNKNOWN = (None, None), Image()


class Happening(NamedTuple):
    """A row of the history; a place is (directory's inode, name), (0, "") for none.

    `owner` is whose the inode is, `uid` who did it. `detail` is JSON or "": for attributes
    ``{"mode": [old, new]}``, for xattrs ``{"set": [names], "removed": [names]}``, for what a
    snapshot or clone made ``{"source": ino, "count": inodes}``.
    """

    epoch: int
    position: int
    time_ns: int
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
    uid: int
    pid: int
    host: str
    mount: str


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


def happenings_of(lines: Iterable[Line]) -> tuple[list[Happening], list[Duplicate]]:
    """Of whole records, in order."""
    found: list[Happening] = []
    copies: list[Duplicate] = []
    record: list[Line] = []
    for line in lines:
        record.append(line)
        if line.more:
            continue
        told = _of_record(record)
        if line.copy is not None:  # the last of its record
            copies.append(_duplicate(line, line.copy))
            told = [_as_copy(one, line.copy) for one in told]
        found += told
        record = []
    return found, copies


def _as_copy(one: Happening, copy: Copied) -> Happening:
    if one.ino != copy.root or one.event != LINKED:
        return one
    detail = {"source": copy.source, "count": copy.count}
    return one._replace(event=COPIED, detail=_ENCODER.encode(detail).decode())


def _duplicate(line: Line, copy: Copied) -> Duplicate:
    at, actor = parse_cursor(line.cursor), line.actor or _NOBODY
    return Duplicate(
        at.epoch,
        at.position,
        line.time_ns,
        line.operation,
        copy.source,
        copy.root,
        copy.first,
        copy.count,
        sum(one.bytes for one in copy.owners),
        copy.parent,
        copy.name,
        actor.uid,
        actor.pid,
        actor.host,
        actor.mount,
    )


def _of_record(record: list[Line]) -> list[Happening]:
    inodes: dict[int, tuple[Image | None, Image | None]] = {}
    gone: dict[int, list[_Place]] = {}  # names that inodes lost
    got: dict[int, list[_Place]] = {}
    kinds: dict[int, int] = {}
    parents: set[int] = set()
    for line in record:
        keys = line.keys
        if keys is None:
            continue
        if line.table == "inodes":
            before = inodes.get(keys.ino)
            inodes[keys.ino] = (line.old if before is None else before[0], line.new)
        else:
            parents.add(keys.parent)
            _names(keys, line.old, line.new, gone, got, kinds)
    first = record[0]
    epoch, _, rest = first.cursor.partition("-")
    head = int(epoch), int(rest.partition(".")[0]), first.time_ns
    actor = first.actor or _NOBODY
    who = actor.uid, actor.pid, actor.host, actor.mount
    found: list[Happening] = []
    for ino in dict.fromkeys((*gone, *got, *inodes)):
        old, new = inodes.get(ino, _UNTOUCHED)
        named = ino in gone or ino in got
        if not named and ino in parents and _only_names(old, new):
            continue
        last = new or old or _UNKNOWN
        shape = (
            stat.S_IFMT(last.mode) or kinds.get(ino, 0),
            0 if new is None else new.size,
            0 if old is None else old.size,
            last.uid,
        )
        told = _told(old, new, ino in parents, gone.get(ino, _NONE), got.get(ino, _NONE))
        found += [_happening(head, ino, one, shape, who) for one in told]
    return found


def _only_names(old: Image | None, new: Image | None) -> bool:
    """Whether a directory underwent no more than that names in it came and went."""
    return (
        old is not None
        and new is not None
        and old.mode == new.mode
        and old.uid == new.uid
        and old.gid == new.gid
        and old.attributes == new.attributes
    )


def _happening(
    head: tuple[int, int, int],
    ino: int,
    told: _Told,
    shape: tuple[int, int, int, int],
    who: tuple[int, int, str, str],
) -> Happening:
    event, to, came_from, detail = told
    kind, size, before, owner = shape
    return Happening._make(
        (*head, ino, event, kind, *to, *came_from, size, before, owner, detail, *who)
    )


def _names(
    keys: Keys,
    old: Image | None,
    new: Image | None,
    gone: dict[int, list[_Place]],
    got: dict[int, list[_Place]],
    kinds: dict[int, int],
) -> None:
    if old is not None and new is not None and old.ino == new.ino:
        return
    place = keys.parent, keys.name
    for image, places in ((old, gone), (new, got)):
        if image is not None:
            places.setdefault(image.ino, []).append(place)
            kinds[image.ino] = image.kind


def _told(
    old: Image | None,
    new: Image | None,
    is_parent: bool,
    gone: Sequence[_Place],
    got: Sequence[_Place],
) -> Iterator[_Told]:
    """What happened to one inode in one record."""
    made = old is None and new is not None
    removed = old is not None and new is None
    for event, to, came_from in _moves(gone, got, made=made, removed=removed):
        yield event, to, came_from, ""
    if old is None or new is None:
        return
    if old.size != new.size or (
        old.data_version != new.data_version and not stat.S_ISDIR(new.mode)
    ):
        yield WRITTEN, _NOWHERE, _NOWHERE, ""
        if old.mode == new.mode and old.uid == new.uid and old.gid == new.gid:
            return
    changed = _changed(old, new, is_parent)
    if changed:
        yield ATTRIBUTES, _NOWHERE, _NOWHERE, _ENCODER.encode(changed).decode()
    if old.attributes != new.attributes:
        detail = _xattrs(old.attributes, new.attributes)
        yield XATTRS, _NOWHERE, _NOWHERE, _ENCODER.encode(detail).decode()


def _moves(
    gone: Sequence[_Place], got: Sequence[_Place], *, made: bool, removed: bool
) -> Iterator[tuple[str, _Place, _Place]]:
    """Names that an inode lost and got: pairs of them are moves."""
    for at in range(max(len(gone), len(got), int(made or removed))):
        left = gone[at] if at < len(gone) else _NOWHERE
        to = got[at] if at < len(got) else _NOWHERE
        if made and at == 0:
            yield MADE, to, _NOWHERE
        elif left[0] and to[0]:
            event = TRASHED if to[0] == TRASH_INO else RENAMED
            yield UNDELETED if left[0] == TRASH_INO else event, to, left
        elif to[0]:
            yield LINKED, to, _NOWHERE
        elif removed and at == 0:
            yield REMOVED, _NOWHERE, left
        else:
            yield UNLINKED, _NOWHERE, left


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
