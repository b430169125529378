"""Client -> master: mutations, each one record of the operation log."""

from __future__ import annotations

from msgspec import field

from gfs.ids import ROOT_INO
from gfs.messages.base import Actor, Entry, LaidOut, Lease, Message


class Create(Message):
    """New regular file, opened for `flags` -> `Done` with its entry.

    The name exists: `AlreadyExists` if `flags` has O_EXCL, else the existing file
    is opened (permission checked, `Done.created` False).
    """

    parent: int
    name: bytes
    mode: int
    flags: int


class MakeNode(Message):
    """mkdir and mknod: `mode` carries the type bits."""

    parent: int
    name: bytes
    mode: int
    rdev: int = 0


class MakeSymlink(Message):
    parent: int
    name: bytes
    target: bytes


class MakeLink(Message):
    ino: int
    parent: int
    name: bytes


class Unlink(Message):
    """Remove a name that is no directory; the last one may go to trash."""

    parent: int
    name: bytes


class RemoveDirectory(Message):
    parent: int
    name: bytes


class RemoveTree(Message):
    """`gfs rm -r`: one dirent moves to trash; undeletable whole."""

    parent: int
    name: bytes


class Rename(Message):
    """`flags`: RENAME_NOREPLACE 1, RENAME_EXCHANGE 2, others refused."""

    parent: int
    name: bytes
    new_parent: int
    new_name: bytes
    flags: int = 0


class SetAttributes(Message):
    """chmod, chown, truncate, utimens at once; None = leave.

    Times are nanoseconds; `now` in place of a time means the master's clock.
    """

    ino: int
    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    size: int | None = None
    atime_ns: int | None = None
    mtime_ns: int | None = None
    atime_now: bool = False
    mtime_now: bool = False
    handle_open_for_write: bool = False  # ftruncate: the permission was checked at open


class SetXattr(Message):
    """`flags`: XATTR_CREATE 1, XATTR_REPLACE 2."""

    ino: int
    name: bytes
    value: bytes
    flags: int = 0


class RemoveXattr(Message):
    ino: int
    name: bytes


class Snapshot(Message):
    """A copy of file or tree `ino` that shares its content -> `Done` with `root`, `copied`.

    Root's keeps owners; others' belongs to them, and they must be able to read all of it.
    """

    ino: int
    parent: int
    name: bytes


class Clone(Message):
    """`Snapshot` of a regular file, and of nothing else."""

    ino: int
    parent: int
    name: bytes


class Undelete(Message):
    """Trash entry `ino` back to its path, or to `path` -> `Done`, entry of what came back.

    With `part`, a path below the entry, only what lies there. Missing parents are made; a
    taken name gets the suffix ``.undeleted-N``. With `parent`, a directory, `path` is the
    name that it is to have there, and a taken one is refused as `AlreadyExists`. `top`: where
    a path begins, as of `Walk`.
    """

    ino: int
    path: bytes = b""
    part: bytes = b""
    parent: int = 0
    top: int = ROOT_INO


class EmptyTrash(Message):
    """Reclaim these entries (a thousand at most); big ones go on shrinking by themselves."""

    inos: list[int]


class Allocate(Message):
    """A new private chunk leased to this session -> `Done` with `lease`."""

    goal: int = 0  # 0 = the cluster's


class FileCommit(Message):
    """Content of one file that now lies in chunks, in write order.

    `data_version_seen` >= 0 makes it conditional (after a lost session).
    `mtime_ns` 0 = leave (a later utimens came). `promised`: there are bytes in it whose writer
    has closed the file when no quota was near, and cannot be told any more: none refuses them.
    """

    ino: int
    ranges: list[LaidOut]
    mtime_ns: int
    data_version_seen: int = -1
    promised: bool = False


class Commit(Message):
    """Batch of content commits -> `Done` with `committed`, one a file; refusals per file.

    size = max(size, end of the range): never an absolute size.
    """

    files: list[FileCommit]


class OpenTail(Message):
    """The file's tail chunk for record appends, made when there is none -> `Done`, `tail`."""

    ino: int
    writer: int


class ResolveTail(Message):
    """In doubt about (`handle`, `version`): seal it and say what landed -> `Done`, `tail`.

    Also right when the chunk is sealed already, full, or simply re-leased.
    """

    ino: int
    writer: int
    handle: int
    version: int
    suspects: list[int] = field(default_factory=list)  # servers the client saw failing


class SealChunk(Message):
    """Seal a private chunk of this session (full, or a member failed) -> `Done`, `sealed`."""

    handle: int
    version: int
    suspects: list[int] = field(default_factory=list)


class SetQuota(Message):
    """Limits on what lies below directory `ino`; None = leave, 0 = none. Root only.

    Bytes as in `st_blocks`, files = inodes of every kind.
    """

    ino: int
    bytes_max: int | None = None
    bytes_soft: int | None = None
    files_max: int | None = None
    files_soft: int | None = None


class ClearQuota(Message):
    """Directory `ino` has no quota any more. Root only."""

    ino: int


Operation = (
    Create
    | MakeNode
    | MakeSymlink
    | MakeLink
    | Unlink
    | RemoveDirectory
    | RemoveTree
    | Rename
    | SetAttributes
    | SetXattr
    | RemoveXattr
    | Snapshot
    | Clone
    | Undelete
    | EmptyTrash
    | Allocate
    | Commit
    | OpenTail
    | ResolveTail
    | SealChunk
    | SetQuota
    | ClearQuota
)


class Mutate(Message):
    """A mutation, numbered by its session from 1 -> `Done`.

    Sent again with the same number after a lost connection it gives the first
    outcome. `low` = lowest number whose answer the session still waits for.

    `fences`: inode and number of locks on which it depends, whoever holds them; if one
    is not held any more it is refused as `LockLost`.
    """

    number: int
    low: int
    actor: Actor
    operation: Operation
    fences: list[tuple[int, int]] = field(default_factory=list)


class Committed(Message):
    """`code` "" = done; else an error code of gfs.errors for this file alone.

    `room`: bytes that quotas allow to be added after it; -1: none limits the file.
    """

    ino: int
    code: str
    entry: Entry | None
    room: int = -1


class Tail(Message):
    """State of record append on a file for one writer.

    `last` = this writer's last sequence that landed in the chunk asked about
    (0 = none). `lease` is where to append from now on, at file offset
    `file_offset` + position in the chunk. Sequences count from 1 in a new chunk;
    in the same chunk they go on after `last`. `refused`: error code; nothing may be
    appended any more, and `lease` names no chunk.
    """

    last: int
    lease: Lease
    file_offset: int
    refused: str = ""


class Sealed(Message):
    """Final length of the chunk; ranges that end above it must be written elsewhere."""

    handle: int
    length: int


class Done(Message):
    """A mutation is in the operation log on disk, at `position`."""

    position: int
    entry: Entry | None = None  # what was made or changed
    parents: list[Entry] = field(default_factory=list)  # directories it changed
    created: bool = True
    lease: Lease | None = None
    committed: list[Committed] = field(default_factory=list)
    tail: Tail | None = None
    sealed: Sealed | None = None
    root: int = 0  # what a snapshot or clone made, and of how many inodes it is
    copied: int = 0
    room: int = -1  # bytes that quotas allow to be added to a created file or tail; -1: no limit


class GroupsNeeded(Message):
    """Refused unless supplementary groups allow it: ask again with `Actor.groups` set."""
