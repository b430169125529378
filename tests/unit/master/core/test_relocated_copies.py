"""Relocation beneath snapshots and clones: whoever shares a range goes along unchanged."""

from __future__ import annotations

import pytest

from gfs import messages as m
from gfs.ids import ROOT_INO
from gfs.items import CHUNKS, ChunkState
from master.core import relocating
from tests.unit.master.core.conftest import MakeCluster
from tests.unit.master.core.harness import Client, Cluster
from tests.unit.master.core.test_relocation import (
    FOUND_S,
    SETTLED_S,
    extents,
    half_dead,
    scattered,
)


@pytest.fixture
def c(make_cluster: MakeCluster) -> Cluster:
    return make_cluster(servers=4, safe_start_s=0.0)


def hang(c: Cluster) -> None:
    """Orders are taken from now on, and answered by `answer`."""
    for server in c.servers.values():
        server.hung = True


def answer(c: Cluster) -> None:
    for server in c.servers.values():
        server.answer_all()


def building(c: Cluster, a: Client) -> tuple[int, int]:
    """A file of which 100 bytes are being moved out of a chunk; that chunk."""
    f, old = half_dead(c, a)
    hang(c)
    c.pass_time(SETTLED_S)
    assert c.operations().count("relocate-begin") == 1
    return f, old


def test_all_who_share_a_range_are_led_to_its_new_place_by_one_record(
    c: Cluster, a: Client
) -> None:
    f, old = half_dead(c, a)
    d = a.mkdir(b"d")
    copy = a.do(m.Clone(f, d, b"g")).root
    tree = a.do(m.Snapshot(d, ROOT_INO, b"s")).root
    again = a.lookup(b"g", tree).ino
    c.pass_time(SETTLED_S)
    assert c.operations().count("relocate") == 1
    [(offset, length, new, at)] = extents(c, f)
    assert (offset, length, at) == (0, 100, 0)
    assert new != old
    assert extents(c, copy) == extents(c, again) == extents(c, f)
    assert (c.chunk(new).length, c.chunk(new).references) == (100, 300)
    assert c.chunk(old).state is ChunkState.CONDEMNED
    c.pass_time(SETTLED_S)
    assert c.tables.get(CHUNKS, (old,)) is None


def test_more_sharers_than_one_record_takes_all_go_along(
    c: Cluster, a: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relocating, "EXTENTS_MAX", 2)
    f, old = half_dead(c, a)
    copies = [a.do(m.Clone(f, ROOT_INO, b"g%d" % number)).root for number in range(3)]
    c.pass_time(SETTLED_S + 5)
    homes = {tuple(extents(c, ino)) for ino in (f, *copies)}
    [((_, _, new, _),)] = homes
    assert new != old
    assert (c.chunk(new).length, c.chunk(new).references) == (100, 400)
    assert c.operations().count("relocate-begin") == 1
    assert c.operations().count("relocate") == 2
    assert c.chunk(old).state is ChunkState.CONDEMNED


def test_a_scattered_file_and_its_snapshot_stay_shared(c: Cluster, a: Client) -> None:
    f, _ = scattered(c, a, b"f", 600)
    copy = a.do(m.Clone(f, ROOT_INO, b"g")).root
    c.pass_time(FOUND_S)
    assert extents(c, f) == extents(c, copy)
    assert len(extents(c, f)) == 1


def test_a_copy_made_while_the_new_chunk_is_built_goes_along(c: Cluster, a: Client) -> None:
    f, old = building(c, a)
    copy = a.do(m.Clone(f, ROOT_INO, b"g")).root
    assert extents(c, copy) == [(0, 100, old, 500)]
    answer(c)
    assert extents(c, copy) == extents(c, f)
    assert extents(c, copy)[0][2] != old
    assert c.chunk(old).references == 0


def test_a_copy_outlives_its_source_that_goes_while_the_new_chunk_is_built(
    c: Cluster, a: Client
) -> None:
    f, old = building(c, a)
    copy = a.do(m.Clone(f, ROOT_INO, b"g")).root
    a.do(m.Unlink(ROOT_INO, b"f"))
    a.do(m.EmptyTrash([f]))
    answer(c)
    [(_, _, new, _)] = extents(c, copy)
    assert new != old
    assert c.chunk(new).references == 100


def test_what_is_written_to_one_side_meanwhile_stays_there_alone(c: Cluster, a: Client) -> None:
    f, old = half_dead(c, a)
    copy = a.do(m.Clone(f, ROOT_INO, b"g")).root
    lease = a.allocate()
    c.append(lease, 20)
    hang(c)
    c.pass_time(SETTLED_S)
    a.open_file(copy)
    a.commit(copy, (40, 20, lease.handle, 0))
    answer(c)
    [(_, _, new, at)] = extents(c, f)
    assert (new != old, at) == (True, 0)
    assert extents(c, copy) == [
        (0, 40, new, 0),
        (40, 20, lease.handle, 0),
        (60, 40, new, 60),
    ]
    assert c.chunk(new).references == 180


def test_a_master_that_dies_with_a_copy_made_in_between_leaves_both_as_they_were(
    c: Cluster, a: Client
) -> None:
    f, old = building(c, a)
    copy = a.do(m.Clone(f, ROOT_INO, b"g")).root
    for server in c.servers.values():
        server.hung = False
        server.waiting.clear()
    c.restart()
    assert extents(c, f) == extents(c, copy) == [(0, 100, old, 500)]
    c.pass_time(2 * SETTLED_S)
    assert extents(c, f) == extents(c, copy)
    assert c.chunk(extents(c, f)[0][2]).length == 100
