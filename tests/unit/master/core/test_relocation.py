"""Bytes are brought together without a file ever changing."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from gfs import messages as m
from gfs.ids import ROOT_INO
from gfs.items import CHUNKS, EXTENTS, ChunkState, Extent
from master.checking import pages
from master.core import relocating
from master.core.relocating import LARGE_BYTES, Places, Range, joined, window
from tests.unit.master.core.conftest import MakeCluster
from tests.unit.master.core.harness import Client, Cluster

SETTLED_S = 605.0
FOUND_S = 5.0  # a file in many pieces need not wait: nobody asks what landed in a private chunk


@pytest.fixture
def c(make_cluster: MakeCluster) -> Cluster:
    return make_cluster(servers=4, safe_start_s=0.0)


def extents(c: Cluster, ino: int) -> list[tuple[int, int, int, int]]:
    """(file offset, length, handle, chunk offset) of a file."""
    found = c.tables.range(EXTENTS, ino)
    return [(key[1], e.length, e.handle, e.chunk_offset) for key, e in found]


def half_dead(c: Cluster, a: Client, name: bytes = b"f") -> tuple[int, int]:
    """A file of 100 bytes at 500 of a sealed chunk of 1000 that nobody else uses; its handle."""
    f, other = a.create(name), a.create(b"other")
    lease = a.allocate()
    c.append(lease, 1000)
    a.commit(f, (0, 100, lease.handle, 500))
    a.commit(other, (0, 500, lease.handle, 0))
    a.do(m.SealChunk(lease.handle, lease.version))
    a.close_file(f)
    a.close_file(other)
    a.do(m.Unlink(ROOT_INO, b"other"))
    return f, lease.handle


def test_live_bytes_leave_a_chunk_that_is_mostly_dead_and_it_goes(c: Cluster, a: Client) -> None:
    f, old = half_dead(c, a)
    before = c.item(f)
    c.pass_time(SETTLED_S)
    [(offset, length, new, at)] = extents(c, f)
    assert (offset, length, at) == (0, 100, 0)
    assert new != old
    assert c.chunk(new).length == 100
    assert c.chunk(new).checksum != 0
    assert len(c.core.engine.servers.holders(new)) == 3
    assert c.chunk(old).state is ChunkState.CONDEMNED
    after = c.item(f)
    assert before is not None
    assert after is not None
    assert after.data_version == before.data_version
    c.pass_time(SETTLED_S)
    assert c.tables.get(CHUNKS, (old,)) is None


def test_small_tails_become_one_chunk(c: Cluster, a: Client) -> None:
    files = []
    for number in range(5):
        f = a.create(b"log%d" % number)
        lease = a.open_tail(f).lease
        c.append(lease, 10, writer=7, sequence=1)
        files.append(f)
        a.commit(f, (100, 1, _one_byte(c, a), 0))  # seals the tail
        a.close_file(f)
    c.pass_time(SETTLED_S + 5)
    homes = {handle for f in files for offset, _, handle, _ in extents(c, f) if not offset}
    assert len(homes) == 1
    assert c.chunk(homes.pop()).length >= 50


def _one_byte(c: Cluster, a: Client) -> int:
    lease = a.allocate()
    c.append(lease, 1)
    return lease.handle


def scattered(c: Cluster, a: Client, name: bytes, count: int) -> tuple[int, list[int]]:
    """A file whose pieces of 10 bytes lie in two sealed chunks in turn."""
    f = a.create(name)
    leases = [a.allocate(), a.allocate()]
    for lease in leases:
        c.append(lease, 10 * count)
    pieces = [(10 * n, 10, leases[n % 2].handle, 10 * n) for n in range(count)]
    a.commit(f, *pieces)
    for lease in leases:
        a.do(m.SealChunk(lease.handle, lease.version))
    return f, [lease.handle for lease in leases]


def test_a_file_in_many_pieces_becomes_one(c: Cluster, a: Client) -> None:
    f, _ = scattered(c, a, b"f", 600)
    assert len(extents(c, f)) == 600
    c.pass_time(SETTLED_S)
    [(offset, length, _, at)] = extents(c, f)
    assert (offset, length, at) == (0, 6000, 0)


def test_a_long_file_is_gone_through_to_its_end(
    c: Cluster, a: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More extents than one record takes: each move goes on where the one before has ended."""
    monkeypatch.setattr(relocating, "EXTENTS_MAX", 250)
    f, _ = scattered(c, a, b"f", 600)
    before = c.item(f)
    c.pass_time(2 * FOUND_S)
    assert [one[:2] for one in extents(c, f)] == [(0, 2500), (2500, 2500), (5000, 1000)]
    assert before is not None
    after = c.item(f)
    assert after is not None
    assert after.data_version == before.data_version
    assert c.operations().count("relocate-begin") == 3


def test_pieces_in_an_open_chunk_are_brought_together_too(c: Cluster, a: Client) -> None:
    f, lease = a.create(b"f"), a.allocate()
    count = 600
    c.append(lease, 10 * count)
    order = Random(3).sample(range(count), count)
    a.commit(f, *[(10 * at, 10, lease.handle, 10 * n) for n, at in enumerate(order)])
    c.pass_time(FOUND_S)
    [(offset, length, new, at)] = extents(c, f)
    assert (offset, length, at) == (0, 10 * count, 0)
    assert new != lease.handle
    assert c.chunk(lease.handle).state is ChunkState.OPEN
    c.append(lease, 30)
    a.commit(f, (5, 30, lease.handle, 10 * count))  # its writer goes on there


def test_a_file_that_is_written_all_the_time_rests_between_moves(c: Cluster, a: Client) -> None:
    policy = replace(c.core.engine.policy, rebalance_bytes_per_s=60)
    c.core.engine.policy = policy
    f, lease = a.create(b"f"), a.allocate()
    count = policy.scattered_extents + 88  # 6,000 bytes: a hundred seconds, four hundred of rest
    begun = []
    for number in range(8):
        c.append(lease, 10 * count)
        at = 10 * count * number
        a.commit(f, *[(10 * n, 10, lease.handle, at + 10 * (count - n)) for n in range(1, count)])
        c.pass_time(100.0)
        begun.append(c.operations().count("relocate-begin"))
    assert begun == [1, 1, 1, 1, 2, 2, 2, 2]


def test_large_pieces_stay_where_they_are(c: Cluster, a: Client) -> None:
    large, small = Extent(LARGE_BYTES, 1, 0), Extent(100, 2, 0)
    at, page = 0, []
    for extent in (small, large, small, small, large, small, small, small):
        page.append(((5, at), extent))
        at += extent.length
    page.append(((5, at + 1), small))  # behind a hole, alone
    found = window(page, lambda handle: True, bytes_max=1 << 26)
    starts = [key[1] for key, _ in page]
    assert (found.first, found.last, found.whole) == (0, starts[-1] + small.length - 1, True)
    assert found.ranges == [Range(2, 0, 100)]  # the same bytes all over this file, once
    assert window(page, lambda handle: handle == 1, bytes_max=1 << 26).ranges == []


def test_holes_between_pieces_are_no_reason_to_move_them(c: Cluster, a: Client) -> None:
    f = a.create(b"f")
    lease = a.allocate()
    c.append(lease, 6000)
    a.commit(f, *[(20 * n, 10, lease.handle, 10 * n) for n in range(600)])
    a.do(m.SealChunk(lease.handle, lease.version))
    c.pass_time(SETTLED_S + 20)
    assert "relocate-begin" not in c.operations()


def test_what_is_written_while_a_copy_is_built_stands(c: Cluster, a: Client) -> None:
    f, olds = scattered(c, a, b"f", 600)
    for server in c.servers.values():
        server.hung = True
    c.pass_time(FOUND_S)
    assert c.operations().count("relocate-begin") == 1
    lease = a.allocate()
    for server in c.servers.values():
        server.orders.clear()
    c.append(lease, 30)
    a.commit(f, (1005, 30, lease.handle, 0))
    a.do(m.SetAttributes(f, size=4000))
    for server in c.servers.values():
        server.answer_all()
    found = extents(c, f)
    assert [one[:2] for one in found] == [(0, 1005), (1005, 30), (1035, 2965)]
    assert found[1][2] == lease.handle
    new = found[0][2]
    assert found[2][2:] == (new, 1035)
    assert not set(olds) & {one[2] for one in found}
    c.pass_time(5)


def test_other_mounts_drop_the_layout_and_keep_the_content(
    c: Cluster, a: Client, b: Client
) -> None:
    f, _ = half_dead(c, a)
    b.open_file(f, 0)
    b.told()
    c.pass_time(SETTLED_S)
    told = [one for one in b.told() if one.moved]
    assert [(one.moved, one.contents, one.inos) for one in told] == [([f], [], [])]


def test_a_master_that_dies_in_between_leaves_the_file_as_it_was(c: Cluster, a: Client) -> None:
    f, old = half_dead(c, a)
    for server in c.servers.values():
        server.hung = True
    c.pass_time(SETTLED_S)
    move = c.records()[-1]
    assert move.operation == "relocate-begin"
    new = move.changes[0].key[0]
    for server in c.servers.values():
        server.hung = False
        server.waiting.clear()
    c.restart()
    assert extents(c, f) == [(0, 100, old, 500)]
    c.pass_time(2 * SETTLED_S)
    assert c.chunk(extents(c, f)[0][2]).length == 100  # done again
    assert c.tables.get(CHUNKS, (new,)) is None


def test_a_chunk_that_very_many_refer_to_is_emptied_some_at_a_time(
    c: Cluster, a: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relocating, "EXTENTS_MAX", 20)
    files = 50
    lease = a.allocate()
    c.append(lease, 30 * files)
    inos = [a.create(b"f%d" % n) for n in range(files)]
    for n, ino in enumerate(inos):
        a.commit(ino, (0, 10, lease.handle, 30 * n))
        a.close_file(ino)
    a.do(m.SealChunk(lease.handle, lease.version))
    c.pass_time(SETTLED_S + 10)
    homes = {extents(c, ino)[0][2] for ino in inos}
    assert lease.handle not in homes
    assert sum(c.chunk(handle).length for handle in homes) == 10 * files
    assert c.chunk(lease.handle).state is ChunkState.CONDEMNED


def test_without_enough_copies_nothing_is_swapped(c: Cluster, a: Client) -> None:
    f, old = half_dead(c, a)
    c.pass_time(SETTLED_S - 10)
    for server in c.servers.values():
        server.hung = True
    c.pass_time(15)
    for server in list(c.servers.values())[1:]:
        server.waiting.clear()
        server.stop()
    c.server(1).answer_all()
    assert extents(c, f) == [(0, 100, old, 500)]


def test_ranges_are_joined_and_found_again() -> None:
    ranges = [Range(1, 5, 10), Range(1, 0, 5), Range(2, 0, 4), Range(1, 20, 30), Range(1, 22, 25)]
    assert joined(ranges) == [Range(1, 0, 10), Range(1, 20, 30), Range(2, 0, 4)]
    places = Places(joined(ranges))
    assert places.length == 24
    assert places.find(Extent(3, 1, 22)) == 12
    assert places.find(Extent(4, 2, 0)) == 20
    assert places.find(Extent(11, 1, 0)) is None
    assert places.find(Extent(2, 3, 0)) is None


@pytest.mark.parametrize("seed", range(8))
def test_every_byte_of_every_file_stays_the_byte_it_was(
    make_cluster: MakeCluster, seed: int
) -> None:
    """Random files over random chunks: a byte is known by where it was written first."""
    random = Random(seed)
    c = make_cluster(servers=4, seed=seed, safe_start_s=0.0)
    a = c.client("/a")
    leases = [a.allocate() for _ in range(6)]
    for lease in leases:
        c.append(lease, 5000)
    files = [a.create(b"f%d" % n) for n in range(5)]
    for _ in range(60):
        length = random.randrange(1, 60)
        lease = random.choice(leases)
        at = random.randrange(5000 - length)
        a.commit(random.choice(files), (random.randrange(2000), length, lease.handle, at))
    for lease in leases:
        a.do(m.SealChunk(lease.handle, lease.version))

    def content(home: dict[int, Places]) -> list[tuple[int, int, int, int]]:
        """(inode, file offset, chunk, offset) of each byte, moves undone."""
        return sorted(
            (key[0], key[1] + n, *_home(home, extent.handle, extent.chunk_offset + n))
            for key, extent in pages(c.tables, EXTENTS)
            for n in range(extent.length)
        )

    before = content({})
    c.pass_time(SETTLED_S + 60)
    assert c.core.fleet.relocation.swapped_total > 0
    assert content(_moves(c)) == before


def _moves(c: Cluster) -> dict[int, Places]:
    """New chunk -> what it was built of, from the orders."""
    orders = [
        order
        for server in c.servers.values()
        for order in server.orders
        if isinstance(order, m.BuildReplica)
    ]
    return {
        order.handle: Places(Range(p.handle, p.offset, p.offset + p.length) for p in order.pieces)
        for order in orders
    }


def _home(moves: dict[int, Places], handle: int, offset: int) -> tuple[int, int]:
    while handle in moves:
        for one in moves[handle].ranges:
            if offset < one.length:
                handle, offset = one.handle, one.start + offset
                break
            offset -= one.length
    return handle, offset
