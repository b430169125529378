"""Whatever is done, in whatever order, quotas count what a walk over the tree finds.

Two sessions make, write, append, cut, link, move, exchange, copy, remove, bring back and hold files
open, while quotas are set, cleared and counted bit by bit, and the master dies now and then.
A refusal is as good as a success: what is decided is compared with the tables, which are walked
here by names alone, and (in `check`) with a replay of the log.
"""

from __future__ import annotations

import random
import stat
from collections import Counter

import pytest

from gfs import messages as m
from gfs.errors import GfsError, QuotaExceeded
from gfs.ids import ROOT_INO, TRASH_INO
from gfs.items import DIRENTS, INODES, LINKS_BY_INO, QUOTAS, Inode
from master.core import quota_counting
from tests.unit.master.core.conftest import MakeCluster
from tests.unit.master.core.harness import Client, Cluster

NAMES = [b"a", b"b", b"c", b"d"]


class World:
    """One of the sessions does something at random, to what there is."""

    def __init__(self, c: Cluster, seed: int) -> None:
        self.c = c
        self.clients = [c.client("/a"), c.client("/b")]
        self.random = random.Random(seed)
        self.outcomes: Counter[str] = Counter()

    def step(self) -> None:
        r = self.random
        kinds = [self.make, self.write, self.move, self.remove, self.set_quota, self.other]
        operation = r.choices(kinds, [8, 8, 6, 4, 2, 4])[0]
        name = operation.__name__
        try:
            operation(r.choice(self.clients))
        except QuotaExceeded:
            self.outcomes[f"{name} beyond quota"] += 1
        except GfsError:
            self.outcomes[f"{name} refused"] += 1
        else:
            self.outcomes[name] += 1
        if r.random() < 0.1:
            self.c.pass_time(r.choice([0.05, 0.1, 2, 700]))

    # --- what there is

    def inodes(self, *, files: bool) -> list[int]:
        found = self.c.tables.scan(INODES, limit=10_000)
        inos = [int(key[0]) for key, inode in found if inode.is_file == files]
        return [ino for ino in inos if ino != TRASH_INO] or [int(ROOT_INO)]

    def directory(self) -> int:
        return self.random.choice(self.inodes(files=False))

    def file(self) -> int:
        return self.random.choice(self.inodes(files=True))

    def name(self) -> tuple[int, bytes]:
        found = self.c.tables.scan(DIRENTS, limit=10_000)
        names = [key for key, _ in found if key[0] != TRASH_INO]
        if names and self.random.random() < 0.9:
            parent, name = self.random.choice(names)
            return int(parent), bytes(name)
        return self.directory(), self.random.choice(NAMES)

    # --- what is done

    def make(self, a: Client) -> None:
        parent, name = self.directory(), self.random.choice(NAMES)
        if self.random.random() < 0.4:
            a.mkdir(name, parent)
            return
        ino = a.create(name, parent)
        if self.random.random() < 0.7:
            a.close_file(ino)

    def write(self, a: Client) -> None:
        r, ino = self.random, self.file()
        a.open_file(ino)
        if r.random() < 0.25:
            tail = a.open_tail(ino, writer=a.session)
            length, handle = r.randrange(1, 100), tail.lease.handle
            primary = self.c.servers[tail.lease.members[0].server].replicas.get(handle)
            sequence = primary.writers.get(a.session, 0) + 1 if primary is not None else 1
            end = self.c.append(tail.lease, length, writer=a.session, sequence=sequence)
            beat = m.Heartbeat(1 << 30, 1 << 31, [m.TailGrowth(handle, tail.lease.version, end, 0)])
            self.c.step(lambda: self.c.core.fleet.heartbeat(tail.lease.members[0].server, beat))
        else:
            lease, length = a.allocate(), r.randrange(1, 100)
            self.c.append(lease, length)
            done = a.commit(ino, (r.randrange(200), length, lease.handle, 0))
            if done.code == QuotaExceeded.code:
                self.outcomes["commit beyond quota"] += 1
        if r.random() < 0.7:
            a.close_file(ino)

    def move(self, a: Client) -> None:
        parent, name = self.name()
        new_parent, new_name = self.name() if self.random.random() < 0.5 else (
            self.directory(), self.random.choice(NAMES)
        )  # fmt: skip
        a.do(m.Rename(parent, name, new_parent, new_name, self.random.choice([0, 0, 0, 2])))

    def remove(self, a: Client) -> None:
        parent, name = self.name()
        kinds = [m.Unlink, m.Unlink, m.RemoveDirectory, m.RemoveTree]
        a.do(self.random.choice(kinds)(parent, name))

    def set_quota(self, a: Client) -> None:
        r, ino = self.random, self.directory()
        if r.random() < 0.3:
            a.do(m.ClearQuota(ino))
            return
        a.do(m.SetQuota(ino, bytes_max=r.randrange(50, 2000), files_max=r.randrange(3, 40)))

    def other(self, a: Client) -> None:
        r = self.random
        kind = r.randrange(5)
        if kind == 0:
            a.do(m.SetAttributes(self.file(), size=r.randrange(300)))
        elif kind == 1:
            a.do(m.MakeLink(self.file(), self.directory(), r.choice(NAMES)))
        elif kind == 2 and len(self.inodes(files=True)) < 150:
            a.do(m.Snapshot(self.directory(), self.directory(), r.choice(NAMES)))
        elif kind == 3:
            entries = a.get(m.ListTrash(a.actor), m.TrashListing).entries
            if entries:
                one = r.choice(entries).ino
                a.do(m.Undelete(one) if r.random() < 0.7 else m.EmptyTrash([one]))
        else:
            for ino in list(self.c.core.engine.registry.openers):
                a.close_file(ino)

    # --- what should be

    def compare(self) -> int:
        """Everything closed and counted, each quota is as a walk finds it; returns how many."""
        for client in self.clients:
            for ino in list(self.c.core.engine.registry.openers):
                client.close_file(ino)
        self.c.pass_time(5)
        tables = self.c.tables
        quotas = tables.scan(QUOTAS, limit=1000)
        for (ino,), quota in quotas:
            below = self.below(int(ino))
            assert not quota.is_counting
            assert quota.used_files == len(below)
            assert quota.used_bytes == sum(inode.stored for inode in below.values())
        return len(quotas)

    def below(self, top: int) -> dict[int, Inode]:
        """Inodes whose least name is at or below `top`."""
        directories, found = [top], dict[int, Inode]()
        for here in directories:
            for key, dirent in self.c.tables.range(DIRENTS, here):
                least = self.c.tables.by_index(LINKS_BY_INO, dirent.ino, limit=1)[0]
                inode: Inode | None = self.c.tables.get(INODES, (dirent.ino,))
                if least == key and inode is not None:
                    found[dirent.ino] = inode
                if stat.S_ISDIR(dirent.kind):
                    directories.append(dirent.ino)
        return found


@pytest.mark.parametrize("seed", range(2))
def test_quotas_count_what_a_walk_finds(
    make_cluster: MakeCluster, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quota_counting, "WALKED_MAX", 6)
    monkeypatch.setattr(quota_counting, "COUNTED_AT_ONCE", 5)
    c = make_cluster(seed=seed)
    world, compared = World(c, seed), 0
    for number in range(400):
        world.step()
        if number % 200 == 199:
            c.restart()
            compared += world.compare()
    assert compared > 2
    refused = {name for name in world.outcomes if name.endswith("beyond quota")}
    assert len(refused) > 2, world.outcomes
