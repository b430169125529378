"""Extents against a plain byte array: whatever is committed, cut and left out.

Chunks are byte arrays too, so reading a file is done as a client does it: by its
extents. After each step the counts of references and stored bytes must be the sums
over all extents, and a sealed chunk is condemned exactly when its last reference went.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gfs import messages as m
from gfs.checksum import DIGEST_UNKNOWN, digest_of
from gfs.ids import ROOT_INO
from gfs.items import CHUNKS, EXTENTS, ChunkState
from tests.unit.master.core.harness import CHUNK, Client, Cluster, file_commit

SIZE = 400  # small, so that ranges meet


@dataclass
class Model:
    """A file as bytes and the chunks it lies in."""

    c: Cluster
    a: Client
    content: bytearray = field(default_factory=bytearray)
    chunks: dict[int, bytearray] = field(default_factory=dict)
    ino: int = 0
    lease: m.Lease | None = None
    condemned: set[int] = field(default_factory=set)

    def chunk(self) -> m.Lease:
        if self.lease is None:
            self.lease = self.a.allocate()
            self.chunks[self.lease.handle] = bytearray()
        return self.lease

    def write(self, ranges: list[tuple[int, int]], seed: int) -> None:
        """One commit of several ranges, in order; later ones may lie over earlier ones."""
        lease, numbers = self.chunk(), random.Random(seed)
        laid_out = []
        for offset, length in ranges:
            data = numbers.randbytes(length)
            at = self.c.append(lease, length) - length
            self.chunks[lease.handle] += data
            laid_out.append((offset, length, lease.handle, at, digest_of(data)))
            if len(self.content) < offset + length:
                self.content += bytes(offset + length - len(self.content))
            self.content[offset : offset + length] = data
        assert self.a.commit(self.ino, *laid_out).code == ""

    def truncate(self, size: int) -> None:
        self.a.do(m.SetAttributes(self.ino, size=size))
        del self.content[size:]
        self.content += bytes(size - len(self.content))

    def seal(self) -> None:
        if self.lease is not None:
            self.a.do(m.SealChunk(self.lease.handle, self.lease.version))
            self.lease = None

    def read(self) -> bytes:
        layout = self.a.get(m.GetLayout(self.ino, 0, 1 << 40, self.a.actor), m.Layout)
        found = bytearray(layout.size)
        end = 0
        for item in layout.extents:
            assert item.file_offset >= end, "extents overlap or are out of order"
            end = item.file_offset + item.extent.length
            source = self.chunks[item.extent.handle]
            at = item.extent.chunk_offset
            found[item.file_offset : end] = source[at : at + item.extent.length]
        assert end <= layout.size
        return bytes(found)

    def check(self) -> None:
        assert self.read() == bytes(self.content)
        used = dict.fromkeys(self.chunks, 0)
        for _, extent in self.c.tables.range(EXTENTS, self.ino):
            used[extent.handle] += extent.length
            at = extent.chunk_offset
            data = self.chunks[extent.handle][at : at + extent.length]
            assert extent.digest in (DIGEST_UNKNOWN, digest_of(data))
        inode = self.c.item(self.ino)
        assert inode is not None
        assert inode.stored == sum(used.values())
        assert inode.digest in (DIGEST_UNKNOWN, digest_of(self.content))
        for handle, length in used.items():
            chunk = self.c.chunk(handle)
            assert chunk.references == length
            if chunk.state is ChunkState.CONDEMNED:
                self.condemned.add(handle)
            # Once sealed, a chunk that was referenced is condemned when nothing is left.
            assert (handle in self.condemned) == (chunk.state is not ChunkState.OPEN and not length)


@pytest.fixture
def model(c: Cluster, a: Client) -> Model:
    return Model(c, a, ino=a.create(b"f"))


def digest(model: Model) -> int:
    inode = model.c.item(model.ino)
    assert inode is not None
    return inode.digest


def test_a_file_written_in_order_has_the_digest_of_its_bytes(model: Model) -> None:
    for start in range(0, 400, 50):
        model.write([(start, 20), (start + 20, 30)], start)
        assert digest(model) == digest_of(model.content)
        if start == 200:
            model.seal()
    model.truncate(400)
    assert digest(model) == digest_of(model.content)
    model.write([(0, 400)], 1)
    assert digest(model) == digest_of(model.content)
    model.truncate(0)
    assert digest(model) == DIGEST_UNKNOWN
    model.write([(0, 7)], 2)
    assert digest(model) == digest_of(model.content)


def test_a_digest_is_not_known_while_an_extent_is_cut_and_is_again(model: Model) -> None:
    model.write([(0, 100), (100, 100)], 1)
    model.write([(50, 20)], 2)
    assert digest(model) == DIGEST_UNKNOWN
    model.write([(0, 50), (70, 130)], 3)
    assert digest(model) == digest_of(model.content)


def test_holes_and_shorter_files_have_no_digest(model: Model) -> None:
    model.write([(10, 20)], 1)
    assert digest(model) == DIGEST_UNKNOWN
    model.write([(0, 10)], 2)
    assert digest(model) == digest_of(model.content)
    model.truncate(25)
    assert digest(model) == DIGEST_UNKNOWN
    model.truncate(30)
    assert digest(model) == DIGEST_UNKNOWN


def test_appended_records_have_none(c: Cluster, a: Client, model: Model) -> None:
    model.write([(0, 10)], 1)
    tail = a.open_tail(model.ino)
    c.append(tail.lease, 5, writer=7, sequence=1)
    a.do(m.ResolveTail(model.ino, 7, tail.lease.handle, tail.lease.version))
    inode = c.item(model.ino)
    assert inode is not None
    assert (inode.size, inode.digest) == (15, DIGEST_UNKNOWN)


def test_what_is_no_digest_is_refused(c: Cluster, a: Client, model: Model) -> None:
    lease = model.chunk()
    c.append(lease, 10)
    assert a.commit(model.ino, (0, 10, lease.handle, 0, 5)).code == "invalid-argument"
    assert c.item(model.ino).size == 0  # type: ignore[union-attr]


RANGE = st.tuples(st.integers(0, SIZE), st.integers(1, SIZE // 2))
STEP = st.one_of(
    st.tuples(st.just("write"), st.lists(RANGE, min_size=1, max_size=5), st.integers(0, 999)),
    st.tuples(st.just("truncate"), st.integers(0, SIZE + 50)),
    st.tuples(st.just("seal")),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(STEP, max_size=25))
def test_a_file_reads_as_it_was_written_whatever_is_cut(steps: list[tuple[object, ...]]) -> None:
    cluster = Cluster()
    client = cluster.client()
    model = Model(cluster, client, ino=client.create(b"f"))
    touched: set[int] = set()
    for kind, *arguments in steps:
        lease = model.lease
        if kind == "seal" and lease and not cluster.chunk(lease.handle).references:
            continue  # an unreferenced chunk may still be committed into
        getattr(model, str(kind))(*arguments)
        touched.update(model.chunks)
        model.check()
    cluster.check()
    client.close_file(model.ino)
    client.do(m.Unlink(ROOT_INO, b"f"))
    model.seal()
    cluster.check()
    for handle in touched:
        assert cluster.chunk(handle).references == 0
    cluster.tables.close()


def test_a_file_streamed_in_has_one_extent_a_chunk(c: Cluster, a: Client) -> None:
    f = a.create(b"f")
    lease = a.allocate()
    for number in range(20):
        c.append(lease, 1000)
        a.commit(f, (number * 1000, 1000, lease.handle, number * 1000))
    layout = a.get(m.GetLayout(f, 0, 1 << 30, a.actor), m.Layout)
    assert [(item.file_offset, item.extent.length) for item in layout.extents] == [(0, 20_000)]


def test_only_the_extents_asked_for_come(c: Cluster, a: Client) -> None:
    f = a.create(b"f")
    lease = a.allocate()
    c.append(lease, 1000)
    a.commit(f, *((offset * 10, 5, lease.handle, offset * 5) for offset in range(100)))
    layout = a.get(m.GetLayout(f, 103, 18, a.actor), m.Layout)
    assert [item.file_offset for item in layout.extents] == [100, 110, 120]
    assert a.get(m.GetLayout(f, 105, 5, a.actor), m.Layout).extents == []
    assert not a.open_file(f).complete


def test_a_long_extent_is_found_from_its_end(c: Cluster, a: Client) -> None:
    f = a.create(b"f")
    lease = a.allocate()
    c.append(lease, CHUNK)
    a.commit(f, (7, CHUNK, lease.handle, 0))
    layout = a.get(m.GetLayout(f, CHUNK + 6, 1, a.actor), m.Layout)
    assert [item.file_offset for item in layout.extents] == [7]
    assert a.get(m.GetLayout(f, CHUNK + 7, 1, a.actor), m.Layout).extents == []


def test_files_packed_into_one_chunk_let_it_go_with_the_last(c: Cluster, a: Client) -> None:
    lease = a.allocate()
    files = [a.create(b"%d" % number) for number in range(5)]
    c.append(lease, 500)
    batch = [file_commit(ino, (0, 100, lease.handle, at * 100)) for at, ino in enumerate(files)]
    a.do(m.Commit(batch))
    a.do(m.SealChunk(lease.handle, lease.version))
    for number, ino in enumerate(files):
        assert c.chunk(lease.handle).state is ChunkState.SEALED
        a.close_file(ino)
        a.do(m.Unlink(ROOT_INO, b"%d" % number))
    assert c.chunk(lease.handle).state is ChunkState.CONDEMNED


def test_an_open_chunk_without_references_is_not_condemned(c: Cluster, a: Client) -> None:
    f, lease = a.write(b"f", sealed=False)
    a.do(m.SetAttributes(f, size=0))
    assert c.chunk(lease.handle).state is ChunkState.OPEN
    c.append(lease, 100)
    assert a.commit(f, (0, 100, lease.handle, 100)).code == ""


@pytest.mark.parametrize("files", [1, 300])
def test_a_batch_costs_in_proportion_to_its_size(c: Cluster, a: Client, files: int) -> None:
    lease = a.allocate()
    for number in range(files):
        a.send(m.Create(ROOT_INO, b"%d" % number, 0o600, 2))
    c.settle()
    c.append(lease, files * 10)
    inos = [a.lookup(b"%d" % number).ino for number in range(files)]
    done = a.do(
        m.Commit([file_commit(ino, (0, 10, lease.handle, i * 10)) for i, ino in enumerate(inos)])
    )
    assert [one.code for one in done.committed] == [""] * files
    assert len(c.tables.scan(CHUNKS)) == 1
