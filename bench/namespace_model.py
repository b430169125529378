"""A small model of the namespace that writes true records: input for stream and views.

It keeps inodes and dirents in dictionaries, and each operation returns the record
that a master would log, with old and new images. Tests compare views with it, the
benchmark of the stream makes long logs with it.
"""

from __future__ import annotations

import random
import stat
from pathlib import Path

from msgspec import structs

from gfs.disk import PosixDisk
from gfs.ids import ROOT_INO, TRASH_INO
from gfs.items import Dirent, Inode
from gfs.records import ENCODER, AnyChange, DirentChange, InodeChange, Record, RecordActor
from master.log import SEGMENT_BYTES, OperationLog
from master.log_reader import CommittedPosition

EPOCH = 3
FIRST_INO = EPOCH << 40
SUFFIXES = ("log", "txt", "py", "tar.gz", "JPG", "", "data", "parquet")
WORDS = ("alpha", "beta", "gamma", "delta", "report", "capture", "naïve", "x\udcff", "Σίσυφος")


class NamespaceModel:
    """Namespace plus a clock that moves by `step_ns` each record."""

    def __init__(self, *, start_ns: int = 1_700_000_000_000_000_000, step_ns: int = 1_000_000):
        self.inodes: dict[int, Inode] = {}
        self.dirents: dict[tuple[int, bytes], Dirent] = {}
        self.links: dict[int, set[tuple[int, bytes]]] = {}
        self.children: dict[int, dict[bytes, int]] = {}
        self.position = 0
        self.now_ns = start_ns
        self.step_ns = step_ns
        self._next_ino = FIRST_INO
        self._pending: list[AnyChange] = []
        self.actor = RecordActor(1000, 1000, 42, "host", "/mnt/gfs")

    # Building blocks.

    def _inode(self, ino: int, new: Inode | None) -> None:
        old = self.inodes.get(ino)
        self._pending.append(InodeChange((ino,), old, new))
        if new is None:
            del self.inodes[ino]
        else:
            self.inodes[ino] = new

    def _dirent(self, parent: int, name: bytes, new: Dirent | None) -> None:
        key = (parent, name)
        old = self.dirents.get(key)
        self._pending.append(DirentChange(key, old, new))
        if old is not None:
            self.links[old.ino].discard(key)
            del self.dirents[key]
            self.children[parent].pop(name)
        if new is not None:
            self.dirents[key] = new
            self.links.setdefault(new.ino, set()).add(key)
            self.children.setdefault(parent, {})[name] = new.ino

    def _touch(self, ino: int, **values: object) -> None:
        old = self.inodes[ino]
        new = structs.replace(old, ctime_ns=self.now_ns, version=old.version + 1, **values)
        self._inode(ino, new)

    def _touch_parent(self, ino: int, links: int = 0) -> None:
        if ino in self.inodes:
            self._touch(ino, mtime_ns=self.now_ns, nlink=self.inodes[ino].nlink + links)

    def _record(self, operation: str) -> Record:
        self.position += 1
        self.now_ns += self.step_ns
        changes, self._pending = self._pending, []
        return Record(self.position, EPOCH, self.now_ns, operation, self.actor, changes, 7)

    def _new(self, mode: int, **values: object) -> int:
        self._next_ino += 1
        now, who = self.now_ns, self.actor
        inode = Inode(mode, who.uid, who.gid, 1, 0, now, now, now, created_ns=now)
        self._inode(self._next_ino, structs.replace(inode, **values))
        return self._next_ino

    # Operations.

    def format(self) -> Record:
        """The first record: root and trash."""
        now = self.now_ns
        for ino in (ROOT_INO, TRASH_INO):
            inode = Inode(stat.S_IFDIR | 0o755, 0, 0, 2, 0, now, now, now, parent=int(ino))
            self._inode(int(ino), inode)
            self.children[int(ino)] = {}
        return self._record("format")

    def create(self, parent: int, name: bytes, mode: int = stat.S_IFREG | 0o644) -> Record:
        """A file, directory or whatever `mode` says."""
        directory = stat.S_ISDIR(mode)
        more: dict[str, object] = {"parent": parent, "nlink": 2} if directory else {}
        ino = self._new(mode, **more)
        if directory:
            self.children[ino] = {}
        self._dirent(parent, name, Dirent(ino, stat.S_IFMT(mode)))
        self._touch_parent(parent, int(directory))
        return self._record("mkdir" if directory else "create")

    def mkdir(self, parent: int, name: bytes) -> Record:
        """A directory."""
        return self.create(parent, name, stat.S_IFDIR | 0o755)

    def commit(self, ino: int, size: int) -> Record:
        """Content of a file grew to `size`."""
        old = self.inodes[ino]
        stored = max(old.stored, size)
        self._touch(
            ino,
            size=size,
            stored=stored,
            mtime_ns=self.now_ns,
            data_version=old.data_version + 1,
        )
        return self._record("commit")

    def set(self, ino: int, **values: object) -> Record:
        """chmod, chown, utimens, setxattr."""
        self._touch(ino, **values)
        return self._record("set_attributes")

    def link(self, ino: int, parent: int, name: bytes) -> Record:
        """One more name for a file."""
        self._dirent(parent, name, Dirent(ino, stat.S_IFMT(self.inodes[ino].mode)))
        self._touch(ino, nlink=self.inodes[ino].nlink + 1)
        self._touch_parent(parent)
        return self._record("link")

    def unlink(self, parent: int, name: bytes) -> Record:
        """Remove a name; the last one takes the inode with it."""
        ino = self.dirents[parent, name].ino
        self._dirent(parent, name, None)
        inode = self.inodes[ino]
        directory = inode.is_directory
        if directory or inode.nlink == 1:
            self._inode(ino, None)
        else:
            self._touch(ino, nlink=inode.nlink - 1)
        self._touch_parent(parent, -int(directory))
        return self._record("rmdir" if directory else "unlink")

    def rename(self, parent: int, name: bytes, new_parent: int, new_name: bytes) -> Record:
        """Move a name; what was there before goes."""
        dirent = self.dirents[parent, name]
        replaced = self.dirents.get((new_parent, new_name))
        self._dirent(parent, name, None)
        self._dirent(new_parent, new_name, dirent)
        if replaced is not None:
            gone = self.inodes[replaced.ino]
            if gone.nlink == 1 or gone.is_directory:
                self._inode(replaced.ino, None)
                self.children.pop(replaced.ino, None)
            else:
                self._touch(replaced.ino, nlink=gone.nlink - 1)
        directory = stat.S_ISDIR(dirent.kind)
        self._touch(dirent.ino, **({"parent": new_parent} if directory else {}))
        self._touch_parent(parent, -int(directory))
        if new_parent != parent:
            self._touch_parent(new_parent, int(directory))
        return self._record("rename")

    def exchange(self, first: tuple[int, bytes], second: tuple[int, bytes]) -> Record:
        """RENAME_EXCHANGE."""
        one, two = self.dirents[first], self.dirents[second]
        self._dirent(*first, two)
        self._dirent(*second, one)
        for key, new in ((first, two), (second, one)):
            if stat.S_ISDIR(new.kind):
                self._touch(new.ino, parent=key[0])
        return self._record("rename")

    # What tests ask.

    def path(self, ino: int) -> bytes:
        """Path by the least link; directories have one."""
        parts: list[bytes] = []
        while ino not in (ROOT_INO, TRASH_INO):
            parent, name = min(self.links[ino])
            parts.append(name)
            ino = parent
        return b"/" + b"/".join(reversed(parts))

    def is_below(self, ino: int, above: int) -> bool:
        """Whether directory `ino` is `above` or lies in it."""
        while ino != above and ino not in (ROOT_INO, TRASH_INO):
            ino = min(self.links[ino])[0]
        return ino == above


def random_step(model: NamespaceModel, rng: random.Random) -> Record:
    """One operation on a random part of the model, weighted like real work."""
    directories = list(model.children)
    names = list(model.dirents)
    live = [ino for ino in directories if ino != TRASH_INO]
    parent = rng.choice(live)
    roll = rng.random()
    if roll < 0.35 or len(names) < 5:
        kind = stat.S_IFREG | rng.choice((0o644, 0o600, 0o755, 0o4755))
        if rng.random() < 0.25:
            kind = stat.S_IFDIR | 0o755
        name = random_name(rng)
        return (
            model.set(parent, atime_ns=model.now_ns)
            if ((parent, name) in model.dirents)
            else model.create(parent, name, kind)
        )
    key = rng.choice(names)
    ino = model.dirents[key].ino
    inode = model.inodes[ino]
    if roll < 0.55:
        if inode.is_file:
            return model.commit(ino, inode.size + rng.randrange(1, 100_000))
        return model.set(ino, uid=rng.randrange(1000, 1004))
    if roll < 0.65:
        values: dict[str, object] = {"uid": rng.randrange(1000, 1004)}
        if rng.random() < 0.5:
            values = {"attributes": {b"user.tag": rng.choice((b"a", b"\0\xff"))}}
        return model.set(ino, **values)
    if roll < 0.72 and inode.is_file:
        name = random_name(rng)
        if (parent, name) not in model.dirents:
            return model.link(ino, parent, name)
    if roll < 0.85:
        return _random_rename(model, rng, key, parent)
    if inode.is_directory and model.children[ino]:
        if roll < 0.93:
            return model.set(ino, mtime_ns=model.now_ns)
        name = b"%d" % ino
        if (TRASH_INO, name) in model.dirents or model.is_below(ino, TRASH_INO):
            return model.set(ino, mtime_ns=model.now_ns)
        return model.rename(*key, int(TRASH_INO), name)
    if inode.is_directory:
        del model.children[ino]
    return model.unlink(*key)


def _random_rename(
    model: NamespaceModel, rng: random.Random, key: tuple[int, bytes], parent: int
) -> Record:
    ino = model.dirents[key].ino
    name = random_name(rng)
    target = model.dirents.get((parent, name))
    directory = model.inodes[ino].is_directory
    into_itself = directory and model.is_below(parent, ino)
    plain = not directory and target is not None and not stat.S_ISDIR(target.kind)
    if plain and target is not None and target.ino != ino and rng.random() < 0.5:
        return model.rename(*key, parent, name)
    if target is not None and target.ino != ino and not into_itself:
        above = model.inodes[target.ino].is_directory and model.is_below(key[0], target.ino)
        if not above:
            return model.exchange(key, (parent, name))
    if target is None and not into_itself:
        return model.rename(*key, parent, name)
    return model.set(ino, mtime_ns=model.now_ns)


def random_name(rng: random.Random) -> bytes:
    """A name of a few dozen that occur, so that collisions happen."""
    suffix = rng.choice(SUFFIXES)
    name = rng.choice(WORDS) + str(rng.randrange(8)) + ("." + suffix if suffix else "")
    return name.encode("utf-8", "surrogateescape")


class ModelLog:
    """An operation log on disk that records of a model are appended to."""

    def __init__(
        self, directory: Path, cluster_id: str = "model", *, segment_bytes: int = SEGMENT_BYTES
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory / "log"
        self.committed_path = directory / "committed"
        self.log = OperationLog(
            self.directory, PosixDisk(), cluster_id, segment_bytes=segment_bytes
        )
        self.log.recover(0)
        self.committed = CommittedPosition(self.committed_path, create=True)

    def append(self, records: list[Record], *, publish: bool = True) -> None:
        """Log, sync and publish a group."""
        self.log.append(EPOCH, [(one.position, ENCODER.encode(one)) for one in records])
        self.log.sync()
        if publish:
            self.committed.publish(records[-1].position, EPOCH)

    def close(self) -> None:
        """Close the files."""
        self.log.close()
        self.committed.close()
