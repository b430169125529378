"""A new cluster's first items, and a master's first record after each start."""

from __future__ import annotations

import stat

from gfs.ids import ROOT_INO, TRASH_INO
from gfs.items import INODES, META, Inode, Meta
from gfs.records import InodeChange, MetaChange, Record, RecordActor
from master.core.tables import ReadTables

EPOCH_KEY = (b"epoch",)
LOST_KEY = (b"lost-before-epoch",)  # what was heard in epochs below it may be gone on purpose


def next_epoch(tables: ReadTables) -> int:
    """Each start of a master is a new epoch; numbers drawn in it are new."""
    known: Meta | None = tables.get(META, EPOCH_KEY)
    return int(known.value) + 1 if known is not None else 1


def first_record(
    tables: ReadTables,
    *,
    position: int,
    now_ns: int,
    uid: int,
    gid: int,
    epoch: int = 0,
    loses: bool = False,
) -> Record:
    """Opens the epoch (0: the next one); in an empty cluster also makes the root and the trash.

    `loses`: an operator has given up records that only a lost master had, so others
    may have heard of positions that this history does not know.
    """
    old: Meta | None = tables.get(META, EPOCH_KEY)
    epoch = epoch or next_epoch(tables)
    changes: list[InodeChange | MetaChange] = [MetaChange(EPOCH_KEY, old, Meta(epoch))]
    if loses:
        lost: Meta | None = tables.get(META, LOST_KEY)
        changes.append(MetaChange(LOST_KEY, lost, Meta(epoch)))
    if tables.get(INODES, (ROOT_INO,)) is None:
        for ino, mode in ((ROOT_INO, 0o755), (TRASH_INO, 0o700)):
            root = Inode(
                stat.S_IFDIR | mode, uid, gid, 2, 0, now_ns, now_ns, now_ns, created_ns=now_ns
            )
            root.parent = ROOT_INO if ino == ROOT_INO else TRASH_INO
            changes.append(InodeChange((ino,), None, root))
    return Record(position, epoch, now_ns, "start", RecordActor(), list(changes))
