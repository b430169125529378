"""A master's directory that holds the tree: records in its log, applied as a master applies them.

Times are as an unpacked archive has them: old ones of content, while all was made an hour
ago, one after the other. Files are as truncate(1) makes them: a size, and no content. A
checkpoint is made of it, and the log before it is dropped, as it would be once the state is
older than the log that is kept.
"""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from msgspec.structs import replace

from bench.views.tree import Node, nodes
from gfs.disk import PosixDisk
from gfs.ids import MIB, ROOT_INO, draw
from gfs.items import INODES, Dirent, Inode
from gfs.records import AnyChange, DirentChange, InodeChange, Record, RecordActor
from master.core.transaction import apply
from master.ledger import Ledger

GROUP = 500
DIRECTORY, FILE = stat.S_IFDIR | 0o755, stat.S_IFREG | 0o644
SAMPLE_MAX = 100_000  # files that mutations are made on
NS = 1_000_000_000
MADE_AGO_NS = 3600 * NS
STEP_NS = 100_000


@dataclass
class Made:
    """What there is, for those who change it: inode numbers and names."""

    directories: list[int] = field(default_factory=list)
    files: list[tuple[int, bytes, int]] = field(default_factory=list)  # parent, name, inode


class _Maker:
    def __init__(self, ledger: Ledger) -> None:
        root = ledger.state.get(INODES, (ROOT_INO,))
        assert isinstance(root, Inode)
        self.ledger = ledger
        self.made = Made()
        self.records: list[Record] = []
        self._number = 0
        self._inodes: list[Inode] = []  # of directories
        self._root = root
        self._now_ns = time.time_ns()

    def add(self, node: Node, *, sampled: bool) -> None:
        """One record more, applied."""
        self._number += 1
        ino = draw(self.ledger.epoch, self._number)
        parent = self.made.directories[node.parent] if node.parent >= 0 else int(ROOT_INO)
        at_ns = self._now_ns - node.age_s * NS
        mode = DIRECTORY if node.is_directory else FILE
        made_ns = self._now_ns - MADE_AGO_NS + self._number * STEP_NS
        inode = Inode(mode, node.uid, node.uid, 1, max(node.size, 0), at_ns, at_ns, made_ns)
        inode.created_ns = made_ns
        changes: list[AnyChange] = [
            InodeChange((ino,), None, inode),
            DirentChange((parent, node.name), None, Dirent(ino, stat.S_IFMT(mode))),
        ]
        if node.is_directory:
            inode.nlink, inode.parent = 2, parent
            changes.append(self._one_more_in(node.parent, parent))
            self.made.directories.append(ino)
            self._inodes.append(inode)
        elif sampled:
            self.made.files.append((parent, node.name, ino))
        position = self.ledger.position + len(self.records) + 1
        actor = RecordActor(node.uid, node.uid, 1, "bench", "")
        name = "mkdir" if node.is_directory else "create"
        record = Record(position, self.ledger.epoch, self._now_ns, name, actor, changes)
        apply(record, self.ledger.state)
        self.records.append(record)

    def _one_more_in(self, number: int, ino: int) -> InodeChange:
        old = self._inodes[number] if number >= 0 else self._root
        new = replace(old, nlink=old.nlink + 1, version=old.version + 1)
        if number >= 0:
            self._inodes[number] = new
        else:
            self._root = new
        return InodeChange((ino,), old, new)

    def commit(self) -> None:
        self.ledger.commit_now(self.records)
        self.records = []


def make_state(directory: Path, cluster: str, files: int) -> Made:
    """Log, state and checkpoint of a master in `directory`."""
    ledger = Ledger(
        directory, PosixDisk(), cluster, segment_bytes=64 * MIB, uid=os.getuid(), gid=os.getgid()
    )
    maker = _Maker(ledger)
    every = max(1, files // SAMPLE_MAX)
    ledger.begin()
    for number, node in enumerate(nodes(files)):
        maker.add(node, sampled=number % every == 0)
        if len(maker.records) >= GROUP:
            maker.commit()
            ledger.begin()
            if ledger.log.needs_preparation:
                ledger.log.prepare()
    maker.commit()
    ledger.state.checkpoint_wal()
    command = [sys.executable, "-m", "master.checkpoint"]
    command += [str(ledger.state.path), str(ledger.checkpoints)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    ledger.log.truncate_before(ledger.position + 1)
    ledger.close()
    return maker.made
