"""Random creates, writes, appends, renames, links, snapshots, removals and undeletes.

The model is a tree of nodes with bytes in them; a snapshot copies the bytes. After each
step names, links and content are the model's, the tables agree with themselves and
with a replay; at the end the views that followed equal views built from the tables.
"""

from __future__ import annotations

import copy
import os
import random
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from gfs import changes
from gfs import messages as m
from gfs.changes import Line
from gfs.ids import ROOT_INO
from gfs.items import DIRENTS, EXTENTS, INODES, Dirent, Inode
from projections.analytics_view import AnalyticsView
from projections.search_view import SearchView
from projections.storage import DuckStore, SqliteStore, Store
from tests.unit.master.core.harness import POLICY, USER, Cluster
from tests.unit.projections.views import SEARCH_DUMPS, Tables, apply_split, config, load

NAMES = st.sampled_from([b"a", b"b.txt", b"c", b"\xff"])
PICK = st.integers(0, 1 << 20)
WRITER = 7


@dataclass(eq=False)
class Node:
    """A file with bytes or a directory with names."""

    data: bytes = b""
    children: dict[bytes, Node] | None = None

    @property
    def names(self) -> dict[bytes, Node]:
        assert self.children is not None
        return self.children

    def below(self) -> list[Node]:
        found = [self]
        for node in found:
            found += (node.children or {}).values()
        return found


@dataclass
class Content:
    """What chunks hold, and a chunk that takes writes."""

    c: Cluster
    chunks: dict[int, bytes] = field(default_factory=dict)
    fill: int = 0

    def put(self, handle: int, length: int) -> bytes:
        self.fill = self.fill % 255 + 1
        data = bytes((self.fill,)) * length
        self.chunks[handle] = self.chunks.get(handle, b"") + data
        return data

    def of(self, ino: int, inode: Inode) -> bytes:
        """What a reader sees."""
        found = bytearray(inode.size)
        for key, extent in self.c.tables.range(EXTENTS, ino):
            at, chunk = extent.chunk_offset, self.chunks[extent.handle]
            found[key[1] : key[1] + extent.length] = chunk[at : at + extent.length]
        if inode.tail:
            found[inode.tail_offset :] = self.chunks.get(inode.tail, b"")
        return bytes(found)


class Copies(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.c = Cluster(policy=replace(POLICY, trash_min_age_ns=0))
        self.a, self.b = self.c.client("/a"), self.c.client("/b")
        self.content = Content(self.c)
        self.lease = self.a.allocate()
        self.root = Node(children={})
        self.inos: dict[Node, int] = {self.root: ROOT_INO}
        self.trash: dict[int, Node] = {}

    @initialize()
    def plant(self) -> None:
        """Something to copy from the first step on."""
        self.mkdir(0, b"a")
        self.mkdir(1, b"c")
        self.create(1, b"b.txt")
        self.write(0, 3, 9)
        self.link(0, 2, b"a")

    # --- choosing

    def directory(self, pick: int) -> Node:
        found = [node for node in self.root.below() if node.children is not None]
        return found[pick % len(found)]

    def named(self, pick: int) -> tuple[Node, bytes, Node] | None:
        """A directory, and a name in it."""
        found = [
            (node, name, child)
            for node in self.root.below()
            for name, child in (node.children or {}).items()
        ]
        return found[pick % len(found)] if found else None

    def file(self, pick: int) -> Node | None:
        found = [node for node in self.root.below() if node.children is None]
        return found[pick % len(found)] if found else None

    def links(self, node: Node) -> int:
        places = [self.root, *self.trash.values()]
        directories = {at for top in places for at in top.below() if at.children is not None}
        return sum(child is node for at in directories for child in at.names.values())

    # --- rules

    @rule(at=PICK, name=NAMES)
    def create(self, at: int, name: bytes) -> None:
        parent = self.directory(at)
        if name not in parent.names:
            node = parent.names[name] = Node()
            self.inos[node] = self.a.create(name, self.inos[parent])
            self.a.close_file(self.inos[node])

    @rule(at=PICK, name=NAMES)
    def mkdir(self, at: int, name: bytes) -> None:
        parent = self.directory(at)
        if name not in parent.names:
            node = parent.names[name] = Node(children={})
            self.inos[node] = self.a.mkdir(name, self.inos[parent])

    @rule(pick=PICK, offset=st.integers(0, 30), length=st.integers(1, 20))
    def write(self, pick: int, offset: int, length: int) -> None:
        node = self.file(pick)
        if node is None:
            return
        handle = self.lease.handle
        at = len(self.content.chunks.get(handle, b""))
        self.c.append(self.lease, length)
        data = self.content.put(handle, length)
        self.a.open_file(self.inos[node])
        self.a.commit(self.inos[node], (offset, length, handle, at))
        self.a.close_file(self.inos[node])
        old = node.data.ljust(offset, b"\0")
        node.data = old[:offset] + data + old[offset + length :]

    @rule(pick=PICK, length=st.integers(1, 20))
    def append(self, pick: int, length: int) -> None:
        node = self.file(pick)
        if node is None:
            return
        self.b.open_file(self.inos[node], os.O_RDWR | os.O_APPEND)
        lease = self.b.open_tail(self.inos[node], WRITER).lease
        primary = self.c.server(lease.members[0].server).replicas.get(lease.handle)
        sequence = 1 + (primary.writers.get(WRITER, 0) if primary is not None else 0)
        self.c.append(lease, length, writer=WRITER, sequence=sequence)
        node.data += self.content.put(lease.handle, length)
        self.b.close_file(self.inos[node])

    @rule(pick=PICK, at=PICK, name=NAMES)
    def link(self, pick: int, at: int, name: bytes) -> None:
        node, parent = self.file(pick), self.directory(at)
        if node is not None and name not in parent.names:
            self.a.do(m.MakeLink(self.inos[node], self.inos[parent], name))
            parent.names[name] = node

    @rule(pick=PICK, at=PICK, name=NAMES)
    def rename(self, pick: int, at: int, name: bytes) -> None:
        found, parent = self.named(pick), self.directory(at)
        if found is None or name in parent.names or parent in found[2].below():
            return
        self.a.do(m.Rename(self.inos[found[0]], found[1], self.inos[parent], name))
        parent.names[name] = found[0].names.pop(found[1])

    @rule(pick=PICK, at=PICK, name=NAMES, theirs=st.booleans())
    def snapshot(self, pick: int, at: int, name: bytes, theirs: bool) -> None:
        found, parent = self.named(pick), self.directory(at)
        if found is None or name in parent.names or parent in found[2].below():
            return
        if len(found[2].below()) > 12 or len(self.root.below()) > 50:
            return  # copies of copies double
        if theirs:
            self.a.do(m.SetAttributes(self.inos[parent], mode=0o777))
        source = self.inos[found[2]]
        actor = USER if theirs else None
        done = self.b.do(m.Snapshot(source, self.inos[parent], name), actor)
        made = parent.names[name] = copy.deepcopy(found[2])
        assert done.copied == len(set(made.below()))
        self.learn(made, done.root)

    def learn(self, node: Node, ino: int) -> None:
        self.inos[node] = ino
        for name, child in (node.children or {}).items():
            dirent: Dirent | None = self.c.tables.get(DIRENTS, (ino, name))
            assert dirent is not None
            self.learn(child, dirent.ino)

    @rule(pick=PICK, at=PICK, name=NAMES)
    def clone(self, pick: int, at: int, name: bytes) -> None:
        node, parent = self.file(pick), self.directory(at)
        if node is not None and name not in parent.names:
            done = self.a.do(m.Clone(self.inos[node], self.inos[parent], name))
            made = parent.names[name] = Node(node.data)
            self.inos[made] = done.root

    @rule(pick=PICK)
    def remove(self, pick: int) -> None:
        found = self.named(pick)
        if found is None:
            return
        parent, name, node = found
        self.a.do(m.RemoveTree(self.inos[parent], name))
        del parent.names[name]
        if node.children is not None or (node.data and not self.links(node)):
            self.trash[self.inos[node]] = node

    @precondition(lambda self: self.trash)
    @rule(pick=PICK, at=PICK, name=NAMES)
    def undelete(self, pick: int, at: int, name: bytes) -> None:
        ino, parent = sorted(self.trash)[pick % len(self.trash)], self.directory(at)
        if name in parent.names:
            return
        path = self.a.get(m.PathOf(self.inos[parent]), m.PathIs).path
        self.a.do(m.Undelete(ino, path.rstrip(b"/") + b"/" + name))
        parent.names[name] = self.trash.pop(ino)

    @precondition(lambda self: self.trash)
    @rule(pick=PICK, which=PICK, at=PICK, name=NAMES)
    def undelete_a_part(self, pick: int, which: int, at: int, name: bytes) -> None:
        ino, parent = sorted(self.trash)[pick % len(self.trash)], self.directory(at)
        held = self.trash[ino].children
        if not held or name in parent.names:
            return
        part = sorted(held)[which % len(held)]
        path = self.a.get(m.PathOf(self.inos[parent]), m.PathIs).path
        self.a.do(m.Undelete(ino, path.rstrip(b"/") + b"/" + name, part))
        parent.names[name] = held.pop(part)

    @precondition(lambda self: self.trash)
    @rule(pick=PICK)
    def purge(self, pick: int) -> None:
        ino = sorted(self.trash)[pick % len(self.trash)]
        self.a.do(m.EmptyTrash([ino]))
        del self.trash[ino]

    @rule()
    def tails_end(self) -> None:
        """A server comes back: its open chunks are sealed."""
        self.c.server(1).restart()
        self.c.server(1).register()
        self.c.pass_time(1)
        self.lease = self.a.allocate()

    # --- what always holds

    @invariant()
    def the_namespace_is_the_model_s(self) -> None:
        links = dict.fromkeys(self.trash.values(), 1)
        tops = [self.root, *self.trash.values()]
        for node in {at: None for top in tops for at in top.below()}:
            ino = self.inos[node]
            if node.children is None:
                inode = self.c.item(ino)
                assert inode is not None
                assert self.content.of(ino, inode) == node.data
                continue
            found = {key[1]: dirent.ino for key, dirent in self.c.tables.range(DIRENTS, ino)}
            assert found == {name: self.inos[child] for name, child in node.children.items()}
            for child in node.children.values():
                links[child] = links.get(child, 0) + 1
        for node, count in links.items():
            if node.children is None:
                inode = self.c.item(self.inos[node])
                assert inode is not None
                assert inode.nlink == count

    @invariant()
    def tables_agree_with_themselves_and_with_a_replay(self) -> None:
        self.c.check()

    def teardown(self) -> None:
        with tempfile.TemporaryDirectory() as name:
            directory = Path(name)
            for view, extension in ((SearchView, "db"), (AnalyticsView, "duckdb")):
                projection = view(config(directory))
                live = projection.open_store(directory / f"live.{extension}", None)
                apply_split(projection, live, self.c.records(), random.Random(1))
                rebuilt = projection.open_store(directory / f"rebuilt.{extension}", None)
                load(projection, rebuilt, items_as_lines(self.c), random.Random(2))
                assert dump(live) == dump(rebuilt)
                live.close()
                rebuilt.close()
        self.c.tables.close()


def items_as_lines(c: Cluster) -> list[Line]:
    """As `GET /snapshot` gives them."""
    events = [
        changes.snapshot_event(table, key, item, "9-9")
        for table in (INODES, DIRENTS)
        for key, item in c.tables.scan(table, limit=1_000_000)
    ]
    return changes.decode_lines(changes.encode(events))


def dump(store: Store) -> Tables:
    if isinstance(store, SqliteStore):
        rows = store.connection.execute
        names = "INSERT INTO names (names, rank) VALUES ('integrity-check', 1)"
        rows(names)
        return {name: sorted(rows(sql).fetchall()) for name, sql in SEARCH_DUMPS.items()}
    assert isinstance(store, DuckStore)
    return {
        table: sorted(store.connection.execute(f"SELECT * FROM {table}").fetchall())
        for table in ("inodes", "dirents", "xattrs")
    }


def test_random_copies_agree_with_the_model_a_replay_and_the_views() -> None:
    bounds = settings(max_examples=12, stateful_step_count=30, deadline=None)
    run_state_machine_as_test(Copies, settings=bounds)
