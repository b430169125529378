"""The change stream's vocabulary: what a record of the operation log tells the world.

`events_of` turns a record into events: one a changed item, with keys, the image
before and the image after, by attribute name. It decides what is visible: tables
`inodes` and `dirents` unless more are asked for, and nothing for a change that
changes nothing. A snapshot is one event of kind `copy`, however much it copies.
Where an event stands in the log is its cursor; where the reader was before is
`previous`, so that a reader can prove it has missed nothing.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Collection, Iterable
from typing import Any, NamedTuple

import msgspec
from msgspec import Struct, field

from gfs import items
from gfs.errors import InvalidArgument
from gfs.records import TABLE_OF, Copy, Record, RecordActor
from gfs.texts import bytes_of as bytes_of
from gfs.texts import text_of as text_of

DEFAULT_TABLES = frozenset({items.DIRENTS, items.INODES})
INSERT, MODIFY, REMOVE, COPY = "insert", "modify", "remove", "copy"
COPIED_TABLES = frozenset({items.DIRENTS, items.INODES, items.EXTENTS, items.CHUNKS})
HEARTBEAT, RESET, SNAPSHOT, END = "heartbeat", "reset", "snapshot", "end"
WHOLE_RECORD = 1 << 30  # index of a cursor behind the last event of its record

# --- cursors ---------------------------------------------------------------------------


class Cursor(NamedTuple):
    """A place in the log: behind event `index` of the record at `position`.

    `epoch` is that of the record there: a log that has another one at this
    position is not the one the cursor comes from.
    """

    epoch: int
    position: int
    rank: int = WHOLE_RECORD

    def __str__(self) -> str:
        if self.rank == WHOLE_RECORD:
            return f"{self.epoch}-{self.position}"
        return f"{self.epoch}-{self.position}.{self.rank}"

    @property
    def place(self) -> tuple[int, int]:
        """What orders cursors of one log."""
        return self.position, self.rank


START = Cursor(0, 0)  # before the first record
_CURSOR = re.compile(r"([0-9]{1,19})-([0-9]{1,19})(?:\.([0-9]{1,9}))?", re.ASCII)


def parse_cursor(text: str) -> Cursor:
    """``EPOCH-POSITION.INDEX``, or ``EPOCH-POSITION`` for a record read to its end.

    Raises: InvalidArgument.
    """
    found = _CURSOR.fullmatch(text)
    if found is None:
        raise InvalidArgument(f"{text[:60]!r} is no cursor (EPOCH-POSITION.INDEX)")
    index = WHOLE_RECORD if found[3] is None else int(found[3])
    return Cursor(int(found[1]), int(found[2]), index)


# --- events, as they are written -------------------------------------------------------


class Event(Struct, omit_defaults=True, gc=False):
    """One change of one item. An attribute left out has its default (0, "", false, {})."""

    kind: str  # insert, modify, remove, copy
    table: str
    operation: str  # what the record did: create, rename, commit, ...
    cursor: str
    previous: str = ""  # cursor of the event delivered before this one
    more: bool = False  # further events of the same record follow
    keys: Any = None
    old: Any = None
    new: Any = None
    time_ns: int = 0
    actor: Any = None
    session: int = 0
    copy: Any = None


class _InodeKeys(Struct, gc=False):
    ino: int


class _DirentKeys(Struct, gc=False):
    parent: int
    name: str


class _Actor(Struct, omit_defaults=True):
    uid: int
    gid: int
    pid: int = 0
    host: str = ""
    mount: str = ""
    said_uid: int = -1
    said_gid: int = -1


def _plain(value: Any) -> Any:
    """A value as JSON can hold it: bytes as text, structs as maps by attribute name."""
    if isinstance(value, bytes):
        return text_of(value)
    if isinstance(value, Struct):
        return {name: _plain(getattr(value, name)) for name in value.__struct_fields__}
    if isinstance(value, dict):
        return {_plain(key): _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return value


def _image_maker(item: type[Struct]) -> Callable[[Any], Any]:
    """Function from an item to its image: a struct that is encoded as a map by name.

    Made from the item's own fields, so that an attribute added to the data model
    is in the stream without a word said here.
    """
    fields: list[Any] = []
    texts = []
    for at, known in enumerate(msgspec.structs.fields(item)):
        if known.type not in (int, bool, str):
            texts.append(at)
        if known.default_factory is not msgspec.NODEFAULT:
            fields.append((known.name, Any, field(default_factory=known.default_factory)))
        elif known.default is not msgspec.NODEFAULT:
            fields.append((known.name, Any, _plain(known.default)))
        else:
            fields.append((known.name, Any))
    image = msgspec.defstruct(f"{item.__name__}Image", fields, omit_defaults=True, gc=False)
    values = msgspec.structs.astuple
    if not texts:
        return lambda one: None if one is None else image(*values(one))

    def make(one: Any) -> Any:
        if one is None:
            return None
        row = list(values(one))
        for at in texts:
            value = row[at]
            row[at] = _plain(value) if value else "" if value == b"" else value
        return image(*row)

    return make


_image_of_inode = _image_maker(items.Inode)
_image_of_dirent = _image_maker(items.Dirent)
_KEY_NAMES = {
    items.DIRENTS: ("parent", "name"),
    items.INODES: ("ino",),
    items.EXTENTS: ("ino", "file_offset"),
    items.CHUNKS: ("handle",),
    items.SESSIONS: ("session",),
    items.SERVERS: ("server",),
    items.ORPHANS: ("ino",),
    items.TRASH: ("ino",),
    items.WRITERS: ("handle",),
    items.META: ("name",),
    items.QUOTAS: ("ino",),
    items.LOCKS: ("ino", "fence"),
}


def events_of(
    record: Record, *, tables: Collection[str] = DEFAULT_TABLES, after: int = -1
) -> list[Event]:
    """Events of a record, of the changes whose index is greater than `after`.

    The index counts all changes of the record, asked for or not, so a cursor means
    the same to every reader. `previous` and `more` are for `chain` to fill in.
    """
    found: list[Event] = []
    prefix = f"{record.epoch}-{record.position}."
    actor = None
    for index, change in enumerate(record.changes):
        table = TABLE_OF[type(change)]
        if index <= after or table not in tables or not _visible(change):
            continue
        if actor is None:
            actor = _actor(record.actor)
        old, new = change.old, change.new
        keys, image = _SHAPES[table]
        found.append(
            Event(
                INSERT if old is None else REMOVE if new is None else MODIFY,
                table,
                record.operation,
                prefix + str(index),
                keys=keys(change.key),
                old=image(old),
                new=image(new),
                time_ns=record.time_ns,
                actor=actor,
                session=record.session,
            )
        )
    if record.copy is not None and len(record.changes) > after and COPIED_TABLES & set(tables):
        found.append(_copy_event(record, prefix))
    return found


def _copy_event(record: Record, prefix: str) -> Event:
    """Comes behind all changes of its record, and counts as one more."""
    assert record.copy is not None
    return Event(
        COPY,
        items.INODES,
        record.operation,
        prefix + str(len(record.changes)),
        time_ns=record.time_ns,
        actor=_actor(record.actor),
        session=record.session,
        copy=_plain(record.copy) | {"owners": _sums(record.copy)},
    )


def _sums(copy: Copy) -> list[dict[str, int]]:
    return [
        {"uid": uid, "inodes": inodes, "bytes": size}
        for uid, (inodes, size) in sorted(copy.owners.items())
    ]


def _visible(change: Any) -> bool:
    """Whether anything but the count of an item's changes differs."""
    old, new = change.old, change.new
    if old is None or new is None:
        return old is not new
    if getattr(old, "ctime_ns", 0) != getattr(new, "ctime_ns", 0):
        return True
    if old == new:
        return False
    if not isinstance(new, items.Inode | items.Dirent) or old.version == new.version:
        return True  # the version of a chunk is no count of its changes
    return bool(msgspec.structs.replace(old, version=new.version) != new)


@functools.lru_cache(maxsize=256)
def _encoded_actor(*actor: Any) -> msgspec.Raw:
    return msgspec.Raw(_ENCODER.encode(_Actor(*actor)))


def _actor(actor: RecordActor) -> msgspec.Raw:
    return _encoded_actor(*msgspec.structs.astuple(actor))


def _keys_maker(names: tuple[str, ...]) -> Callable[[Any], Any]:
    return lambda key: {name: _plain(part) for name, part in zip(names, key, strict=True)}


def _plain_image(item: Any) -> Any:
    return None if item is None else _plain(item)


_SHAPES: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    table: (_keys_maker(names), _plain_image) for table, names in _KEY_NAMES.items()
} | {  # the hot ones
    items.INODES: (lambda key: _InodeKeys(key[0]), _image_of_inode),
    items.DIRENTS: (lambda key: _DirentKeys(key[0], text_of(key[1])), _image_of_dirent),
}


def snapshot_event(table: str, key: items.Key, item: Any, cursor: str) -> Event:
    """An item of a checkpoint as an event, so that a reader needs one way to take items in."""
    keys, image = _SHAPES[table]
    return Event(INSERT, table, SNAPSHOT, cursor, keys=keys(key), new=image(item))


def chain(events: list[Event], previous: str) -> str:
    """Link the events of one record that are delivered; returns the last one's cursor."""
    for event in events:
        event.previous, event.more = previous, True
        previous = event.cursor
    if events:
        events[-1].more = False
    return previous


_ENCODER = msgspec.json.Encoder()


def encode(events: Iterable[Any]) -> bytes:
    """NDJSON of events or control lines."""
    return _ENCODER.encode_lines(events)


class Control(Struct, omit_defaults=True):
    """A line of the stream that is no event.

    heartbeat: nothing that passes the filter lies up to `scanned_to`.
    reset: the cursor asked for is not of this log, or retention has passed it; begin
    anew with ``GET /snapshot``. snapshot: the items that follow are as of `cursor`;
    end: there were `items` of them.
    """

    kind: str
    scanned_to: str = ""
    committed: str = ""  # how far the log goes
    cursor: str = ""
    reason: str = ""
    items: int = 0
    time_ns: int = 0


# --- lines, as they are read -----------------------------------------------------------
# Many live at once and none is part of a cycle, so the collector leaves them alone (gc=False):
# looking through them took a third of a view's time.


class Actor(Struct, gc=False):
    """Who did it, as far as the session told."""

    uid: int = 0
    gid: int = 0
    pid: int = 0
    host: str = ""
    mount: str = ""
    said_uid: int = -1  # on its own host, where that is another number
    said_gid: int = -1


class Keys(Struct, gc=False):
    """Key of a dirent (parent, name) or an inode (ino)."""

    parent: int = 0
    name: str = ""
    ino: int = 0


class Image(Struct, gc=False):
    """Attributes of a dirent (ino, kind) or an inode (the others)."""

    mode: int = 0
    uid: int = 0
    gid: int = 0
    nlink: int = 0
    size: int = 0
    atime_ns: int = 0
    mtime_ns: int = 0
    ctime_ns: int = 0
    version: int = 1
    data_version: int = 0
    stored: int = 0
    rdev: int = 0
    target: str = ""
    parent: int = 0
    tail: int = 0
    created_ns: int = 0
    attributes: dict[str, str] = field(default_factory=dict)
    digest: int = 0
    ino: int = 0
    kind: int = 0


class OwnerSums(Struct, gc=False):
    """What of a copy belongs to one user."""

    uid: int
    inodes: int
    bytes: int


class Copied(Struct, gc=False):
    """A copy, as `gfs.records.Copy` says it."""

    source: int
    parent: int
    name: str
    root: int
    first: int
    count: int
    uid: int
    gid: int
    groups: list[int]
    owners: list[OwnerSums]


class Line(Struct, gc=False):
    """Any line of the stream, for readers of inodes and dirents; `kind` says which it is."""

    kind: str
    table: str = ""
    operation: str = ""
    cursor: str = ""
    previous: str = ""
    more: bool = False
    keys: Keys | None = None
    old: Image | None = None
    new: Image | None = None
    copy: Copied | None = None
    time_ns: int = 0
    said_actor: msgspec.Raw = field(name="actor", default=msgspec.Raw(b"null"))
    session: int = 0
    scanned_to: str = ""
    committed: str = ""
    reason: str = ""
    items: int = 0

    @property
    def actor(self) -> Actor | None:
        """Who did it; one object for all lines that say the same. Raises: msgspec.MsgspecError."""
        return _actor_of(bytes(self.said_actor))


# Few do much: to make an actor of each line took a tenth of reading it, and a view that writes the
# same texts again and again does so in half the time if they are the same objects.
@functools.lru_cache(1024)
def _actor_of(said: bytes) -> Actor | None:
    return _ACTOR.decode(said)


_ACTOR = msgspec.json.Decoder(Actor | None)
_LINES = msgspec.json.Decoder(Line)


def decode_lines(ndjson: bytes | bytearray | memoryview) -> list[Line]:
    """Whole lines of the stream.

    Raises: msgspec.MsgspecError: that is not the stream.
    """
    return _LINES.decode_lines(ndjson)
