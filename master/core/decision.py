"""What every decision on a mutation has at hand, and how it asks for more time.

A decision either returns an answer, its writes being in the transaction; or
raises a refusal; or raises `Suspend`: something must happen first (a tail
sealed, a writer recalled, servers come), after which the machine decides the
same request anew, from nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from msgspec.structs import replace

from gfs.errors import AlreadyExists, InvalidArgument, NameTooLong, NotADirectory, StaleInode
from gfs.ids import DOT_GFS, NAME_BYTES_MAX, ROOT_INO, TRASH_INO
from gfs.items import DIRENTS, INODES, Dirent, Inode
from gfs.messages import Actor, Done, Entry
from gfs.records import Copy
from master.core.realms import Realms
from master.core.registry import Registry
from master.core.transaction import Transaction


@dataclass(frozen=True)
class Policy:
    """The settings that decisions depend on; units in the names."""

    chunk_bytes: int
    goal: int
    write_min: int
    trash_min_age_ns: int
    reclaim_delay_ns: int
    trash_keep_ns: int
    trash_min_free_percent: int = 10  # below, trash goes before its time
    repair_delay_s: float = 10.0
    repair_streams: int = 3
    rebalance_bytes_per_s: int = 16 << 20
    rebalance_band: float = 0.1
    scattered_extents: int = 512
    scattered_mean_bytes: int = 64 << 10
    quota_grace_ns: int = 604_800_000_000_000  # seven days over a soft limit


class Suspend(Exception):
    """Not yet: base of the reasons a request waits."""


class NeedsSeal(Suspend):
    """The open chunk must be sealed first."""

    def __init__(self, handle: int, suspects: tuple[int, ...] = ()) -> None:
        super().__init__(handle)
        self.handle = handle
        self.suspects = suspects


class NeedsSeals(Suspend):
    """All these tails below `source` must be sealed, and none opened there meanwhile."""

    def __init__(self, source: int, handles: list[int]) -> None:
        super().__init__(source)
        self.source = source
        self.handles = handles


class NeedsRecall(Suspend):
    """Other sessions hold content back, or `kept` opens: `inos` by session."""

    def __init__(self, inos: dict[int, list[int]], *, kept: bool = False) -> None:
        super().__init__(inos)
        self.inos = inos
        self.kept = kept


# (session, inode) pairs that a request has recalled. Once is enough: what they write
# later was not there when the request came, and waiting for it could go on for ever.
Recalled = AbstractSet[tuple[int, int]]


def require_recalled(
    registry: Registry, session: int, inos: Iterable[int], recalled: Recalled
) -> None:
    """Raises NeedsRecall unless what other sessions hold back of these has come in."""
    missing: dict[int, list[int]] = {}
    for ino in inos:
        for other in registry.other_writers(ino, session):
            if (other, ino) not in recalled:
                missing.setdefault(other, []).append(ino)
    if missing:
        raise NeedsRecall(missing)


class NeedsCuts(Suspend):
    """More lies beyond `size` than one record should give back: it is cut piece by piece first."""

    def __init__(self, ino: int, size: int) -> None:
        super().__init__(ino)
        self.ino = ino
        self.size = size


class NeedsServers(Suspend):
    """Too few chunk servers are up."""


@dataclass
class Decision:
    """One mutation being decided.

    `position` is the one its record will have; `draw_ino` (the first of so many) and
    `draw_handle` give numbers never given before. `uncache` gathers inodes whose attributes
    other sessions must stop caching before the answer.
    """

    tx: Transaction
    now_ns: int
    now_s: float
    position: int
    epoch: int
    session: int
    actor: Actor
    registry: Registry
    policy: Policy
    draw_ino: Callable[[int], int]
    draw_handle: Callable[[], int]
    realms: Realms
    uncache: list[int] = field(default_factory=list)
    recalled: Recalled = frozenset()
    copy: Copy | None = None  # what the record makes beside its changes
    copied_bytes: int = 0  # stored, of what `copy` makes
    charged: dict[int, list[int]] = field(default_factory=dict)  # quota -> bytes, files allowed

    def open_here(self, ino: int, *, writing: bool) -> None:
        """Register the session as holder; others stop caching what it now writes."""
        if self.registry.add_open(self.session, ino, writing=writing):
            self.uncache.append(ino)

    def recall_others(self, ino: int) -> None:
        """Raises NeedsRecall unless what others hold back of the file has come in."""
        require_recalled(self.registry, self.session, (ino,), self.recalled)

    def break_kept(self, ino: int) -> None:
        """Raises NeedsRecall until others have told that it is closed, where it is.

        Before a file loses its last name, for then it matters who really has it open. The
        session that asks has given up its own.
        """
        others = self.registry.other_holders(ino, self.session)
        missing = sorted(other for other in others if (other, ino) not in self.recalled)
        if missing:
            raise NeedsRecall({other: [ino] for other in missing}, kept=True)

    def inode(self, ino: int) -> Inode:
        """Raises StaleInode when nothing has this number."""
        found: Inode | None = self.tx.get(INODES, (ino,))
        if found is None:
            raise StaleInode(f"inode {ino} does not exist")
        return found

    def directory(self, ino: int) -> Inode:
        """Raises StaleInode, NotADirectory."""
        found = self.inode(ino)
        if not found.is_directory:
            raise NotADirectory("not a directory")
        if ino == TRASH_INO:
            raise StaleInode("the trash is reached by undelete alone")
        return found

    def dirent(self, parent: int, name: bytes) -> Dirent | None:
        found: Dirent | None = self.tx.get(DIRENTS, (parent, name))
        return found

    def put_inode(self, ino: int, inode: Inode) -> None:
        self.tx.put(INODES, (ino,), inode)

    def touch_directory(self, ino: int, inode: Inode, links: int = 0) -> None:
        """Its names changed; `links` = change of subdirectory count."""
        self.put_inode(
            ino,
            replace(
                inode,
                mtime_ns=self.now_ns,
                ctime_ns=self.now_ns,
                nlink=inode.nlink + links,
                version=inode.version + 1,
            ),
        )

    def entry(self, ino: int) -> Entry:
        """The inode as it is now in this transaction."""
        self.registry.shown(self.session, ino)
        inode: Inode | None = self.tx.get(INODES, (ino,))
        if inode is None:
            return Entry(self.position, 0, None)
        cacheable = inode.tail == 0 and not self.registry.other_writers(ino, self.session)
        return Entry(self.position, ino, inode, cacheable)

    def done(self, ino: int = 0, parents: tuple[int, ...] = (), *, created: bool = True) -> Done:
        """The answer: entry of `ino` (0 = none) and of the directories changed."""
        return Done(
            self.position,
            self.entry(ino) if ino else None,
            [self.entry(parent) for parent in parents],
            created,
        )


def check_name(name: bytes) -> None:
    """Raises NameTooLong, InvalidArgument for what no directory may hold."""
    if len(name) > NAME_BYTES_MAX:
        raise NameTooLong(f"name of {len(name)} bytes, at most {NAME_BYTES_MAX}")
    if not name or name in (b".", b"..") or b"/" in name or b"\0" in name:
        raise InvalidArgument("not a name")


def is_reserved(parent: int, name: bytes) -> bool:
    """Is it the name under which mounts show what is their own?"""
    return parent == ROOT_INO and name == DOT_GFS


def check_new_name(parent: int, name: bytes) -> None:
    """Raises NameTooLong, InvalidArgument, AlreadyExists for what may not be made there."""
    check_name(name)
    if is_reserved(parent, name):
        raise AlreadyExists("the name belongs to the filesystem itself")
