"""New chunks: how many servers, which, and what happens when there are too few."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest

from gfs import errors
from gfs import messages as m
from gfs.ids import GIB, MIB
from master.core.placement import Candidate, choose, members_needed
from tests.unit.master.core.conftest import MakeCluster
from tests.unit.master.core.harness import CHUNK


def servers_of(lease: m.Lease | None) -> list[int]:
    assert lease is not None
    return [member.server for member in lease.members]


def pick(candidates: list[Candidate], goal: int = 3, seed: int = 1) -> list[int]:
    return choose(candidates, goal=goal, needed=2, chunk_bytes=64 * MIB, random=Random(seed))


def test_members_are_spread_over_racks() -> None:
    racks = {1: "r1", 2: "r1", 3: "r1", 4: "r2", 5: "r2", 6: "r3"}
    candidates = [Candidate(n, rack, GIB, 0) for n, rack in racks.items()]
    for seed in range(50):
        chosen = pick(candidates, seed=seed)
        assert len({racks[n] for n in chosen}) == 3
        four = pick(candidates, goal=4, seed=seed)
        assert len(set(four)) == 4
        assert {racks[n] for n in four[:3]} == {"r1", "r2", "r3"}


def test_emptier_servers_are_chosen_more_often_but_not_always() -> None:
    candidates = [Candidate(n, "", (100 if n == 0 else 10) * GIB, 0) for n in range(10)]
    firsts = Counter(n for seed in range(300) for n in pick(candidates, goal=1, seed=seed))
    assert 50 < firsts[0] < 250


def test_a_server_with_many_open_chunks_is_spared() -> None:
    candidates = [Candidate(n, "", 10 * GIB, 50 if n == 0 else 0) for n in range(4)]
    used = Counter(n for seed in range(200) for n in pick(candidates, goal=2, seed=seed))
    assert used[0] < used[1] / 3


def test_a_full_server_is_not_chosen() -> None:
    candidates = [Candidate(n, "", 64 * MIB - (n == 0), 0) for n in range(3)]
    assert sorted(pick(candidates)) == [1, 2]
    with pytest.raises(errors.TooFewServers):
        pick(candidates[:2])


@pytest.mark.parametrize(
    ("goal", "write_min", "known", "needed"),
    [(3, 2, 3, 2), (3, 2, 1, 1), (1, 2, 3, 1), (3, 3, 2, 2), (3, 2, 0, 1)],
)
def test_how_many_servers_a_new_chunk_needs(
    goal: int, write_min: int, known: int, needed: int
) -> None:
    assert members_needed(goal, write_min, known) == needed


def test_a_chunk_gets_its_goal_and_a_lease_with_addresses(make_cluster: MakeCluster) -> None:
    c = make_cluster(servers=5, racks=("r1", "r1", "r2", "r2", "r3"))
    a = c.client()
    lease = a.allocate()
    assert (lease.version, lease.epoch, lease.chunk_bytes) == (1, 1, CHUNK)
    assert len({member.rack for member in lease.members}) == 3
    assert {member.address for member in lease.members} <= {
        server.member.address for server in c.servers.values()
    }
    assert [len(servers_of(a.do(m.Allocate(goal)).lease)) for goal in (1, 2, 4)] == [1, 2, 4]


def test_a_cluster_of_one_server_works(make_cluster: MakeCluster) -> None:
    c = make_cluster(servers=1)
    assert servers_of(c.client().allocate()) == [1]


def test_too_few_servers_make_it_wait_and_go_on_when_they_come(make_cluster: MakeCluster) -> None:
    c = make_cluster(servers=3)
    a = c.client()
    for number in (1, 2):
        c.server(number).stop()
    call = a.start(m.Allocate())
    c.pass_time(30)
    assert not call.is_answered
    c.server(1).register()
    assert sorted(servers_of(call.done.lease)) == [1, 3]


def test_a_cluster_of_three_that_lost_two_is_no_cluster_of_one(make_cluster: MakeCluster) -> None:
    c = make_cluster(servers=3)
    a = c.client()
    for number in (1, 2):
        c.server(number).stop()
    c.restart()
    call = a.start(m.Allocate())
    assert not call.is_answered
    c.pass_time(61)
    with pytest.raises(errors.TooFewServers):
        _ = call.answer


def test_the_answer_says_too_few_only_after_a_minute(make_cluster: MakeCluster) -> None:
    c = make_cluster(servers=0)
    call = c.client().start(m.Allocate())
    c.pass_time(59)
    assert not call.is_answered
    c.pass_time(3)
    with pytest.raises(errors.TooFewServers):
        _ = call.answer
