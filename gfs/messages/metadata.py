"""Client -> master: sessions and reads; master -> client: invalidation and recall."""

from __future__ import annotations

from msgspec import field

from gfs.ids import ROOT_INO
from gfs.messages.base import Access, Actor, Entry, LaidOut, ListedName, Located, Message


class OpenSession(Message):
    """Begin (`session` 0) or take up again a session -> `SessionOpened`.

    After a reconnection the client declares what it holds, and that replaces what
    it held before; until it has, the master answers no mutation that these could
    conflict with. `unanswered`: numbers of mutations that it will send again. `wish`: it is
    to do no more than this; `root`: of a session taken up, as `SessionOpened` gave it.
    """

    session: int
    host: str
    mount: str
    pid: int
    uid: int
    directories: list[int] = field(default_factory=list)  # interest
    opens: list[int] = field(default_factory=list)  # inodes open, each once
    writers: list[int] = field(default_factory=list)  # inodes with uncommitted content
    unanswered: list[int] = field(default_factory=list)
    wish: Access | None = None
    root: int = 0
    locks: list[int] = field(default_factory=list)  # tickets held or asked for; others are let go


class SessionOpened(Message):
    """The session's number and what the client must know of the cluster.

    `limits`: what the master's exports and the client's wish leave of its rights, the wish
    last; none is all. `root`: inode that is the session's root, 0 that of the filesystem;
    in everything else that is said it is inode 1.
    """

    session: int
    epoch: int
    lease_s: float  # cache lease: nothing cached longer than this since the renewal was sent
    chunk_bytes: int
    cluster: str
    position: int
    goal: int
    notice: str = ""  # of a shadow: how far behind its answers may be
    limits: list[Access] = field(default_factory=list)
    root: int = 0


class Renew(Message):
    """Extend the cache lease -> `Renewed`; sent each third of it.

    `low` as in `Mutate`: the log need not be kept for what an idle session had answered.
    """

    low: int = 0


class Renewed(Message):
    epoch: int
    position: int


class CloseSession(Message):
    """End the session: its opens, writers and private chunks go -> `Ok`."""


class Lookup(Message):
    """`name` in directory `parent` -> `Entry`; "." and ".." too. Registers interest in `parent`."""

    parent: int
    name: bytes
    actor: Actor


class GetAttributes(Message):
    """-> `Entries`, in the order asked; a vanished inode has `ino` 0. Recalls writers elsewhere."""

    inos: list[int]
    actor: Actor


class Entries(Message):
    position: int
    entries: list[Entry]


class AccessTime(Message):
    """Inode `ino` was read at `atime_ns`.

    `seen_ns`: the access time that it had for the reader; None: any that is earlier.
    """

    ino: int
    seen_ns: int | None
    atime_ns: int


class NoteAccess(Message):
    """What was read, each once, a thousand at most -> `Entries`, of those that have changed.

    Left out are what is gone, what the actor may not read, and what has another access time
    than the reader saw. Not numbered: asked again it changes nothing more.
    """

    times: list[AccessTime]
    actor: Actor


class ReadDirectory(Message):
    """Names of `ino` in byte order after `after` (b"" = from the start) -> `Listing`.

    "." and ".." are not among them. `plus` adds inodes and registers interest.
    """

    ino: int
    after: bytes
    limit: int
    plus: bool
    actor: Actor


class Listing(Message):
    position: int
    entries: list[ListedName]
    more: bool


class Open(Message):
    """Open a file or directory; `flags` as open(2) -> `Opened`.

    Checks permission, recalls writers elsewhere, registers the session as
    holder (and as writer, unless O_RDONLY). O_TRUNC needs permission to write and is
    not acted on: the client sends `SetAttributes` in its name. Not logged: undone by
    `CloseFiles`, or the session's end. Until then the session may open it read-only again
    without a word, while it may trust its attributes.
    """

    ino: int
    flags: int
    actor: Actor


class Opened(Message):
    """`extents` and `chunks` are the whole layout if it has at most 64 extents, else
    `complete` is False and `GetLayout` is asked as one reads."""

    entry: Entry
    extents: list[LaidOut]
    chunks: list[Located]
    complete: bool
    shared: bool  # another session writes it too: write through at close
    room: int = -1  # bytes that quotas allow to be added to it; -1: no limit


class CloseFiles(Message):
    """Inodes this session has no open handle of any more, nor keeps open -> `Ok`.

    `written` = those of which it is no writer any more (all commits answered).
    """

    inos: list[int]
    written: list[int]


class GetLayout(Message):
    """Extents that overlap [offset, offset + length) -> `Layout`."""

    ino: int
    offset: int
    length: int
    actor: Actor


class Layout(Message):
    """Extents of a range as of `position`, and where their chunks are."""

    position: int
    data_version: int
    size: int
    extents: list[LaidOut]
    chunks: list[Located]


class Locate(Message):
    """Where chunks are now (after a replica failed) -> `Locations`."""

    handles: list[int]


class Locations(Message):
    chunks: list[Located]


class Walk(Message):
    """Resolve a path from `start` with the permissions of the actor -> `Walked`.

    `follow` says whether a symbolic link in last place is followed. A missing
    last component is not an error: `entry.ino` is 0. `top`: the root, of which ".." is
    itself; a confined session's is set by the master.
    """

    path: bytes
    follow: bool
    actor: Actor
    start: int = ROOT_INO
    top: int = ROOT_INO


class Walked(Message):
    """`parent` and `name` of the last component ("" for the root)."""

    parent: int
    name: bytes
    entry: Entry


class PathOf(Message):
    """A path of an inode by its least (parent, name) -> `PathIs`; for messages and views.

    From `top`, as of `Walk`: by the least names that lead up to it.
    """

    ino: int
    top: int = ROOT_INO


class PathIs(Message):
    path: bytes


class StatFilesystem(Message):
    """Space for what is stored at or below inode `ino`, whose quotas count -> `FilesystemStat`."""

    ino: int = ROOT_INO


class FilesystemStat(Message):
    """Bytes as a user can store them: divided by the goal, and no more than quotas allow.

    Trash counts as used, but not in quotas: its space is there ten minutes after it is purged,
    not when it is written to; and only a walk could tell how much a tree in it holds.
    Below quotas the total is the lowest limit, what is used the use of the nearest that has one,
    what is free what fits below all of them.

    Attributes:
      files_free: -1: as many as one likes.
      used_bytes: -1: no quota counts; all is used that is not free.
    """

    total_bytes: int
    free_bytes: int
    files: int
    chunk_bytes: int
    files_free: int = -1
    used_bytes: int = -1


class GetQuota(Message):
    """The quotas that count a file, or what lies in a directory, nearest first -> `Quotas`."""

    ino: int


class ListQuotas(Message):
    """All quotas whose directory's number is above `after` -> `Quotas`; root only."""

    actor: Actor
    after: int = 0
    limit: int = 1000


class QuotaUse(Message):
    """A quota and what is used of it; a limit of 0 is none.

    `bytes_grace_s`, `files_grace_s`: seconds until the soft limit is as hard (0: it is),
    -1: it is not exceeded. `counting`: what lies there is still being counted, so the figures
    may be too low.
    """

    ino: int
    path: bytes  # "" if no path leads there (it is in the trash)
    bytes_max: int
    bytes_soft: int
    files_max: int
    files_soft: int
    used_bytes: int
    used_files: int
    bytes_grace_s: float
    files_grace_s: float
    counting: bool


class Quotas(Message):
    quotas: list[QuotaUse]
    more: bool = False


class DropInterest(Message):
    """The client caches nothing of these directories any more -> `Ok`."""

    directories: list[int]


class Barrier(Message):
    """Recall what mounts and primaries hold back, log it -> `BarrierDone`.

    What was acknowledged to anybody before the question then lies at or below
    the position: a view that has reached it misses nothing (`--wait`).
    """


class BarrierDone(Message):
    epoch: int
    position: int


class ListTrash(Message):
    """-> `TrashListing`; root sees all, others their own."""

    actor: Actor
    after: int = 0
    limit: int = 1000


class TrashEntry(Message):
    """One thing that was deleted; `kind` = type bits of its mode."""

    ino: int
    path: bytes
    deleted_ns: int
    uid: int
    size: int
    kind: int


class TrashListing(Message):
    """`after`: to go on with; those between may all have been another's."""

    entries: list[TrashEntry]
    more: bool
    after: int = 0


class LookInTrash(Message):
    """What lies at `part`, a path below trash entry `ino` -> `Entry`.

    Refused as `NotFound` when there is nothing.
    """

    ino: int
    part: bytes
    actor: Actor


class ListSnapshots(Message):
    """-> `SnapshotListing`: what `gfs snapshot` has made, where the actor can get to it.

    Below `top`, as of `Walk`, and with paths from there.
    """

    actor: Actor
    top: int = ROOT_INO


class SnapshotEntry(Message):
    """A snapshot, and where it is now. `kind` = type bits of its mode."""

    ino: int
    path: bytes
    created_ns: int
    kind: int


class SnapshotListing(Message):
    entries: list[SnapshotEntry]


class ClusterStatus(Message):
    """-> `Status`, JSON as `gfs status --json` prints it."""


class Status(Message):
    json: bytes


class CheckFilesystem(Message):
    """fsck at the master: namespace, chunk table and reports compared -> `Status`.

    With `deep`, chunk servers verify every block of every replica first. With `repair`, what
    can be mended without losing anything is.
    """

    deep: bool = False
    repair: bool = False


class NamePair(Message):
    parent: int
    name: bytes


class Invalidate(Message):
    """Drop these from every cache, the kernel's included -> `Ok` once that is certain.

    Replies as of a position below `position` about these keys must not be
    cached when they arrive later.
    """

    position: int
    names: list[NamePair]
    inos: list[int]  # attributes
    contents: list[int]  # inodes whose data_version rose
    moved: list[int] = field(default_factory=list)  # content as before, extents are not


class Recall(Message):
    """Flush and commit what is held back of these inodes (empty = everything) -> `Ok`.

    `kept`: not content, but opens that outlast the last close: of those that no handle is left
    of `CloseFiles` comes before the answer.
    """

    inos: list[int]
    kept: bool = False
