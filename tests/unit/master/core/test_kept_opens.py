"""A session may keep an open past the last close: what the master asks before it matters."""

from __future__ import annotations

import os

import pytest

from gfs import messages as m
from gfs.ids import ROOT_INO
from gfs.items import ORPHANS
from tests.unit.master.core.harness import Client, Cluster
from tests.unit.master.core.test_trash import OLD, filled, trash


def keeps_nothing(client: Client) -> None:
    """It answers a recall of kept opens as a client does that has no handle."""
    asked, client.asked = client.asked, []
    kept = [send for send in asked if isinstance(send.message, m.Recall) and send.message.kept]
    for send in kept:
        assert isinstance(send.message, m.Recall)
        client.get(m.CloseFiles(send.message.inos, []), m.Ok)
    client.asked = asked
    client.acknowledge()
    client.cluster.settle()


def recalls(client: Client) -> list[m.Recall]:
    return [message for message in client.heard if isinstance(message, m.Recall)]


def remove(a: Client, way: str, name: bytes) -> m.Message:
    """What takes the last name of a file away."""
    if way == "unlink":
        return m.Unlink(ROOT_INO, name)
    if way == "rm -r":
        return m.RemoveTree(ROOT_INO, name)
    a.close_file(a.create(b"new"))
    return m.Rename(ROOT_INO, b"new", ROOT_INO, name)


WAYS = ["unlink", "rm -r", "rename over"]


@pytest.mark.parametrize("way", WAYS)
def test_what_another_session_only_keeps_open_does_not_count_when_the_name_goes(
    c: Cluster, a: Client, b: Client, way: str
) -> None:
    f = filled(c, a, b"f")
    b.open_file(f, os.O_RDONLY)
    c.pass_time(OLD)
    operation = remove(a, way, b"f")
    b.automatic = False
    call = a.start(operation)
    assert call.answers == []
    assert recalls(b) == [m.Recall([f], kept=True)]
    keeps_nothing(b)
    keeps_nothing(b)  # and drops the name
    assert call.is_answered
    assert c.tables.count(ORPHANS) == 0
    assert [one.ino for one in trash(a)] == ([] if way == "rename over" else [f])
    assert recalls(b) == [m.Recall([f], kept=True)]


@pytest.mark.parametrize("way", WAYS)
def test_what_another_session_has_open_stays_until_it_is_closed(
    c: Cluster, a: Client, b: Client, way: str
) -> None:
    f = filled(c, a, b"f")
    b.open_file(f, os.O_RDONLY)
    c.pass_time(OLD)
    a.do(remove(a, way, b"f"))
    assert trash(a) == []
    assert b.inode(f).nlink == 0
    b.close_file(f, written=False)
    c.pass_time(1)
    assert c.item(f) is None


def test_a_writer_whose_close_is_on_its_way_does_not_count(
    c: Cluster, a: Client, b: Client
) -> None:
    """All of its commits are answered, it has said nothing yet."""
    f = filled(c, a, b"f")
    c.pass_time(OLD)
    b.open_file(f, os.O_WRONLY)
    b.close_file(f, written=False)
    b.automatic = False
    call = a.start(m.Unlink(ROOT_INO, b"f"))
    assert recalls(b) == [m.Recall([f], kept=True)]
    b.close_after(f)
    b.automatic = True
    b.acknowledge()
    c.settle()
    assert call.is_answered
    assert [one.ino for one in trash(a)] == [f]


def test_who_removes_a_name_that_is_not_the_last_asks_nobody(
    c: Cluster, a: Client, b: Client
) -> None:
    f = filled(c, a, b"f")
    a.do(m.MakeLink(f, ROOT_INO, b"g"))
    b.open_file(f, os.O_RDONLY)
    a.do(m.Unlink(ROOT_INO, b"f"))
    a.do(m.Rename(ROOT_INO, b"g", ROOT_INO, b"h"))
    assert recalls(b) == []


def test_nobody_is_asked_about_files_that_nobody_else_has_open(
    c: Cluster, a: Client, b: Client
) -> None:
    f = filled(c, a, b"f")
    b.lookup(b"f")
    a.open_file(f, os.O_RDONLY)  # its own it gives up by itself
    a.do(m.Unlink(ROOT_INO, b"f"))
    assert recalls(a) == recalls(b) == []


def test_all_who_keep_it_are_asked_at_once(c: Cluster, a: Client, b: Client) -> None:
    third = c.client("/c")
    f = filled(c, a, b"f")
    c.pass_time(OLD)
    for one in (b, third):
        one.open_file(f, os.O_RDONLY)
        one.automatic = False
    call = a.start(m.Unlink(ROOT_INO, b"f"))
    keeps_nothing(b)
    assert recalls(third) == [m.Recall([f], kept=True)]
    assert call.answers == []
    keeps_nothing(third)
    for one in (b, third):
        keeps_nothing(one)
    assert call.is_answered
    assert [one.ino for one in trash(a)] == [f]


def test_a_session_that_does_not_answer_is_waited_for_until_its_lease_is_over(
    c: Cluster, a: Client, b: Client
) -> None:
    f = filled(c, a, b"f")
    b.open_file(f, os.O_RDONLY)
    c.pass_time(OLD)
    b.automatic = b.connected = False
    call = a.start(m.Unlink(ROOT_INO, b"f"))
    c.pass_time(5)
    assert call.answers == []
    c.pass_time(30)
    assert call.is_answered
    assert [one.ino for one in trash(a)] == [f]


def test_a_session_that_comes_back_keeps_what_it_declares_alone(
    c: Cluster, a: Client, b: Client
) -> None:
    kept, held = filled(c, a, b"kept"), filled(c, a, b"held")
    for f in (kept, held):
        b.open_file(f, os.O_RDONLY)
    c.pass_time(OLD)
    b.automatic = False
    call = a.start(m.Unlink(ROOT_INO, b"kept"))
    b.automatic = True
    b.open(opens=[held])  # taken up on another connection, where it is asked again
    assert call.is_answered
    a.do(m.Unlink(ROOT_INO, b"held"))
    assert [one.ino for one in trash(a)] == [kept]
    assert c.tables.count(ORPHANS) == 1


def test_after_a_restart_only_what_is_declared_is_open(c: Cluster, a: Client, b: Client) -> None:
    f = filled(c, a, b"f")
    b.open_file(f, os.O_RDONLY)
    c.pass_time(OLD)
    c.restart()
    a.do(m.Unlink(ROOT_INO, b"f"))
    assert [one.ino for one in trash(a)] == [f]
    c.check()


def test_a_writer_elsewhere_and_a_change_are_told_to_who_keeps_it_open(
    c: Cluster, a: Client, b: Client
) -> None:
    """Without interest in any name, and each time: it trusts what it has read of it."""
    f = filled(c, a, b"f")
    b.open_file(f, os.O_RDONLY)
    b.told()
    a.open_file(f, os.O_RDWR)
    assert [message.inos for message in b.told()] == [[f]]
    for size in (10, 5):
        a.do(m.SetAttributes(f, size=size))
        assert [message.contents for message in b.told()] == [[f]]
