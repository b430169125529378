"""The operation log's record: results, never requests.

A record holds the old and new image of each item that a transaction changed,
so that replay, shadow, stream and views need no judgement: they put images. A
snapshot's copies alone are not written out (`Copy`): a tree would be a record of
gigabytes, and everybody who applies it has the source.
`Change` has one struct a table because a change then decodes in one pass into
the right item type.

Source: GFS §2.6.3. Departs: images instead of operations; dedup facts inside.
"""

from __future__ import annotations

import typing

import msgspec
from msgspec import Struct, field

from gfs import items


class Change(Struct, array_like=True, gc=False):
    """Base: key, image before (None = new) and after (None = gone)."""


class InodeChange(Change, tag=1, gc=False):
    key: tuple[int]
    old: items.Inode | None
    new: items.Inode | None


class DirentChange(Change, tag=2, gc=False):
    key: tuple[int, bytes]
    old: items.Dirent | None
    new: items.Dirent | None


class ExtentChange(Change, tag=3, gc=False):
    key: tuple[int, int]
    old: items.Extent | None
    new: items.Extent | None


class ChunkChange(Change, tag=4, gc=False):
    key: tuple[int]
    old: items.Chunk | None
    new: items.Chunk | None


class SessionChange(Change, tag=5, gc=False):
    key: tuple[int]
    old: items.Session | None
    new: items.Session | None


class ServerChange(Change, tag=6, gc=False):
    key: tuple[int]
    old: items.Server | None
    new: items.Server | None


class OrphanChange(Change, tag=7, gc=False):
    key: tuple[int]
    old: items.Orphan | None
    new: items.Orphan | None


class TrashChange(Change, tag=8, gc=False):
    key: tuple[int]
    old: items.Trash | None
    new: items.Trash | None


class WritersChange(Change, tag=9, gc=False):
    key: tuple[int]
    old: items.Writers | None
    new: items.Writers | None


class MetaChange(Change, tag=10, gc=False):
    key: tuple[bytes]
    old: items.Meta | None
    new: items.Meta | None


class QuotaChange(Change, tag=13, gc=False):
    key: tuple[int]
    old: items.Quota | None
    new: items.Quota | None


class LockChange(Change, tag=11, gc=False):
    key: tuple[int, int]
    old: items.Lock | None
    new: items.Lock | None


AnyChange = (
    InodeChange
    | DirentChange
    | ExtentChange
    | ChunkChange
    | SessionChange
    | ServerChange
    | OrphanChange
    | TrashChange
    | WritersChange
    | MetaChange
    | QuotaChange
    | LockChange
)

CHANGE_OF: dict[str, type[typing.Any]] = {
    items.INODES: InodeChange,
    items.DIRENTS: DirentChange,
    items.EXTENTS: ExtentChange,
    items.CHUNKS: ChunkChange,
    items.SESSIONS: SessionChange,
    items.SERVERS: ServerChange,
    items.ORPHANS: OrphanChange,
    items.TRASH: TrashChange,
    items.WRITERS: WritersChange,
    items.META: MetaChange,
    items.QUOTAS: QuotaChange,
    items.LOCKS: LockChange,
}
TABLE_OF = {kind: table for table, kind in CHANGE_OF.items()}


class RecordActor(Struct, array_like=True, gc=False):
    """Who did it, as far as the session told.

    `said_uid`, `said_gid`: the numbers on its own host, if others were made of them; else -1.
    """

    uid: int = 0
    gid: int = 0
    pid: int = 0
    host: str = ""
    mount: str = ""
    said_uid: int = -1
    said_gid: int = -1


class Copy(Struct, array_like=True, gc=False):
    """A file or a tree copied by sharing its content (GFS §3.4): the one thing without images.

    Whoever applies it has the source, and makes of each inode below it, in the order of
    their numbers, one numbered from `first` on; links within the source become links
    within the copy. With `uid` >= 0 everything becomes this user's, as `cp -a` by one who
    is not root: see `master.core.copying`.
    """

    source: int  # inode at the top of what is copied
    parent: int  # directory and name of the copy; the name is a change as well
    name: bytes
    root: int  # the inode made of `source`
    first: int
    count: int  # inodes
    uid: int = -1
    gid: int = 0
    groups: list[int] = field(default_factory=list)  # of `uid`: files keep these
    owners: dict[int, tuple[int, int]] = field(default_factory=dict)  # uid -> inodes, bytes


class Record(Struct, array_like=True, gc=False):
    """One committed transaction: one position of the operation log.

    `landed` (session, number, low) is the dedup fact of the request that made
    it; `result` is the encoded answer, given again when the request comes
    again. Growth of tails, seals and housekeeping have no request.
    """

    position: int
    epoch: int
    time_ns: int
    operation: str
    actor: RecordActor
    changes: list[AnyChange]
    session: int = 0
    number: int = 0
    low: int = 0
    result: bytes = b""
    notes: dict[str, str] = field(default_factory=dict)
    copy: Copy | None = None  # takes effect after `changes`


ENCODER = msgspec.msgpack.Encoder()
DECODER = msgspec.msgpack.Decoder(Record)
