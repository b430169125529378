"""Thousands of random namespace operations by two sessions against a tree of dicts.

The model knows nothing of inodes' numbers, positions or records: it is what a user
would see. At the end, and after restarts in between, every path, kind, link count and
size must agree, the tables with each other, and a replay with the tables.
"""

from __future__ import annotations

import os
import random
from dataclasses import dataclass, field

import pytest

from gfs import errors
from gfs import messages as m
from gfs.ids import ROOT_INO
from tests.unit.master.core.conftest import MakeCluster
from tests.unit.master.core.harness import Client, Cluster

NAMES = [b"a", b"b", b"c", b"\xff", b"e"]


@dataclass(eq=False)
class Node:
    """A file (children None) or directory of the model."""

    children: dict[bytes, Node] | None = None
    links: int = 1
    size: int = 0

    @property
    def is_directory(self) -> bool:
        return self.children is not None

    def all(self) -> list[Node]:
        below = [node for child in (self.children or {}).values() for node in child.all()]
        return [self, *below]


@dataclass
class World:
    """The model and what the master has."""

    c: Cluster
    clients: list[Client]
    numbers: random.Random
    root: Node = field(default_factory=lambda: Node({}))
    inos: dict[Node, int] = field(default_factory=dict)
    outcomes: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.inos[self.root] = ROOT_INO

    def directories(self) -> list[Node]:
        return [node for node in self.root.all() if node.is_directory]

    def place(self) -> tuple[Node, bytes, Node | None]:
        parent = self.numbers.choice(self.directories())
        assert parent.children is not None
        name = self.numbers.choice(NAMES)
        return parent, name, parent.children.get(name)

    def run(self, operation: m.Message, expected: type[errors.GfsError] | None) -> m.Done | None:
        """One operation by one of the sessions; the outcome must be the model's."""
        key = f"{type(operation).__name__} {expected.__name__ if expected else 'done'}"
        self.outcomes[key] = self.outcomes.get(key, 0) + 1
        client = self.numbers.choice(self.clients)
        call = client.start(operation)
        if expected is None:
            return call.done
        with pytest.raises(expected):
            _ = call.answer
        return None

    def step(self) -> None:
        kinds = [self.create, self.mkdir, self.link, self.unlink, self.rmdir, self.rename]
        weights = [6, 4, 3, 3, 2, 6]
        self.numbers.choices([*kinds, self.truncate], [*weights, 2])[0]()

    def create(self) -> None:
        parent, name, present = self.place()
        error = errors.AlreadyExists if present else None
        flags = os.O_RDWR | os.O_EXCL
        done = self.run(m.Create(self.inos[parent], name, 0o644, flags), error)
        if done is not None:
            self.add(parent, name, Node(), done)

    def mkdir(self) -> None:
        parent, name, present = self.place()
        error = errors.AlreadyExists if present else None
        done = self.run(m.MakeNode(self.inos[parent], name, 0o040755), error)
        if done is not None:
            self.add(parent, name, Node({}), done)

    def add(self, parent: Node, name: bytes, node: Node, done: m.Done) -> None:
        assert parent.children is not None
        assert done.entry is not None
        parent.children[name] = node
        self.inos[node] = done.entry.ino
        for client in self.clients:
            if not node.is_directory:
                client.close_file(done.entry.ino)

    def link(self) -> None:
        files = [node for node in self.root.all() if not node.is_directory]
        if not files:
            return
        node = self.numbers.choice(files)
        parent, name, present = self.place()
        error = errors.AlreadyExists if present else None
        if self.run(m.MakeLink(self.inos[node], self.inos[parent], name), error):
            assert parent.children is not None
            parent.children[name] = node
            node.links += 1

    def unlink(self) -> None:
        parent, name, present = self.place()
        error: type[errors.GfsError] | None = None
        if present is None:
            error = errors.NotFound
        elif present.is_directory:
            error = errors.IsADirectory
        if self.run(m.Unlink(self.inos[parent], name), error):
            self.drop(parent, name)

    def drop(self, parent: Node, name: bytes) -> None:
        assert parent.children is not None
        parent.children.pop(name).links -= 1

    def rmdir(self) -> None:
        parent, name, present = self.place()
        error: type[errors.GfsError] | None = None
        if present is None:
            error = errors.NotFound
        elif not present.is_directory:
            error = errors.NotADirectory
        elif present.children:
            error = errors.NotEmpty
        if self.run(m.RemoveDirectory(self.inos[parent], name), error):
            self.drop(parent, name)

    def truncate(self) -> None:
        files = [node for node in self.root.all() if not node.is_directory]
        if files:
            node, size = self.numbers.choice(files), self.numbers.randrange(1000)
            self.run(m.SetAttributes(self.inos[node], size=size), None)
            node.size = size

    def rename(self) -> None:
        parent, name, source = self.place()
        new_parent, new_name, target = self.place()
        flags = self.numbers.choice([0, 0, 0, 1, 2])
        error = self.rename_error(source, new_parent, target, parent, flags)
        operation = m.Rename(self.inos[parent], name, self.inos[new_parent], new_name, flags)
        if not self.run(operation, error) or source is target:
            return
        assert parent.children is not None
        assert new_parent.children is not None
        assert source is not None
        if flags == 2:
            assert target is not None
            parent.children[name] = target
        else:
            del parent.children[name]
            if target is not None:
                target.links -= 1
        new_parent.children[new_name] = source

    def rename_error(
        self, source: Node | None, new_parent: Node, target: Node | None, parent: Node, flags: int
    ) -> type[errors.GfsError] | None:
        if source is None:
            return errors.NotFound
        if source.is_directory and new_parent in source.all():
            return errors.InvalidArgument
        if flags == 2:
            if target is None:
                return errors.NotFound
            below = target.is_directory and target is not source and parent in target.all()
            return errors.InvalidArgument if below else None
        if target is None:
            return None
        if flags == 1:
            return errors.AlreadyExists
        if target is source:
            return None
        if source.is_directory != target.is_directory:
            return errors.NotADirectory if source.is_directory else errors.IsADirectory
        return errors.NotEmpty if target.children else None

    def compare(self) -> None:
        client = self.clients[0]
        for node in self.root.all():
            ino = self.inos[node]
            inode = client.inode(ino)
            if node.children is None:
                assert (inode.nlink, inode.size) == (node.links, node.size)
                continue
            assert client.names(ino) == sorted(node.children)
            subdirectories = sum(child.is_directory for child in node.children.values())
            assert inode.nlink == 2 + subdirectories
            for name, child in node.children.items():
                assert client.lookup(name, ino).ino == self.inos[child]


@pytest.mark.parametrize("seed", range(3))
def test_two_sessions_see_what_a_dict_tree_would_hold(make_cluster: MakeCluster, seed: int) -> None:
    c = make_cluster(seed=seed)
    world = World(c, [c.client("/a"), c.client("/b")], random.Random(seed))
    for number in range(900):
        world.step()
        if number % 300 == 299:
            c.restart()
            world.compare()
    assert len(world.outcomes) > 15, world.outcomes
