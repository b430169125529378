"""Who is told what, who is waited for, and what nobody may cache (protocols.md "Sessions")."""

from __future__ import annotations

import os

import pytest

from gfs import messages as m
from gfs.ids import ROOT_INO
from tests.unit.master.core.harness import Client, Cluster, file_commit


def names_of(told: list[m.Invalidate]) -> list[tuple[int, bytes]]:
    return [(pair.parent, pair.name) for message in told for pair in message.names]


def inos_of(told: list[m.Invalidate]) -> set[int]:
    return {ino for message in told for ino in message.inos}


def contents_of(told: list[m.Invalidate]) -> set[int]:
    return {ino for message in told for ino in message.contents}


# --- who


def test_only_mounts_with_interest_are_told_and_never_the_cause(
    c: Cluster, a: Client, b: Client
) -> None:
    d = a.mkdir(b"d")
    other = c.client("/c")
    tool = c.client("")
    b.lookup(b"x", d)
    tool.lookup(b"x", d)
    other.lookup(b"x")
    a.told()
    a.create(b"x", d)
    told = b.told()
    assert names_of(told) == [(d, b"x")]
    assert d in inos_of(told)
    assert names_of(other.told()) == []
    assert (a.told(), tool.told()) == ([], [])


@pytest.mark.parametrize("how", ["lookup", "list", "attributes", "create"])
def test_every_way_to_learn_of_a_directory_is_interest(a: Client, b: Client, how: str) -> None:
    f = a.create(b"f")
    a.close_file(f)
    if how == "lookup":
        b.lookup(b"absent")
    elif how == "list":
        b.names()
    elif how == "attributes":
        b.inode(f)
    else:
        b.close_file(b.create(b"g"))
    b.told()
    a.do(m.SetAttributes(f, mode=0o600))
    assert f in inos_of(b.told())


def test_a_directory_one_has_made_is_of_interest(a: Client, b: Client) -> None:
    d = a.mkdir(b"d")
    a.told()
    b.create(b"x", d)
    assert names_of(a.told()) == [(d, b"x")]


def test_who_dropped_interest_is_not_told(a: Client, b: Client) -> None:
    b.names()
    b.get(m.DropInterest([ROOT_INO]), m.Ok)
    a.create(b"f")
    assert b.told() == []


def test_every_directory_with_a_link_counts(a: Client, b: Client) -> None:
    d = a.mkdir(b"d")
    f = a.create(b"f")
    a.do(m.MakeLink(f, d, b"g"))
    b.lookup(b"g", d)
    b.get(m.DropInterest([ROOT_INO]), m.Ok)
    b.told()
    a.do(m.SetAttributes(f, mode=0o600))
    assert f in inos_of(b.told())


def test_an_open_file_is_of_interest_without_any_name(c: Cluster, a: Client, b: Client) -> None:
    f = a.create(b"f")
    b.open_file(f, os.O_RDONLY)
    a.do(m.Unlink(ROOT_INO, b"f"))
    b.told()
    a.do(m.SetAttributes(f, mode=0o600))
    assert inos_of(b.told()) == {f}


def test_that_a_directory_is_gone_is_told_to_who_may_know_its_attributes(
    a: Client, b: Client
) -> None:
    d = a.mkdir(b"d")
    b.names()
    b.told()
    a.do(m.RemoveDirectory(ROOT_INO, b"d"))
    assert d in inos_of(b.told())


def test_a_rename_names_both_places(a: Client, b: Client) -> None:
    d, e = a.mkdir(b"d"), a.mkdir(b"e")
    f = a.create(b"f", d)
    for directory in (d, e):
        b.names(directory)
    b.told()
    a.do(m.Rename(d, b"f", e, b"g"))
    told = b.told()
    assert sorted(names_of(told)) == [(d, b"f"), (e, b"g")]
    assert {d, e, f} <= inos_of(told)


def test_contents_are_named_only_when_they_changed(c: Cluster, a: Client, b: Client) -> None:
    f = a.create(b"f")
    lease = a.allocate()
    c.append(lease, 10)
    b.open_file(f, os.O_RDONLY)
    b.told()
    a.do(m.SetAttributes(f, mode=0o600))
    assert contents_of(b.told()) == set()
    a.commit(f, (0, 10, lease.handle, 0))
    assert contents_of(b.told()) == {f}
    a.open_tail(f)
    assert contents_of(b.told()) == {f}, "a moved tail moves the others' reads"


def test_attributes_are_told_once_until_they_are_read_again(a: Client, b: Client) -> None:
    b.names()
    for number in range(5):
        a.create(b"%d" % number)
    told = b.told()
    assert len(names_of(told)) == 5
    assert sum(ROOT_INO in message.inos for message in told) == 1
    b.inode(ROOT_INO)
    a.create(b"more")
    assert ROOT_INO in inos_of(b.told())


def test_a_change_waits_for_the_drop_an_earlier_one_asked_for(a: Client, b: Client) -> None:
    """The second is not told again, but its answer must not come before the first drop."""
    f = a.create(b"f")
    a.close_file(f)
    b.lookup(b"f")
    b.told()
    b.automatic = False
    first = a.start(m.SetAttributes(f, mode=0o600))
    second = a.start(m.SetAttributes(f, mode=0o640))
    assert not first.is_answered
    assert not second.is_answered
    assert len(b.asked) == 1
    b.acknowledge()
    assert first.answers
    assert second.answers


# --- when


def test_the_answer_waits_for_every_holder(c: Cluster, a: Client, b: Client) -> None:
    other = c.client("/c")
    for client in (b, other):
        client.names()
        client.automatic = False
    call = a.start(m.Create(ROOT_INO, b"f", 0o600, os.O_RDWR))
    b.acknowledge()
    assert not call.is_answered
    other.acknowledge()
    assert call.done.created


def test_the_change_is_visible_to_readers_before_it_is_answered(a: Client, b: Client) -> None:
    b.names()
    b.automatic = False
    call = a.start(m.Create(ROOT_INO, b"f", 0o600, os.O_RDWR))
    assert not call.is_answered
    assert b.lookup(b"f").ino


def test_who_registers_before_a_change_is_told_who_reads_after_sees_it(
    c: Cluster, a: Client, b: Client
) -> None:
    """A read between decision and commit is as of before, and the invalidation is later."""
    a.send(m.Create(ROOT_INO, b"f", 0o600, os.O_RDWR))
    before = b.lookup(b"f")
    ready = c.step_queued()
    c.deliver(ready)
    told = b.told()
    assert before.ino == 0
    assert names_of(told) == [(ROOT_INO, b"f")]
    assert told[0].position > before.position
    after = b.lookup(b"f")
    assert after.ino
    assert after.position >= told[0].position


def test_invalidations_leave_before_the_answers_of_their_step(c: Cluster, a: Client) -> None:
    a.names()
    b = c.client("/b")
    b.names()
    b.automatic = False
    call = a.send(m.Create(ROOT_INO, b"f", 0o600, os.O_RDWR))
    ready = c.step_queued()
    assert [send.to_session for send in ready.sends] == [b.session]
    assert ready.replies == []
    c.deliver(ready)
    assert not call.is_answered


# --- writers


def test_while_somebody_writes_the_others_do_not_cache(a: Client, b: Client) -> None:
    f = a.create(b"f")
    assert a.lookup(b"f").cacheable
    assert not b.lookup(b"f").cacheable
    a.get(m.CloseFiles([f], []), m.Ok)
    assert not b.lookup(b"f").cacheable, "its commits are still to come"
    a.get(m.CloseFiles([], [f]), m.Ok)
    assert b.lookup(b"f").cacheable


def test_becoming_a_writer_waits_until_the_others_have_dropped_the_attributes(
    c: Cluster, a: Client, b: Client
) -> None:
    f = a.create(b"f")
    a.close_file(f)
    b.lookup(b"f")
    b.told()
    b.automatic = False
    call = a.ask(m.Open(f, os.O_WRONLY, a.actor))
    assert not call.is_answered
    assert inos_of([send.message for send in b.asked]) == {f}  # type: ignore[misc]
    assert not b.lookup(b"f").cacheable
    b.acknowledge()
    assert isinstance(call.answer, m.Opened)


def test_a_reader_and_a_sole_writer_wait_for_nobody(a: Client, b: Client) -> None:
    f = a.create(b"f")
    a.close_file(f)
    b.lookup(b"f")
    b.automatic = False
    assert not a.get(m.Open(f, os.O_RDONLY, a.actor), m.Opened).shared
    g = b.create(b"g")
    b.close_file(g)
    assert isinstance(b.ask(m.Open(g, os.O_RDWR, b.actor)).answer, m.Opened) or b.asked


def test_two_writers_know_that_they_share(a: Client, b: Client) -> None:
    f = a.create(b"f")
    assert b.open_file(f).shared
    assert a.get(m.Open(f, os.O_RDONLY, a.actor), m.Opened).shared


def flushes(c: Cluster, client: Client, f: int, end: int) -> None:
    """On recall the client commits `end` bytes."""
    lease = client.allocate()
    c.append(lease, end)

    def flush(recall: m.Recall) -> None:
        assert recall.inos in ([f], [])
        client.send(m.Commit([file_commit(f, (0, end, lease.handle, 0))]))
        c.settle()

    client.on_recall = flush


@pytest.mark.parametrize("how", ["open", "attributes", "walk"])
def test_readers_elsewhere_see_what_a_writer_held_back(
    c: Cluster, a: Client, b: Client, how: str
) -> None:
    f = a.create(b"f")
    flushes(c, a, f, 123)
    if how == "open":
        entry = b.open_file(f, os.O_RDONLY).entry
    elif how == "attributes":
        entry = b.get(m.GetAttributes([f], b.actor), m.Entries).entries[0]
    else:
        entry = b.get(m.Walk(b"/f", True, b.actor), m.Walked).entry
    assert entry.inode is not None
    assert entry.inode.size == 123


def test_a_truncation_elsewhere_comes_after_what_a_writer_held_back(
    c: Cluster, a: Client, b: Client
) -> None:
    f = a.create(b"f")
    flushes(c, a, f, 123)
    b.do(m.SetAttributes(f, size=50))
    assert c.operations()[-2:] == ["commit", "setattr"]


def test_each_question_recalls_anew(c: Cluster, a: Client, b: Client) -> None:
    f = a.create(b"f")
    for _ in range(3):
        b.inode(f)
    recalls = [message for message in a.heard if isinstance(message, m.Recall)]
    assert len(recalls) == 3


def test_one_attribute_question_recalls_the_writers_of_all_its_inodes(
    c: Cluster, a: Client, b: Client
) -> None:
    files = [a.create(b"%d" % number) for number in range(4)]
    found = b.get(m.GetAttributes(files, b.actor), m.Entries)
    assert [entry.ino for entry in found.entries] == files
    recalled = {ino for s in a.heard if isinstance(s, m.Recall) for ino in s.inos}
    assert recalled == set(files)


def test_a_file_whose_last_name_is_going_is_not_opened_meanwhile(
    c: Cluster, a: Client, b: Client
) -> None:
    """The record is decided, not yet durable; committed state still shows the file."""
    f = a.create(b"f")
    a.close_file(f)
    a.send(m.Unlink(ROOT_INO, b"f"))
    works, c._works = c._works, []
    c.tables.begin()
    c.core.begin(c.now_s, c.now_ns())
    works[0]()
    c.core.take_records()
    c.tables.rollback()  # readers see the state without it
    reading = b.cluster.core.machine
    assert reading.try_read(b.session, m.Open(f, os.O_RDONLY, b.actor)) is None
    c.core.engine.position = c.core.engine.committed_position
    c.core.engine._decided = []
    c.core.committed()


def test_a_truncation_ends_though_somebody_appends_without_pause(
    c: Cluster, a: Client, b: Client
) -> None:
    """What is appended after the request came need not lie before it."""
    f = a.create(b"f")
    tails = [a.open_tail(f)]
    b.open_file(f)

    def appending(recall: m.Recall) -> None:
        done = a.do(m.ResolveTail(f, 7, tails[-1].lease.handle, 1))
        assert done.tail is not None
        tails.append(done.tail)

    a.on_recall = appending
    cut = b.do(m.SetAttributes(f, size=10))
    assert cut.entry is not None
    assert cut.entry.inode is not None
    assert cut.entry.inode.size == 10


def test_who_reads_in_the_step_in_which_another_becomes_writer_keeps_nothing(
    c: Cluster, a: Client, b: Client
) -> None:
    """The answer says cacheable, as of before; the invalidation overtakes it, as of after."""
    reader = c.client("/reader")
    f = b.create(b"f")
    b.automatic = False
    reading = reader.ask(m.GetAttributes([f], reader.actor))
    opening = a.ask(m.Open(f, os.O_WRONLY, a.actor))
    b.close_file(f)
    b.acknowledge()
    c.settle()
    b.acknowledge()
    entries = reading.answer
    assert isinstance(entries, m.Entries)
    assert isinstance(opening.answer, m.Opened)
    told = [message for message in reader.told() if f in message.inos]
    assert told[0].position > entries.entries[0].position
    assert entries.entries[0].cacheable
