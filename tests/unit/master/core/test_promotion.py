"""Who may lead: majorities, missing records, and a master that could be superseded (GFS §5.1.3)."""

from __future__ import annotations

import itertools

import pytest

from gfs import messages as m
from master.core.promotion import (
    SILENCE_S,
    TAKEOVER_S,
    Heard,
    epoch_to_begin,
    hears_majority,
    majority,
    missing,
    wait_s,
)
from tests.unit.master.core.harness import Client, Cluster


@pytest.mark.parametrize("servers", range(1, 9))
def test_any_two_majorities_share_a_server(servers: int) -> None:
    everybody = set(range(servers))
    for one in itertools.combinations(everybody, majority(servers)):
        assert len(everybody - set(one)) < majority(servers)


@pytest.mark.parametrize(
    ("own", "heard", "lacks"),
    [
        ((1, 100), [(1, 90), (1, 100), (0, 0)], 0),
        ((1, 100), [(1, 103), (1, 100)], 3),
        ((1, 100), [(2, 101)], 1),
        ((1, 100), [(2, 50)], 1),  # an older history, however long
        ((2, 90), [(1, 100)], 0),  # these were given up when epoch 2 began
        ((1, 5), [], 0),
    ],
)
def test_a_log_lacks_what_anybody_has_heard_of_beyond_its_end(
    own: tuple[int, int], heard: list[tuple[int, int]], lacks: int
) -> None:
    assert missing(own, [Heard(1, one) for one in heard]) == lacks


def test_an_epoch_is_begun_that_was_promised_to_nobody() -> None:
    assert epoch_to_begin(3, [Heard(3, (3, 9)), Heard(7, (3, 9))]) == 8
    assert epoch_to_begin(9, [Heard(3, (3, 9))]) == 10


def test_only_who_led_last_itself_need_not_wait_for_another() -> None:
    assert wait_s(4, [Heard(4, (4, 1)), Heard(3, (3, 1))]) == 0
    assert wait_s(0, [Heard(4, (4, 1))]) == TAKEOVER_S > SILENCE_S


def test_a_majority_is_heard_only_within_the_limit() -> None:
    assert hears_majority([1, 2, 3], {1: 10.0, 2: 10.0}, 10.0 + SILENCE_S)
    assert not hears_majority([1, 2, 3], {1: 10.0, 2: 9.9}, 10.0 + SILENCE_S)
    assert not hears_majority([1, 2, 3], {1: 10.0, 7: 10.0}, 10.0)
    assert hears_majority([], {}, 10.0)


def register_shadow(c: Cluster) -> None:
    c.queue(lambda: c.core.shadows.register(99, "shadow:1"))
    c.settle()


def hear(c: Cluster, *servers: int) -> None:
    for server in servers:
        c.core.fleet.heartbeat(server, m.Heartbeat(1 << 40, 1 << 41, []), c.now_s)


def test_without_a_majority_changes_wait_and_reads_do_not(c: Cluster, a: Client) -> None:
    a.open()
    register_shadow(c)
    c.pass_time(SILENCE_S + 0.5)
    hear(c, 1)
    made = a.start(m.MakeNode(1, b"d", 0o40755, 0))
    c.pass_time(1.0)
    assert [made.is_answered] == [False]
    assert a.lookup(b"d").ino == 0
    hear(c, 2)
    c.pass_time(1.0)
    assert made.is_answered
    assert a.lookup(b"d").ino != 0


def test_nobody_waits_for_a_majority_while_no_shadow_is_registered(c: Cluster, a: Client) -> None:
    a.open()
    c.pass_time(2 * SILENCE_S)
    a.mkdir(b"d")


def test_a_registered_shadow_is_remembered_until_it_is_forgotten(c: Cluster) -> None:
    register_shadow(c)
    c.restart()
    assert list(c.core.shadows.registered.items()) == [(99, "shadow:1")]
    c.queue(lambda: c.core.shadows.forget(99))
    c.settle()
    c.restart()
    assert list(c.core.shadows.registered) == []


def test_answers_wait_for_shadows_that_keep_up_and_for_no_others(c: Cluster) -> None:
    shadows = c.core.shadows
    end = c.core.engine.committed_position
    shadows.heard(1, "a:1", end, 0.0)
    shadows.heard(2, "b:1", end - 1, 0.0)
    assert shadows.confirmed() == end
    register_shadow(c)
    assert shadows.confirmed() == end
    assert not shadows.may_leave(end + 1, 10.0)
    shadows.heard(1, "a:1", end + 1, 10.1)
    assert shadows.may_leave(end + 1, 10.1)


def test_a_shadow_that_confirms_nothing_for_a_second_is_behind(c: Cluster) -> None:
    shadows = c.core.shadows
    shadows.heard(1, "a:1", c.core.engine.committed_position, 0.0)
    register_shadow(c)
    position = c.core.engine.committed_position
    assert not shadows.may_leave(position, 10.0)
    assert not shadows.may_leave(position, 10.9)
    assert shadows.may_leave(position, 11.1)
    assert [one["keeps_up"] for one in shadows.status(11.1)] == [False]
