"""`gfs snapshot` and `gfs clone`: whether a tree or a file may be copied, and when (GFS §3.4).

The copy is one cut of the tree: everything that was acknowledged before its record is in
it, nothing half. So what mounts hold back of the files below is called in first; then
every open tail below is sealed, and none is opened there until the record is written
(`Preparing`), else appenders would go on in one file while another's tail is sealed.

Who is not root needs to read every file and directory below, else nothing is copied.

Departs from GFS §3.4: no chunk is copied before the next write to it, because a write
never changes a chunk that is there; and tails are sealed where GFS revokes leases.
"""

from __future__ import annotations

import itertools
import stat
from collections import defaultdict
from collections.abc import Callable

from msgspec.structs import replace

from gfs.errors import (
    AlreadyExists,
    InvalidArgument,
    NotPermitted,
    StaleInode,
    TimedOut,
    TooLarge,
)
from gfs.ids import ROOT_INO
from gfs.items import DIRENTS, INODES, LINKS_BY_INO, Dirent, Inode
from gfs.messages import Clone, Done, Message, OpenTail, ResolveTail, Snapshot
from gfs.permissions import EXECUTE, READ, ROOT_UID, WRITE, NeedGroups
from gfs.records import Copy
from master.core import snapshot_marks
from master.core.copying import Below
from master.core.decision import Decision, NeedsSeals, check_new_name, require_recalled
from master.core.engine import Engine, Pending
from master.core.permissions import require
from master.core.tables import ReadTables

INODES_MAX = 250_000  # the master does nothing else meanwhile, about 25 us an inode
WAIT_S = 30.0  # for tails to be sealed; appenders below wait as long
_DEPTH_MAX = 4096


def snapshot(decision: Decision, op: Snapshot | Clone) -> Done:
    """A copy of `op.ino` under a free name; the answer's entry is its root.

    Raises:
      NeedsRecall, NeedsSeals: what is on its way to the files below comes first.
      PermissionDenied: something below may not be read.
      TooLarge: more than `INODES_MAX` inodes.
    """
    source = decision.inode(op.ino)
    if isinstance(op, Clone) and not source.is_file:
        raise InvalidArgument("not a regular file")
    directory = decision.directory(op.parent)
    check_new_name(op.parent, op.name)
    _require_place(decision, op, source, directory)
    below = Below(decision.tx.before, op.ino, source.mode)
    if len(below.inos) > INODES_MAX:
        raise TooLarge(f"{len(below.inos)} files and directories, at most {INODES_MAX}")
    _require_quiet(decision, op.ino, below)
    copy = _copy_of(decision, op, below)
    tx = decision.tx
    tx.put(DIRENTS, (op.parent, op.name), Dirent(copy.root, stat.S_IFMT(source.mode)))
    decision.touch_directory(op.parent, directory, links=int(source.is_directory))
    if isinstance(op, Snapshot):
        snapshot_marks.note(decision, copy.root, op.ino)
    decision.copy = copy
    return replace(decision.done(0, (op.parent,)), copied=copy.count, root=copy.root)


def _require_place(
    decision: Decision, op: Snapshot | Clone, source: Inode, directory: Inode
) -> None:
    """The name is free, may be made, and lies outside of the source."""
    require(directory, decision.actor, EXECUTE)
    if decision.dirent(op.parent, op.name) is not None:
        raise AlreadyExists("file exists")
    require(directory, decision.actor, WRITE | EXECUTE)
    tables = decision.tx.before
    if _leads_to(tables, op.parent, {op.ino}):
        raise InvalidArgument("a tree cannot hold its own copy")
    for ino in (op.ino, op.parent):
        if not _leads_to(tables, ino, {int(ROOT_INO)}):
            raise StaleInode("the file or directory has been removed")


def _leads_to(tables: ReadTables, ino: int, tops: set[int]) -> bool:
    """Does any path from `ino` upwards meet one of `tops`?"""
    if ino in tops:
        return True
    for key in tables.by_index(LINKS_BY_INO, ino):
        here = int(key[0])
        for _ in range(_DEPTH_MAX):
            if here in tops:
                return True
            inode: Inode | None = tables.get(INODES, (here,))
            if inode is None or here == inode.parent or not inode.parent:
                break
            here = inode.parent
    return False


def _require_quiet(decision: Decision, source: int, below: Below) -> None:
    """Raises NeedsRecall unless what other sessions hold back of the files has come in."""
    asked = (0, source) in decision.recalled  # those who wrote since had no bytes then
    if not asked and decision.registry.writers:
        written = decision.registry.writers.keys() & below.link_counts.keys()
        require_recalled(decision.registry, decision.session, sorted(written), decision.recalled)


def _copy_of(decision: Decision, op: Snapshot | Clone, below: Below) -> Copy:
    """The record's part, after a look at every inode."""
    tables, actor, source = decision.tx.before, decision.actor, op.ino
    owners: defaultdict[int, list[int]] = defaultdict(lambda: [0, 0])
    kept = actor.uid == ROOT_UID
    tails, stored = [], 0
    for _, inode in itertools.chain.from_iterable(below.inodes(tables)):
        if not kept:
            _require_readable(decision, inode)
        if inode.tail:
            tails.append(inode.tail)
        sums = owners[inode.uid if kept else actor.uid]
        sums[0] += 1
        sums[1] += inode.size
        stored += inode.stored
    if tails:
        raise NeedsSeals(source, tails)
    if actor.groups is None and not kept:
        raise NeedGroups  # files keep them
    count = len(below.inos)
    first = decision.draw_ino(count)
    root = first + below.inos.index(source)
    copy = Copy(source, op.parent, op.name, root, first, count)
    decision.copied_bytes = stored
    copy.owners = {uid: (inodes, size) for uid, (inodes, size) in owners.items()}
    if not kept:
        copy.uid, copy.gid = actor.uid, actor.gid
        copy.groups = sorted({*(actor.groups or ()), actor.gid})
    return copy


def _require_readable(decision: Decision, inode: Inode) -> None:
    if inode.is_directory:
        require(inode, decision.actor, READ | EXECUTE)
    elif inode.is_file:
        require(inode, decision.actor, READ)
    elif stat.S_ISCHR(inode.mode) or stat.S_ISBLK(inode.mode):
        raise NotPermitted("only root makes device nodes")


class Preparing:
    """Copies that wait for tails below their source to be sealed.

    Until such a copy is decided no tail is opened there: who wants one waits with it,
    `WAIT_S` at most.
    """

    def __init__(
        self,
        engine: Engine,
        when_sealed: Callable[[int, Callable[[int], None]], None],
        resume: Callable[[Pending], None],
    ) -> None:
        self._engine = engine
        self._when_sealed = when_sealed
        self._resume = resume
        self._waiting: dict[int, tuple[Pending, int, float]] = {}  # by id of the request
        self._held: list[Pending] = []  # tails to be opened

    def wait(self, pending: Pending, why: NeedsSeals) -> None:
        """Seal these tails, then decide `pending` anew."""
        until_s = pending.asked_s + WAIT_S
        pending.recalled.add((0, why.source))
        self._waiting[id(pending)] = pending, why.source, until_s
        left = set(why.handles)

        def sealed(handle: int, position: int) -> None:
            if position:
                pending.positions.add(position)
            left.discard(handle)
            if not left and id(pending) in self._waiting:
                self._resume(pending)

        for handle in sorted(why.handles):
            self._when_sealed(handle, lambda position, handle=handle: sealed(handle, position))  # type: ignore[misc]

    def holds(self, pending: Pending, operation: Message) -> bool:
        """Keep the request back if it opens a tail below a copy that is being prepared."""
        if not self._waiting or not isinstance(operation, OpenTail | ResolveTail):
            return False
        tops = {source for _, source, _ in self._waiting.values()}
        if not _leads_to(self._engine.tables, operation.ino, tops):
            return False
        self._held.append(pending)
        return True

    def over(self, pending: Pending) -> None:
        """The request was answered: who waited with it goes on."""
        if self._waiting.pop(id(pending), None) is not None:
            held, self._held = self._held, []
            for one in held:
                self._resume(one)

    def overdue(self) -> list[tuple[Pending, TimedOut]]:
        """Copies whose tails nobody could seal in time, and what to answer them."""
        return [
            (pending, TimedOut("the servers of a file that is appended to do not answer"))
            for pending, _, until_s in self._waiting.values()
            if self._engine.now_s >= until_s
        ]

    def has_due_work(self, now_s: float) -> bool:
        """Is `overdue` worth a step now?"""
        return any(now_s >= until_s for _, _, until_s in self._waiting.values())
