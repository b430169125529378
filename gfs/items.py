"""Items of the metadata tables: what the master stores, logs and streams.

The data model is DynamoDB's: a table has a partition key and perhaps a sort
key; an item is a map with a `version` that each mutation raises. Known
attributes are stored by position (msgspec array form: small and fast; a field
added at the end with a default reads old items); what users add lives in
`Inode.attributes`. The stream names every attribute.
"""

from __future__ import annotations

import enum
import stat
from typing import Any

from msgspec import Struct, field


class ChunkState(enum.IntEnum):
    """Life of a chunk: open, then sealed, then perhaps condemned; never back.

    SEALED is 0 because the sparse index by state then holds only the others.
    """

    SEALED = 0  # final length, members bit-identical
    OPEN = 1  # one lease, one chain, growing
    CONDEMNED = 2  # unreferenced; replicas go when `condemned_ns` is old enough


class ChunkKind(enum.IntEnum):
    """Who may append to an open chunk."""

    PRIVATE = 0  # the one session that leases it; many files may lie in it
    TAIL = 1  # record append: any session, ordered by the primary


class Inode(Struct, array_like=True, gc=False):
    """One file, directory, link or special file. Key: (ino,)."""

    mode: int  # st_mode, type bits included
    uid: int
    gid: int
    nlink: int
    size: int
    atime_ns: int
    mtime_ns: int
    ctime_ns: int
    version: int = 1
    data_version: int = 0  # raised by each content change
    stored: int = 0  # bytes that extents cover; st_blocks * 512 rounds it up
    rdev: int = 0
    target: bytes = b""  # symbolic link
    parent: int = 0  # directories only
    tail: int = 0  # handle of the open tail chunk, 0 for none
    tail_offset: int = 0  # file offset at which the tail chunk begins
    created_ns: int = 0
    attributes: dict[bytes, bytes] = field(default_factory=dict)  # xattrs
    digest: int = 0  # of all `size` bytes (`gfs.checksum`), 0 if not known; of an empty file 0

    @property
    def is_directory(self) -> bool:
        return stat.S_ISDIR(self.mode)

    @property
    def is_file(self) -> bool:
        return stat.S_ISREG(self.mode)

    def written_at(self, time_ns: int) -> int:
        """The next `mtime_ns` when content changes now, at `time_ns`.

        Another one than before: a kernel drops its pages only if that or the size changes.
        """
        return time_ns if time_ns != self.mtime_ns else time_ns + 1


def without_privileges(mode: int) -> int:
    """`mode` after a write by anybody but root: setuid goes, setgid if a group may execute it."""
    mode &= ~stat.S_ISUID
    return mode & ~stat.S_ISGID if mode & stat.S_IXGRP else mode


class Dirent(Struct, array_like=True, gc=False):
    """A name in a directory. Key: (parent, name)."""

    ino: int
    kind: int  # type bits of st_mode (stat.S_IFMT), so readdir needs no inode
    version: int = 1


class Extent(Struct, array_like=True, gc=False):
    """A range of a file that lies in a chunk. Key: (ino, file_offset)."""

    length: int
    handle: int
    chunk_offset: int
    digest: int = 0  # of its bytes, as their writer computed it (`gfs.checksum`); 0: not known


class Member(Struct, array_like=True, gc=False):
    """A chunk server in the chain of an open chunk."""

    server: int
    boot: str  # machine's boot id when it joined; equal = unsynced data is intact


class Chunk(Struct, array_like=True, gc=False):
    """A chunk. Key: (handle,). Locations of sealed chunks are reported, not stored."""

    version: int
    kind: ChunkKind
    state: ChunkState
    goal: int
    length: int = 0  # final length once sealed
    checksum: int = 0  # CRC32C over the block checksums once sealed
    references: int = 0  # sum of the lengths of extents into it
    session: int = 0  # lease holder of a private chunk
    ino: int = 0  # file of a tail chunk
    members: list[Member] = field(default_factory=list)  # chain; first is primary
    created_epoch: int = 0
    created_position: int = 0
    sealed_ns: int = 0
    condemned_ns: int = 0


class Session(Struct, array_like=True, gc=False):
    """A mount process or client. Key: (session,)."""

    epoch: int
    host: str
    mount: str  # mountpoint, or "" for a client without one
    pid: int
    uid: int
    opened_ns: int


class Server(Struct, array_like=True, gc=False):
    """A chunk server that has ever registered. Key: (server,)."""

    address: str
    rack: str
    first_seen_ns: int
    draining: bool = False  # copies are made elsewhere, so that it can be switched off


class Orphan(Struct, array_like=True, gc=False):
    """An inode without a name that a session still has open. Key: (ino,)."""

    since_ns: int
    parent: int = 0  # directory of its last name; 0: not known
    quota: int = 0  # directory whose quota counted it last, and counts it until it goes
    above: tuple[int, ...] = ()  # as of `Trash`


class Trash(Struct, array_like=True, gc=False):
    """What was deleted and can be undeleted. Key: (ino,)."""

    parent: int
    name: bytes
    path: bytes
    deleted_ns: int
    uid: int
    above: tuple[int, ...] = ()  # directories above `parent` then, nearest first, without the root


class Writers(Struct, array_like=True, gc=False):
    """Dedup facts of a sealed tail. Key: (handle,)."""

    last: dict[int, int]  # writer -> last sequence that landed
    sealed_ns: int


class Lock(Struct, array_like=True, gc=False):
    """A lock that a session holds, until it is released or the session ends. Key: (ino, fence).

    `fence` is epoch and counter, as inode numbers are: a later grant has a higher one.
    """

    session: int
    ticket: int  # by which the session names what it asked for
    shared: bool
    since_ns: int
    uid: int
    pid: int


class Landed(Struct, array_like=True, gc=False):
    """Where a session's request number was logged. Key: (session, number)."""

    position: int


class Quota(Struct, array_like=True, gc=False):
    """Limits on what lies below a directory, and how much that is. Key: (ino,), the directory.

    A limit of 0 is none. Inodes in [`next_ino`, `end_ino`) are still to be counted while
    `end_ino` is set; until then `used_*` may be wrong, and what is certain is `bytes`, `files`.
    """

    bytes_max: int = 0
    bytes_soft: int = 0  # may be exceeded for the grace period
    files_max: int = 0
    files_soft: int = 0
    used_bytes: int = 0  # sum of `Inode.stored`
    used_files: int = 0  # inodes of every kind, without the directory itself
    bytes_over_ns: int = 0  # since when the soft limit is exceeded; 0: it is not
    files_over_ns: int = 0
    next_ino: int = 0
    end_ino: int = 0
    counted_bytes: int = 0
    counted_files: int = 0

    @property
    def is_counting(self) -> bool:
        return self.end_ino != 0

    @property
    def bytes(self) -> int:
        """What is used, as limits are judged by."""
        return max(self.used_bytes, self.counted_bytes)

    @property
    def files(self) -> int:
        """What is used, as limits are judged by."""
        return max(self.used_files, self.counted_files)

    def has_counted(self, ino: int) -> bool:
        """Is the inode in what has been counted so far? New ones are as they come."""
        return ino < self.next_ino or ino >= self.end_ino


class Meta(Struct, array_like=True, gc=False):
    """A fact about the whole cluster. Key: (name,)."""

    value: int | bytes  # text as UTF-8: a decoder cannot tell str from bytes


Item = (
    Inode
    | Dirent
    | Extent
    | Chunk
    | Session
    | Server
    | Orphan
    | Trash
    | Writers
    | Lock
    | Landed
    | Meta
    | Quota
)
Key = tuple[Any, ...]  # ints and byte strings, as `Table.key` says


class Table(Struct, frozen=True):
    """Shape of a table: `key` gives SQLite types of partition and sort key."""

    name: str
    key: tuple[type[int | bytes], ...]
    item: type


class Index(Struct, frozen=True):
    """Secondary index: entries (value of `attribute`, *key of the item).

    Kept in the same transaction as the table. Items in which the attribute is
    0 or missing are left out (a sparse index, in DynamoDB's words).
    """

    name: str
    table: str
    attribute: str


INODES = "inodes"
DIRENTS = "dirents"
EXTENTS = "extents"
CHUNKS = "chunks"
SESSIONS = "sessions"
SERVERS = "servers"
ORPHANS = "orphans"
TRASH = "trash"
WRITERS = "writers"
LOCKS = "locks"
LANDED = "landed"
META = "meta"
QUOTAS = "quotas"

TABLES = {
    table.name: table
    for table in (
        Table(INODES, (int,), Inode),
        Table(DIRENTS, (int, bytes), Dirent),
        Table(EXTENTS, (int, int), Extent),
        Table(CHUNKS, (int,), Chunk),
        Table(SESSIONS, (int,), Session),
        Table(SERVERS, (int,), Server),
        Table(ORPHANS, (int,), Orphan),
        Table(TRASH, (int,), Trash),
        Table(WRITERS, (int,), Writers),
        Table(LOCKS, (int, int), Lock),
        Table(LANDED, (int, int), Landed),
        Table(META, (bytes,), Meta),
        Table(QUOTAS, (int,), Quota),
    )
}

LINKS_BY_INO = "links_by_ino"
EXTENTS_BY_HANDLE = "extents_by_handle"
CHUNKS_BY_STATE = "chunks_by_state"
CHUNKS_BY_SESSION = "chunks_by_session"

INDEXES = {
    index.name: index
    for index in (
        Index(LINKS_BY_INO, DIRENTS, "ino"),
        Index(EXTENTS_BY_HANDLE, EXTENTS, "handle"),
        Index(CHUNKS_BY_STATE, CHUNKS, "state"),
        Index(CHUNKS_BY_SESSION, CHUNKS, "session"),
    )
}
