"""Sessions: a number once, whatever is lost; the gate after a start; the end of a session."""

from __future__ import annotations

import os

import pytest

from gfs import errors
from gfs import messages as m
from gfs.ids import ROOT_INO
from gfs.items import LANDED, ORPHANS, SESSIONS, ChunkState
from tests.unit.master.core.conftest import MakeCluster
from tests.unit.master.core.harness import Call, Client, Cluster, file_commit


def create(name: bytes) -> m.Create:
    return m.Create(ROOT_INO, name, 0o600, os.O_RDWR | os.O_EXCL)


# --- a number once


def test_a_number_again_after_it_landed_gives_the_first_outcome(c: Cluster, a: Client) -> None:
    first = a.start(create(b"f"), number=5, low=5)
    before = len(c.log)
    again = a.start(create(b"f"), number=5, low=5)
    assert again.done == first.done
    assert len(c.log) == before


def test_a_number_again_while_it_runs_is_answered_once_to_the_last_asker(
    c: Cluster, a: Client
) -> None:
    for server in c.servers.values():
        server.stop()
    first = a.start(m.Allocate(), number=1, low=1)
    again = a.start(m.Allocate(), number=1, low=1)
    for server in c.servers.values():
        server.register()
    assert first.answers == []
    assert again.done.lease is not None
    assert c.operations().count("allocate") == 1


def test_a_number_again_while_others_still_drop_waits_for_them(
    c: Cluster, a: Client, b: Client
) -> None:
    b.names()
    b.automatic = False
    first = a.start(create(b"f"), number=1, low=1)
    again = a.start(create(b"f"), number=1, low=1)
    assert not first.is_answered
    assert not again.is_answered
    b.acknowledge()
    assert not first.is_answered
    assert again.done.created
    third = a.start(create(b"f"), number=1, low=1)
    assert third.done == again.done


def test_a_number_again_after_a_restart_gives_the_first_outcome(c: Cluster, a: Client) -> None:
    first = a.start(create(b"f"), number=5, low=5).done
    c.restart()
    before = len(c.log)
    assert a.start(create(b"f"), number=5, low=5).done == first
    assert len(c.log) == before


def test_a_refusal_is_decided_anew(a: Client) -> None:
    with pytest.raises(errors.NotFound):
        _ = a.start(m.Unlink(ROOT_INO, b"f"), number=1, low=1).answer
    a.start(create(b"f"), number=2, low=1)
    assert a.start(m.Unlink(ROOT_INO, b"f"), number=1, low=1).done.position


def test_below_the_mark_nothing_is_decided(c: Cluster, a: Client) -> None:
    a.start(create(b"f"), number=1, low=1)
    a.start(create(b"g"), number=7, low=7)
    before = len(c.log)
    for number in (1, 2, 6):
        with pytest.raises(errors.Refused):
            _ = a.start(create(b"h"), number=number, low=1).answer
    assert len(c.log) == before


def test_the_mark_survives_a_restart_so_far_as_facts_were_dropped(c: Cluster, a: Client) -> None:
    for number in range(1, 400):
        a.start(create(b"%d" % number), number=number, low=number)
    kept = c.tables.range(LANDED, a.session)
    assert len(kept) < 200
    c.restart()
    before = len(c.log)
    for number in range(1, 400):
        call = a.start(create(b"again %d" % number), number=number, low=1)
        found = call.answers[0]
        assert isinstance(found, m.Done | errors.Refused)
    assert len(c.log) == before


@pytest.mark.parametrize("stride", [2, 64])
def test_facts_are_dropped_whatever_numbers_make_records(
    c: Cluster, a: Client, stride: int
) -> None:
    """Only one request in `stride` changes anything: the others leave no record."""
    for number in range(1, 4000, stride):
        a.start(create(b"%d" % number), number=number, low=number)
    assert len(c.tables.range(LANDED, a.session)) < 600


@pytest.mark.parametrize(
    ("number", "low"),
    [(0, 0), (-1, -1), (1 << 62, 1 << 62), ((1 << 64) - 1, (1 << 64) - 1), (3, 4)],
)
def test_a_number_that_is_none_is_refused(a: Client, number: int, low: int) -> None:
    mutate = m.Mutate(number, low, a.actor, create(b"f"))
    call = Call(a, 0, mutate)
    caller = a.cluster.caller(call)
    a.cluster.queue(lambda: a.cluster.core.machine.mutate(a.session, caller, mutate))
    a.cluster.settle()
    with pytest.raises(errors.Refused):
        _ = call.answer


def test_more_than_1024_in_flight_are_too_many(a: Client) -> None:
    a.start(create(b"f"), number=1024, low=1)
    with pytest.raises(errors.Overloaded):
        _ = a.start(create(b"g"), number=1025, low=1).answer


def test_a_full_disk_refuses_new_mutations_and_repeats_old_answers(c: Cluster, a: Client) -> None:
    first = a.start(create(b"f"), number=1, low=1).done
    for number, name in ((1, b"f"), (2, b"g")):
        call = Call(a, 0, m.Ok())
        mutate = m.Mutate(number, 1, a.actor, create(name))
        caller = c.caller(call)
        c.queue(
            lambda mutate=mutate, caller=caller: c.core.machine.mutate(  # type: ignore[misc]
                a.session, caller, mutate, has_room=False
            )
        )
        c.settle()
        if number == 1:
            assert call.done == first
        else:
            with pytest.raises(errors.NoSpace):
                _ = call.answer


# --- the gate after a start


def test_after_a_start_mutations_wait_until_all_sessions_are_back(
    c: Cluster, a: Client, b: Client
) -> None:
    c.restart(resume=False)
    a.open()
    call = a.start(create(b"f"))
    reading = a.ask(m.GetAttributes([ROOT_INO], a.actor))
    assert not call.is_answered
    assert not reading.is_answered
    b.open()
    assert call.done.created
    assert isinstance(reading.answer, m.Entries)


def test_after_a_start_mutations_wait_one_term_for_who_does_not_return(
    c: Cluster, a: Client, b: Client
) -> None:
    c.restart(resume=False)
    a.open()
    call = a.start(create(b"f"))
    c.pass_time(19.5)
    assert not call.is_answered
    c.pass_time(1)
    assert call.done.created
    assert c.tables.get(SESSIONS, (b.session,)) is None
    with pytest.raises(errors.DeadSession):
        b.open()


def test_first_outcomes_too_wait_for_the_gate(c: Cluster, a: Client, b: Client) -> None:
    """Whoever has not come back may still show what the mutation changed."""
    b.names()
    b.automatic = False
    lost = a.start(create(b"f"), number=1, low=1)
    assert not lost.is_answered
    c.restart(resume=False)
    a.open()
    call = a.start(create(b"f"), number=1, low=1)
    assert not call.is_answered
    b.open()
    assert call.done.created


def test_a_session_keeps_nothing_of_an_answer_given_by_an_earlier_master(
    c: Cluster, a: Client, b: Client
) -> None:
    """Between the record and the answer others may have changed what it shows."""
    first = a.start(create(b"f"), number=1, low=1).done
    c.restart(resume=False)
    b.open()
    rename = b.start(m.Rename(ROOT_INO, b"f", ROOT_INO, b"g"))
    a.open()
    assert rename.is_answered
    a.heard.clear()
    again = a.start(create(b"f"), number=1, low=1).done
    assert again == first
    told = a.told()
    assert m.NamePair(ROOT_INO, b"f") in told[0].names
    assert first.entry is not None
    assert set(told[0].inos) >= {first.entry.ino, ROOT_INO}
    assert told[0].position > first.position


def test_a_file_created_before_a_restart_and_heard_of_after_it_is_open(
    c: Cluster, a: Client
) -> None:
    first = a.start(create(b"f"), number=1, low=1).done
    assert first.entry is not None
    f = first.entry.ino
    c.restart()  # the session does not know that it has the file open
    a.start(create(b"f"), number=1, low=1)
    lease = a.allocate()
    c.append(lease, 10)
    assert a.commit(f, (0, 10, lease.handle, 0)).code == ""


def test_nothing_is_cacheable_before_the_writers_are_back(c: Cluster, a: Client, b: Client) -> None:
    f = b.create(b"f")
    c.restart(resume=False)
    a.open()
    assert not a.lookup(b"f").cacheable
    listing = a.get(m.ReadDirectory(ROOT_INO, b"", 10, True, a.actor), m.Listing)
    assert [item.cacheable for item in listing.entries] == [False]
    b.open(opens=[f], writers=[f])
    assert not a.lookup(b"f").cacheable
    b.close_file(f)
    assert a.lookup(b"f").cacheable


def test_a_session_that_returns_declares_what_it_holds(c: Cluster, a: Client, b: Client) -> None:
    f = a.create(b"f")
    d = a.mkdir(b"d")
    c.restart(resume=False)
    b.open()
    a.open(directories=[d], opens=[f], writers=[f])
    a.heard.clear()
    b.create(b"x", d)
    assert a.told()[0].names == [m.NamePair(d, b"x")]
    b.do(m.Unlink(ROOT_INO, b"f"))
    assert c.tables.get(ORPHANS, (f,)) is not None
    assert a.inode(f).nlink == 0


def test_what_was_asked_of_a_lost_connection_is_asked_again(
    c: Cluster, a: Client, b: Client
) -> None:
    b.names()
    b.automatic = False
    call = a.start(create(b"f"))
    assert len(b.asked) == 1
    token = b.asked[0].token
    b.connected = False
    b.automatic = True
    b.open(directories=[ROOT_INO])
    assert [type(message) for message in b.heard] == [m.Invalidate, m.Invalidate]
    assert call.done.created
    assert token


# --- the end


def test_a_session_whose_lease_ran_out_is_dead(c: Cluster, a: Client, b: Client) -> None:
    f = b.create(b"f")
    lease = b.allocate()
    c.append(lease, 10)
    b.connected = False
    c.pass_time(19)
    assert b.session in c.core.engine.sessions.live
    c.pass_time(2)
    for operation in (create(b"g"), m.Commit([file_commit(f, (0, 10, lease.handle, 0))])):
        with pytest.raises(errors.DeadSession):
            _ = b.start(operation).answer
    assert c.tables.range(LANDED, b.session) == []
    assert not c.core.engine.registry.is_open(f)


def test_the_private_chunks_of_a_dead_session_are_sealed(c: Cluster, a: Client, b: Client) -> None:
    f = b.create(b"f")
    lease, empty = b.allocate(), b.allocate()
    c.append(lease, 10)
    b.commit(f, (0, 4, lease.handle, 0))
    b.close()
    assert (c.chunk(lease.handle).state, c.chunk(lease.handle).length) == (ChunkState.SEALED, 10)
    assert c.chunk(empty.handle).state is ChunkState.CONDEMNED


def test_a_master_that_dies_before_that_seal_makes_it_later(c: Cluster, a: Client) -> None:
    lease = a.allocate()
    c.append(lease, 10)
    c.queue(lambda: c.core.upkeep.end_session(a.session))
    c.step_queued()  # the session's end is logged, nobody has been fenced
    c.sessions.clear()
    c.restart()
    assert c.chunk(lease.handle).state is ChunkState.OPEN
    c.pass_time(62)
    assert c.chunk(lease.handle).state is ChunkState.SEALED


def test_orphans_of_a_dead_session_are_reclaimed(c: Cluster, a: Client, b: Client) -> None:
    f = b.create(b"f")
    a.do(m.Unlink(ROOT_INO, b"f"))
    assert c.item(f) is not None
    b.connected = False
    c.pass_time(21)
    assert c.item(f) is None
    assert c.tables.count(ORPHANS) == 0


def test_orphans_survive_a_restart_while_somebody_returns_to_them(
    make_cluster: MakeCluster,
) -> None:
    for returns in (True, False):
        c = make_cluster()
        a, b = c.client("/a"), c.client("/b")
        f = b.create(b"f")
        a.do(m.Unlink(ROOT_INO, b"f"))
        c.restart(resume=False)
        a.open()
        c.pass_time(5)
        assert c.item(f) is not None, "nobody knows yet who holds it"
        b.open(opens=[f] if returns else [])
        c.pass_time(1)
        assert (c.item(f) is not None) == returns


def test_who_waits_for_a_dead_session_goes_on(c: Cluster, a: Client, b: Client) -> None:
    b.names()
    f = b.create(b"g")
    b.automatic = False
    told = a.start(create(b"f"))
    recalled = a.ask(m.GetAttributes([f], a.actor))
    assert not told.is_answered
    assert not recalled.is_answered
    b.connected = False
    c.pass_time(19)
    assert not told.is_answered
    c.pass_time(2)
    assert told.done.created
    assert isinstance(recalled.answer, m.Entries)


def test_an_unknown_session_is_refused(c: Cluster, a: Client) -> None:
    a.session = 12345
    with pytest.raises(errors.DeadSession):
        a.open()


# --- without a session; taken up again with the same master


def test_without_a_session_nothing_is_opened_or_read(c: Cluster, a: Client) -> None:
    f = a.create(b"f")
    a.close_file(f)
    asked = [
        m.Open(f, os.O_RDWR, a.actor),
        m.Lookup(ROOT_INO, b"f", a.actor),
        m.GetAttributes([f], a.actor),
        m.CloseFiles([f], [f]),
        m.Renew(),
    ]
    for session in (0, 4711):
        for message in asked:
            with pytest.raises(errors.DeadSession):
                c.core.machine.try_read(session, message)
            call = Call(a, 0, message)
            c.core.machine.read(session, c.caller(call), message)
            c.settle()
    assert not c.core.engine.registry.is_open(f)
    assert c.core.engine.registry.writers == {}


def test_who_is_taken_up_holds_what_it_declares_and_nothing_else(
    c: Cluster, a: Client, b: Client
) -> None:
    """The closes that were on their way over the lost connection are lost with it."""
    kept, closed, uncommitted = (a.create(name) for name in (b"kept", b"closed", b"uncommitted"))
    gone = a.create(b"gone")
    b.do(m.Unlink(ROOT_INO, b"gone"))
    a.open(opens=[kept], writers=[uncommitted])
    registry = c.core.engine.registry
    assert [registry.is_open(ino) for ino in (kept, closed, uncommitted)] == [True, False, True]
    assert sorted(registry.writers) == [uncommitted]
    assert a.session not in registry.openers[uncommitted]
    c.pass_time(1)
    assert c.item(gone) is None
    assert b.open_file(closed).entry.cacheable
    a.close_file(uncommitted)
    assert not registry.is_open(uncommitted)


def test_interest_is_kept_when_a_session_is_taken_up(a: Client, b: Client) -> None:
    """A directory whose making it has not heard of yet cannot be declared."""
    d = a.mkdir(b"d")
    a.open()
    b.create(b"x", d)
    assert a.told()[0].names == [m.NamePair(d, b"x")]


@pytest.mark.parametrize("restarts", [False, True])
def test_a_file_created_and_not_heard_of_is_open_before_others_go_on(
    make_cluster: MakeCluster, restarts: bool
) -> None:
    c = make_cluster()
    a, b = c.client("/a"), c.client("/b")
    first = a.start(create(b"f"), number=1, low=1).done
    seen = a.start(create(b"g"), number=2, low=1).done
    assert first.entry is not None
    assert seen.entry is not None
    if restarts:
        c.restart(resume=False)
        b.open()
        unlink = b.start(m.Unlink(ROOT_INO, b"f"))
        assert not unlink.is_answered
        a.open(unanswered=[1])
    else:
        a.open(unanswered=[1])
        unlink = b.start(m.Unlink(ROOT_INO, b"f"))
    assert unlink.is_answered
    f = first.entry.ino
    assert not c.core.engine.registry.is_open(seen.entry.ino)
    assert c.tables.get(ORPHANS, (f,)) is not None
    assert a.start(create(b"f"), number=1, low=1).done == first
    lease = a.allocate()
    c.append(lease, 10)
    assert a.commit(f, (0, 10, lease.handle, 0)).code == ""
    a.close_file(f)
    c.pass_time(1)
    assert c.item(f) is None


def test_what_was_asked_of_a_lost_connection_and_not_again_is_not_decided(
    c: Cluster, a: Client, b: Client
) -> None:
    """Else a file would stay open for somebody who never hears of it."""
    f = b.create(b"f")
    b.automatic = False
    old = a.ask(m.Open(f, os.O_RDWR, a.actor))
    create_old = a.start(m.Create(ROOT_INO, b"f", 0o600, os.O_RDWR), number=1, low=1)
    assert not old.is_answered
    assert not create_old.is_answered
    a.open(directories=[ROOT_INO])
    b.automatic = True
    b.acknowledge()
    c.settle()
    for call in (old, create_old):
        with pytest.raises(errors.NotReady):
            _ = call.answer
    assert a.session not in c.core.engine.registry.openers[f]
    assert a.start(m.Create(ROOT_INO, b"f", 0o600, os.O_RDWR), number=1, low=1).done.entry


def test_a_mutation_asked_again_in_time_is_answered_to_the_new_connection(
    c: Cluster, a: Client, b: Client
) -> None:
    f = b.create(b"f")
    b.automatic = False
    operation = m.SetAttributes(f, size=5)
    old = a.start(operation, number=1, low=1)
    a.open()
    again = a.start(operation, number=1, low=1)
    b.automatic = True
    b.acknowledge()
    c.settle()
    assert old.answers == []
    assert again.done.entry is not None


def test_who_becomes_writer_by_its_declaration_stops_others_from_caching(
    c: Cluster, a: Client, b: Client
) -> None:
    """Its open was lost with the connection; it will ask again, and be a writer already."""
    f = a.create(b"f")
    a.close_file(f)
    assert b.lookup(b"f").cacheable
    b.told()
    a.open(opens=[f], writers=[f])
    assert f in b.told()[0].inos
    assert not b.lookup(b"f").cacheable


def test_a_directory_made_before_a_restart_is_not_believed_empty_after_it(
    c: Cluster, a: Client, b: Client
) -> None:
    first = a.start(m.MakeNode(ROOT_INO, b"d", 0o040755), number=1, low=1).done
    assert first.entry is not None
    d = first.entry.ino
    c.restart(resume=False)
    b.open()
    a.open()
    b.create(b"x", d)
    a.heard.clear()
    a.automatic = False
    again = a.start(m.MakeNode(ROOT_INO, b"d", 0o040755), number=1, low=1)
    told = a.told()[0]
    assert m.NamePair(d, b"") in told.names
    assert told.position > first.position
    assert not again.is_answered
    a.acknowledge()
    assert again.done == first
    a.automatic = True
    b.create(b"y", d)
    assert a.told()[0].names == [m.NamePair(d, b"y")]


def test_uncommitted_content_of_a_dead_session_holds_no_orphan(
    c: Cluster, a: Client, b: Client
) -> None:
    f = b.create(b"f")
    b.close_file(f, written=False)
    a.do(m.Unlink(ROOT_INO, b"f"))
    assert c.tables.get(ORPHANS, (f,)) is not None
    b.close()
    c.pass_time(1)
    assert c.item(f) is None


# --- marks and stalls


def test_an_idle_session_says_that_it_has_all_its_answers(c: Cluster, a: Client) -> None:
    a.create(b"f")
    live = c.core.engine.sessions.live[a.session]
    assert live.landed
    c.core.engine.sessions.renew(a.session, c.now_s, a.low())
    assert not live.landed
    a.create(b"g")
    c.core.engine.sessions.renew(a.session, c.now_s, 1)
    assert list(live.landed) == [a.number]


def test_a_master_that_was_stopped_ends_no_session_for_it(c: Cluster, a: Client, b: Client) -> None:
    b.connected = False
    c.pass_time(10)
    c.now_s += 60
    c.queue(c.core.tick)  # before it has read a single renewal
    c.settle()
    assert {a.session, b.session} <= c.core.engine.sessions.live.keys()
    c.pass_time(9.5)
    assert b.session in c.core.engine.sessions.live
    c.pass_time(1)
    assert b.session not in c.core.engine.sessions.live
    assert a.session in c.core.engine.sessions.live


def test_a_master_that_hears_nobody_ends_no_session_for_it(
    c: Cluster, a: Client, b: Client
) -> None:
    """Goal: a master that is cut off itself does not take it for the end of all others."""
    b.connected = False
    c.pass_time(10)
    for tenths in range(1, 600):
        c.now_s += 0.1
        c.core.notice(c.now_s, silent_s=tenths / 10)
        assert not c.core.engine.sessions.expired(c.now_s)
        if tenths % 10 == 5:
            c.step()  # somebody without a session may ask meanwhile
    c.pass_time(8)
    assert b.session in c.core.engine.sessions.live
    c.pass_time(2)
    assert b.session not in c.core.engine.sessions.live
    assert a.session in c.core.engine.sessions.live


def test_a_stopped_master_waits_on_for_who_was_not_back(c: Cluster, a: Client, b: Client) -> None:
    c.restart(resume=False)
    a.open()
    call = a.start(create(b"f"))
    c.now_s += 60
    c.queue(c.core.tick)
    c.settle()
    assert not call.is_answered
    b.open()
    assert call.done.created
