"""What mounts tell of reads: many inodes in one record, and never over what somebody set."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from gfs import messages as m
from gfs.errors import InvalidArgument
from gfs.messages import AccessTime, Actor
from master.core import access
from tests.unit.master.core.harness import OTHER, ROOT, USER, Call, Client, Cluster


def note(client: Client, *times: AccessTime, actor: Actor = ROOT) -> Call:
    cluster, message = client.cluster, m.NoteAccess(list(times), actor)
    call = Call(client, 0, message)
    caller = cluster.caller(call)
    cluster.queue(lambda: cluster.core.machine.change(client.session, caller, message))
    cluster.settle()
    return call


def changed(call: Call) -> list[int]:
    answer = call.answer
    assert isinstance(answer, m.Entries)
    return [entry.ino for entry in answer.entries]


@pytest.fixture
def later(c: Cluster) -> Callable[[], int]:
    """A moment passes; the time then."""

    def wait() -> int:
        c.pass_time(1)
        return c.now_ns()

    return wait


def test_many_times_are_one_record_and_others_hear_of_them(
    c: Cluster, a: Client, b: Client, later: Callable[[], int]
) -> None:
    inos = [a.create(b"%d" % number) for number in range(3)]
    before = {ino: b.inode(ino) for ino in inos}
    b.told()
    now, records = later(), len(c.log)
    assert changed(note(a, *(AccessTime(i, before[i].atime_ns, now) for i in inos))) == inos
    assert c.operations()[records:] == ["atime"]
    (told,) = b.told()
    assert set(told.inos) == set(inos)
    assert told.contents == []
    for ino in inos:
        found, old = b.inode(ino), before[ino]
        assert (found.atime_ns, found.version) == (now, old.version + 1)
        assert (found.mtime_ns, found.ctime_ns, found.data_version) == (
            old.mtime_ns, old.ctime_ns, old.data_version,
        )  # fmt: skip


def test_a_time_that_was_set_meanwhile_stays(
    c: Cluster, a: Client, b: Client, later: Callable[[], int]
) -> None:
    ino = a.create(b"f")
    seen = a.inode(ino).atime_ns
    b.do(m.SetAttributes(ino, atime_ns=5))
    records = len(c.log)
    assert changed(note(a, AccessTime(ino, seen, later()))) == []
    assert changed(note(a, AccessTime(12345, seen, later()))) == [], "it is gone"
    assert len(c.log) == records
    assert a.inode(ino).atime_ns == 5
    now = later()
    assert changed(note(a, AccessTime(ino, None, now))) == [ino], "whoever saw none is right"
    assert changed(note(a, AccessTime(ino, None, now))) == [], "asked again"


def test_no_time_is_in_the_future(c: Cluster, a: Client) -> None:
    ino = a.create(b"f")
    note(a, AccessTime(ino, a.inode(ino).atime_ns, 1 << 61))
    assert a.inode(ino).atime_ns <= c.now_ns() + 1_000_000_000
    with pytest.raises(InvalidArgument):
        _ = note(a, AccessTime(ino, None, 1 << 63 - 1)).answer


def test_who_may_not_read_sets_no_time(a: Client, later: Callable[[], int]) -> None:
    ino = a.create(b"f", mode=0o600)
    a.do(m.SetAttributes(ino, uid=USER.uid, gid=USER.gid))
    time = AccessTime(ino, a.inode(ino).atime_ns, later())
    assert changed(note(a, time, actor=OTHER)) == []
    assert changed(note(a, time, actor=USER)) == [ino]


def test_one_request_is_bounded(a: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "TIMES_MAX", 1)
    with pytest.raises(InvalidArgument):
        _ = note(a, AccessTime(1, None, 1), AccessTime(2, None, 1)).answer
