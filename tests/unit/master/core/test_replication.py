"""The choices of repair and balance, on random clusters."""

from __future__ import annotations

from hypothesis import assume, given
from hypothesis import strategies as st

from master.core import replication
from master.core.replication import Site

GOAL = 3
STREAMS = 2
LENGTH = 10


@st.composite
def clusters(draw: st.DrawFn) -> dict[int, Site]:
    count = draw(st.integers(1, 8))
    return {
        server: Site(
            server,
            draw(st.sampled_from("abc")),
            draw(st.integers(0, 100)),
            100,
            draw(st.booleans()),
            draw(st.integers(0, STREAMS)),
            draw(st.integers(0, STREAMS)),
        )
        for server in range(1, count + 1)
    }


@st.composite
def held(draw: st.DrawFn) -> tuple[dict[int, Site], set[int]]:
    sites = draw(clusters())
    return sites, draw(st.sets(st.sampled_from(sorted(sites)), min_size=1))


@given(held())
def test_a_target_has_room_a_free_stream_and_no_copy(
    given: tuple[dict[int, Site], set[int]],
) -> None:
    sites, holders = given
    able = replication.targets(holders, sites, length=LENGTH)
    target = replication.choose_target(able, holders, sites, streams=STREAMS)
    if target is None:
        assert all(site.writing >= STREAMS for site in able)
        return
    assert target not in holders
    assert not sites[target].draining
    assert sites[target].free_bytes >= LENGTH
    assert sites[target].writing < STREAMS
    racks = {sites[server].rack for server in replication.staying(holders, sites)}
    elsewhere = [s for s in able if s.rack not in racks and s.writing < STREAMS]
    assert sites[target].rack not in racks or not elsewhere


@given(held())
def test_a_source_holds_the_chunk_and_is_the_least_busy(
    given: tuple[dict[int, Site], set[int]],
) -> None:
    sites, holders = given
    source = replication.choose_source(holders, sites, streams=STREAMS)
    if source is None:
        assert all(sites[server].reading >= STREAMS for server in holders)
    else:
        assert source in holders
        assert sites[source].reading == min(sites[server].reading for server in holders)


@given(held())
def test_giving_up_ends_at_the_goal_and_keeps_all_racks_it_can(
    given: tuple[dict[int, Site], set[int]],
) -> None:
    sites, holders = given
    before = replication.staying(holders, sites)
    racks = {sites[server].rack for server in before}
    while (one := replication.choose_surplus(holders, sites, goal=GOAL)) is not None:
        assert one in holders
        holders = holders - {one}
    after = replication.staying(holders, sites)
    assert len(after) >= min(len(before), GOAL)
    if len(before) >= GOAL:
        assert len(after) == len(holders) == GOAL
        assert len({sites[server].rack for server in after}) == min(len(racks), GOAL)


@given(held(), st.floats(0.05, 0.5))
def test_a_move_brings_shares_together_and_costs_no_rack(
    given: tuple[dict[int, Site], set[int]], band: float
) -> None:
    sites, holders = given
    moves = replication.moves(sites, band=band)
    assume(moves)
    source, target = moves[0]
    apart = [sites[to].free_share - sites[of].free_share for of, to in moves]
    assert apart == sorted(apart, reverse=True)
    assert sites[target].free_share - sites[source].free_share >= band
    assert not sites[source].draining
    assert not sites[target].draining
    if replication.may_move(holders, source, target, sites):
        after = holders - {source} | {target}
        assert len(after) == len(holders)
        assert len({sites[s].rack for s in after}) >= len({sites[s].rack for s in holders})


def test_fewest_copies_come_first_then_what_is_asked_for_then_what_files_hold() -> None:
    ranks = [
        replication.rank(1, 0, asked=False),
        replication.rank(2, 5, asked=True),
        replication.rank(2, 0, asked=True),
        replication.rank(2, 5, asked=False),
        replication.rank(2, 0, asked=False),
    ]
    assert ranks == sorted(ranks)
